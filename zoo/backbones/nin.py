"""Lin, Chen, Yan 2013, Network in network: the CIFAR-10 net of the authors' cuda-convnet definition.

Differs: nothing in the network; the biases of the class maps start at one.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.layers.class_maps import ClassMaps, class_maps


def mlpconv(in_planes: int, planes: int, kernel: int, *hidden: int) -> nn.Sequential:
    """A convolution and a perceptron over its channels at each position: 1×1 convolutions, all with ReLU."""
    layers = nn.Sequential(nn.Conv2d(in_planes, planes, kernel, padding=kernel // 2), nn.ReLU(inplace=True))
    for width in hidden:
        layers.extend([nn.Conv2d(planes, width, 1), nn.ReLU(inplace=True)])
        planes = width
    return layers


@BACKBONES.variants(nin={})
class NIN(Backbone):
    """The last 1×1 convolution gives a map a class; the scores are the maps' means."""

    taps = ("pool1", "pool2", "mlpconv3")
    classifier_name = "classifier"
    make_classifier = staticmethod(class_maps)
    smallest = 4
    image_size = 32
    num_features = 192

    def __init__(self, *, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.mlpconv1 = mlpconv(in_chans, 192, 5, 160, 96)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop1 = nn.Dropout(0.5)
        self.mlpconv2 = mlpconv(96, 192, 5, 192, 192)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.drop2 = nn.Dropout(0.5)
        self.mlpconv3 = mlpconv(192, 192, 3, 192)
        self.classifier = class_maps(192, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.constant_(module.bias, 1.0 if isinstance(module, ClassMaps) else 0.0)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.drop1(self.pool1(self.mlpconv1(x)))  # (N, 96, 16, 16)
        x = self.drop2(self.pool2(self.mlpconv2(x)))  # (N, 192, 8, 8)
        return self.mlpconv3(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return features.mean((2, 3))
        return self.relu(self.classifier(features)).mean((2, 3))
