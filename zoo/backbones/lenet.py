"""LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition, section II.B.

Differs: every map of C3 sees every map of S2; pooling has no parameters; the output layer is linear, not RBF; the
activation is a plain tanh; 28×28 images are padded by 2 to the paper's 32×32.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, head
from zoo.backbones.register import BACKBONES


@BACKBONES.variants(lenet5={})
class LeNet(Backbone):
    taps = ("conv1", "conv2")
    classifier = "fc3"
    smallest = 12
    any_size = False

    def __init__(self, *, num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features = 84
        self.check_images(*self.input_size)
        side = (image_size // 2 - 4) // 2  # of S4
        self.conv1 = nn.Conv2d(in_chans, 6, 5, padding=2)
        self.tanh1 = nn.Tanh()
        self.pool1 = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.tanh2 = nn.Tanh()
        self.pool2 = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.tanh3 = nn.Tanh()
        self.fc2 = nn.Linear(120, 84)
        self.tanh4 = nn.Tanh()
        self.fc3 = head(84, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        x = self.pool1(self.tanh1(self.conv1(x)))  # (N, 6, 14, 14)
        return self.pool2(self.tanh2(self.conv2(x)))  # (N, 16, 5, 5)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.tanh3(self.fc1(features.flatten(1)))  # (N, 120)
        x = self.tanh4(self.fc2(x))  # (N, 84)
        return x if pre_logits else self.fc3(x)
