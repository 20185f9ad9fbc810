"""Lee, Xie, Gallagher, Zhang, Tu 2015, Deeply-supervised nets: the CIFAR-10 net, a network in network (Lin et al. 2013)
with companion classifiers.

Differs: our reading of the paper and of the network definition in the authors' repository: a companion is linear on all
that a stage's first convolution gives, before its ReLU. The authors train all four classifiers with a squared hinge
loss and, in the end, without companions; the loss here is the criterion's.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import xavier_fan_in_


def perceptron(in_planes: int, *widths: int) -> nn.Sequential:
    """ReLU and 1×1 convolutions with ReLU. The first leaves its input as it is: a companion reads it too."""
    layers = nn.Sequential(nn.ReLU())
    for width in widths:
        layers.extend([nn.Conv2d(in_planes, width, 1), nn.ReLU(inplace=True)])
        in_planes = width
    return layers


def conv_classifier(num_features: int, num_classes: int) -> nn.Module:
    """The last layer: a 1×1 convolution to a map a class, or nothing where num_classes is 0."""
    return nn.Conv2d(num_features, num_classes, 1) if num_classes else nn.Identity()


@BACKBONES.variants(dsn={})
class DSN(Backbone):
    """`forward_aux(x)` gives the companions' scores too, from shallow to deep. `aux_logits=False` leaves them out."""

    taps = ("pool1", "pool2", "mlp3")
    classifier_name = "classifier"
    make_classifier = staticmethod(conv_classifier)
    smallest = 4
    any_size = False
    criterion = "auxiliary"
    auxiliary_heads = ("companions",)
    num_features = 192

    def __init__(
        self, *, aux_logits: bool = True, num_classes: int = 10, in_chans: int = 3, image_size: int = 32
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.check_images(*self.input_size)
        self.aux_logits = aux_logits
        self.conv1 = nn.Conv2d(in_chans, 192, 5, padding=2)
        self.mlp1 = perceptron(192, 160, 96)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop1 = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(96, 192, 5, padding=2)
        self.mlp2 = perceptron(192, 192, 192)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.drop2 = nn.Dropout(0.5)
        self.conv3 = nn.Conv2d(192, 192, 3, padding=1)
        self.mlp3 = perceptron(192, 192)
        self.classifier = conv_classifier(192, num_classes)
        self.companions = self.make_companions(num_classes)
        self.apply(self.init)

    def make_companions(self, num_classes: int) -> nn.ModuleList:
        """Of conv1, conv2 and conv3, or none."""
        if not (num_classes and self.aux_logits):
            return nn.ModuleList()
        sides = self.image_size, self.image_size // 2, self.image_size // 4
        return nn.ModuleList(nn.Linear(192 * side * side, num_classes) for side in sides)

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh classifier, and with it fresh companions, if it was built with them."""
        super().reset_classifier(num_classes)
        self.replace("companions", self.make_companions(num_classes))

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.05)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            xavier_fan_in_(module.weight)
            nn.init.zeros_(module.bias)

    def hidden(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the companions read: the first convolution of each stage."""
        h1 = self.conv1(x)  # (N, 192, 32, 32)
        h2 = self.conv2(self.drop1(self.pool1(self.mlp1(h1))))  # (N, 192, 16, 16)
        h3 = self.conv3(self.drop2(self.pool2(self.mlp2(h2))))  # (N, 192, 8, 8)
        return h1, h2, h3

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        return self.mlp3(self.hidden(x)[-1])  # (N, 192, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return features.mean((2, 3))
        return self.classifier(features).mean((2, 3))

    def forward_aux(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        self.check_batch(x)
        hidden = self.hidden(x)
        scores = self.forward_head(self.mlp3(hidden[-1]))
        if not self.companions:
            return scores, []
        return scores, [linear(h.flatten(1)) for linear, h in zip(self.companions, hidden, strict=True)]
