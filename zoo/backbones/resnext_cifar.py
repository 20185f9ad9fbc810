"""Xie, Girshick, Dollár, Tu, He 2016, Aggregated residual transformations for deep neural networks, section 5.2: the
CIFAR networks.

Differs: the blocks are those of the authors' resnext.lua, with BN and ReLU after the convolutions and a ReLU after the
sum; the paper's own CIFAR results were with pre-activation, and the authors report better ones with these.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.backbones.resnet import Bottleneck
from zoo.layers.initial import he_fan_out


@BACKBONES.variants(
    resnext29_8x64d=dict(groups=8),
    resnext29_16x64d=dict(groups=16),
)
class CifarResNeXt(Backbone):
    """groups: cardinality. width_per_group: of the first stage, twice and four times as much in the others.

    n: blocks of each of the three stages; depth = 9n + 2.
    """

    taps = ("layer1", "layer2", "layer3")
    classifier_name = "fc"
    smallest = 4
    image_size = 32
    num_features = 1024
    init = staticmethod(he_fan_out)

    def __init__(
        self, *, groups: int, width_per_group: int = 64, n: int = 3, num_classes: int = 10, in_chans: int = 3
    ) -> None:
        super().__init__()
        for option, value in ("groups", groups), ("width_per_group", width_per_group), ("n", n):
            if value < 1:
                raise ValueError(f"{option}={value} is not possible: it must be at least 1")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = nn.Conv2d(in_chans, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        width = 64
        for i, planes in enumerate((64, 128, 256)):
            blocks = nn.Sequential()
            for j in range(n):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Bottleneck(width, planes, stride, groups=groups, width_per_group=width_per_group))
                width = planes * Bottleneck.expansion
            self.add_module(f"layer{i + 1}", blocks)
        self.fc = linear_classifier(1024, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, 32, 32)
        x = self.layer1(x)  # (N, 256, 32, 32)
        x = self.layer2(x)  # (N, 512, 16, 16)
        return self.layer3(x)  # (N, 1024, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)
