"""Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet and the impact of residual connections on
learning, Figures 3 to 9: the net without residual connections.

Differs: nothing in the network; average pooling does not count the padding, as in the released one. Parameter names are
timm's.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.branches import Branches
from zoo.layers.conv_bn_relu import ConvBNReLU

ROW, COLUMN = dict(kernel=(1, 7), padding=(0, 3)), dict(kernel=(7, 1), padding=(3, 0))
SHORT_ROW, SHORT_COLUMN = dict(kernel=(1, 3), padding=(0, 1)), dict(kernel=(3, 1), padding=(1, 0))


class Join(nn.Module):
    """Figure 3, the first and the last fork: a pooling and a convolution of the same stride side by side."""

    def __init__(self, in_planes: int, planes: int, stride: int, pool_first: bool) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.maxpool = nn.MaxPool2d(3, 2) if stride == 2 else nn.MaxPool2d(3, 1, padding=1)
        self.conv = ConvBNReLU(in_planes, planes, 3, stride, padding=0 if stride == 2 else 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, convolved = self.maxpool(x), self.conv(x)
        return torch.cat([pooled, convolved] if self.pool_first else [convolved, pooled], 1)


def pooled(in_planes: int, planes: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), ConvBNReLU(in_planes, planes, 1))


def stem_branches() -> Branches:
    """Figure 3, the second of its three forks."""
    return Branches(
        nn.Sequential(ConvBNReLU(160, 64, 1), ConvBNReLU(64, 96, 3)),
        nn.Sequential(
            ConvBNReLU(160, 64, 1), ConvBNReLU(64, 64, **ROW), ConvBNReLU(64, 64, **COLUMN), ConvBNReLU(64, 96, 3)
        ),
    )


def inception_a() -> Branches:
    """Figure 4, on 35×35 maps."""
    return Branches(
        ConvBNReLU(384, 96, 1),
        nn.Sequential(ConvBNReLU(384, 64, 1), ConvBNReLU(64, 96, 3, padding=1)),
        nn.Sequential(ConvBNReLU(384, 64, 1), ConvBNReLU(64, 96, 3, padding=1), ConvBNReLU(96, 96, 3, padding=1)),
        pooled(384, 96),
    )


def reduction_a() -> Branches:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384: 35×35 to 17×17."""
    return Branches(
        ConvBNReLU(384, 384, 3, stride=2),
        nn.Sequential(ConvBNReLU(384, 192, 1), ConvBNReLU(192, 224, 3, padding=1), ConvBNReLU(224, 256, 3, stride=2)),
        nn.MaxPool2d(3, 2),
    )


def inception_b() -> Branches:
    """Figure 5, on 17×17 maps."""
    return Branches(
        ConvBNReLU(1024, 384, 1),
        nn.Sequential(ConvBNReLU(1024, 192, 1), ConvBNReLU(192, 224, **ROW), ConvBNReLU(224, 256, **COLUMN)),
        nn.Sequential(
            ConvBNReLU(1024, 192, 1),
            ConvBNReLU(192, 192, **COLUMN),
            ConvBNReLU(192, 224, **ROW),
            ConvBNReLU(224, 224, **COLUMN),
            ConvBNReLU(224, 256, **ROW),
        ),
        pooled(1024, 128),
    )


def reduction_b() -> Branches:
    """Figure 8: 17×17 to 8×8."""
    return Branches(
        nn.Sequential(ConvBNReLU(1024, 192, 1), ConvBNReLU(192, 192, 3, stride=2)),
        nn.Sequential(
            ConvBNReLU(1024, 256, 1),
            ConvBNReLU(256, 256, **ROW),
            ConvBNReLU(256, 320, **COLUMN),
            ConvBNReLU(320, 320, 3, stride=2),
        ),
        nn.MaxPool2d(3, 2),
    )


class InceptionC(nn.Module):
    """Figure 6, on 8×8 maps: two of its branches fork once more."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvBNReLU(1536, 256, 1)
        self.branch1_0 = ConvBNReLU(1536, 384, 1)
        self.branch1_1a = ConvBNReLU(384, 256, **SHORT_ROW)
        self.branch1_1b = ConvBNReLU(384, 256, **SHORT_COLUMN)
        self.branch2_0 = ConvBNReLU(1536, 384, 1)
        self.branch2_1 = ConvBNReLU(384, 448, **SHORT_COLUMN)
        self.branch2_2 = ConvBNReLU(448, 512, **SHORT_ROW)
        self.branch2_3a = ConvBNReLU(512, 256, **SHORT_ROW)
        self.branch2_3b = ConvBNReLU(512, 256, **SHORT_COLUMN)
        self.branch3 = pooled(1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1_0(x)
        two = self.branch2_2(self.branch2_1(self.branch2_0(x)))
        forks = self.branch1_1a(one), self.branch1_1b(one), self.branch2_3a(two), self.branch2_3b(two)
        return torch.cat([self.branch0(x), *forks, self.branch3(x)], 1)


@BACKBONES.variants(inception_v4={})
class InceptionV4(Backbone):
    """The small stem has one stride of 2 left of three, the last."""

    taps = ("features.5", "features.9", "features.17", "features.21")
    classifier_name = "last_linear"
    image_size = 299
    num_features = 1536

    def __init__(
        self, *, dropout: float = 0.2, num_classes: int = 1000, in_chans: int = 3, stem: str = "large"
    ) -> None:
        super().__init__()
        small = self.choose_stem(stem, smallest=(75, 21))
        self.num_classes, self.in_chans = num_classes, in_chans
        first = 1 if small else 2
        self.features = nn.Sequential(
            ConvBNReLU(in_chans, 32, 3, first),  # (N, 32, 149, 149)
            ConvBNReLU(32, 32, 3),
            ConvBNReLU(32, 64, 3, padding=1),  # (N, 64, 147, 147)
            Join(64, 96, first, pool_first=True),  # (N, 160, 73, 73)
            stem_branches(),  # (N, 192, 71, 71)
            Join(192, 192, 2, pool_first=False),  # (N, 384, 35, 35)
            *(inception_a() for _ in range(4)),
            reduction_a(),  # (N, 1024, 17, 17)
            *(inception_b() for _ in range(7)),
            reduction_b(),  # (N, 1536, 8, 8)
            *(InceptionC() for _ in range(3)),
        )
        self.dropout = nn.Dropout(dropout)
        self.last_linear = linear_classifier(1536, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 299, 299)
        return self.features(x)  # (N, 1536, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.last_linear(pooled)
