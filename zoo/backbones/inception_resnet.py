"""Szegedy, Ioffe, Vanhoucke, Alemi 2016, Inception-v4, Inception-ResNet and the impact of residual connections on
learning, section 3.2, Figures 10 to 20: the nets with residual connections, scaled by 0.1 to 0.3.

Differs: v2 is the released net: it begins with the stem of v1 and one plain Inception module instead of Figure 3's,
repeats its modules 10, 20 and 9 times instead of 5, 10 and 5, adds one without ReLU and scale, and ends in a 1×1
convolution. v1 was not released; it is the net known from FaceNet (pytorchcv counts the same parameters), which has
Figures 10 to 14, one more module without ReLU and scale, and 512 normalised features in front of the classifier. The
scales are those of the released code. Parameter names are timm's.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.branches import Branches
from zoo.layers.conv_bn_relu import ConvBNReLU


class Residual(nn.Module):
    """x + scale · a 1×1 convolution of the concatenated branches, then ReLU unless it is the last module."""

    def __init__(self, planes: int, width: int, scale: float, *branches: nn.Module, relu: bool = True) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.branches, self.scale = len(branches), scale
        self.conv2d = nn.Conv2d(width, planes, 1)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.branches)], 1)
        return self.relu(x + self.conv2d(out) * self.scale)


def chain(*widths: int, stride: int = 1) -> nn.Sequential:
    """1×1 to the second width, then a 3×3 to each further one; the last with the stride, and then without padding."""
    layers = nn.Sequential(ConvBNReLU(widths[0], widths[1], 1))
    for i in range(2, len(widths)):
        step = stride if i == len(widths) - 1 else 1
        layers.append(ConvBNReLU(widths[i - 1], widths[i], 3, step, padding=1 if step == 1 else 0))
    return layers


def cross(in_planes: int, widths: tuple[int, int, int], n: int) -> nn.Sequential:
    """1×1, then 1×n and n×1."""
    narrow, row, column = widths
    return nn.Sequential(
        ConvBNReLU(in_planes, narrow, 1),
        ConvBNReLU(narrow, row, (1, n), padding=(0, n // 2)),
        ConvBNReLU(row, column, (n, 1), padding=(n // 2, 0)),
    )


def block35(planes: int, widths: tuple[int, int], scale: float) -> Residual:
    """Figures 10 and 16."""
    branches = ConvBNReLU(planes, 32, 1), chain(planes, 32, 32), chain(planes, 32, *widths)
    return Residual(planes, 64 + widths[-1], scale, *branches)


def block17(planes: int, narrow: int, widths: tuple[int, int, int], scale: float) -> Residual:
    """Figures 11 and 17."""
    return Residual(planes, narrow + widths[-1], scale, ConvBNReLU(planes, narrow, 1), cross(planes, widths, 7))


def block8(planes: int, widths: tuple[int, int, int], scale: float, relu: bool = True) -> Residual:
    """Figures 13 and 19."""
    branches = ConvBNReLU(planes, 192, 1), cross(planes, widths, 3)
    return Residual(planes, 192 + widths[-1], scale, *branches, relu=relu)


def reduction_a(in_planes: int, k: int, l: int, m: int, n: int) -> Branches:  # noqa: E741  (Table 1's letters)
    """Figure 7: 35×35 to 17×17."""
    return Branches(ConvBNReLU(in_planes, n, 3, stride=2), chain(in_planes, k, l, m, stride=2), nn.MaxPool2d(3, 2))


def reduction_b(in_planes: int, first: int, second: int, third: tuple[int, int]) -> Branches:
    """Figures 12 and 18: 17×17 to 8×8."""
    return Branches(
        chain(in_planes, 256, first, stride=2),
        chain(in_planes, 256, second, stride=2),
        chain(in_planes, 256, *third, stride=2),
        nn.MaxPool2d(3, 2),
    )


def check_scale(scale: tuple[float, float, float]) -> None:
    if len(scale) != 3:
        raise ValueError(f"scale={scale}: it is three factors, of the residuals in each stage")


def init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONES.variants(inception_resnet_v1={})
class InceptionResNetV1(Backbone):
    """scale: of the residuals in the three stages. Of its strides before the first module the small stem keeps one."""

    taps = ("repeat", "repeat_1", "block8")
    classifier_name = "classif"
    image_size = 299
    num_features = 512
    init = staticmethod(init)

    def __init__(
        self,
        *,
        scale: tuple[float, float, float] = (0.17, 0.1, 0.2),
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        check_scale(scale)
        small = self.choose_stem(stem, smallest=(75, 21))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv2d_1a = ConvBNReLU(in_chans, 32, 3, 1 if small else 2)
        self.conv2d_2a = ConvBNReLU(32, 32, 3)
        self.conv2d_2b = ConvBNReLU(32, 64, 3, padding=1)
        self.maxpool_3a = nn.Identity() if small else nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvBNReLU(64, 80, 1)
        self.conv2d_4a = ConvBNReLU(80, 192, 3)
        self.conv2d_4b = ConvBNReLU(192, 256, 3, stride=2)
        self.repeat = nn.Sequential(*(block35(256, (32, 32), scale[0]) for _ in range(5)))
        self.mixed_6a = reduction_a(256, k=192, l=192, m=256, n=384)
        self.repeat_1 = nn.Sequential(*(block17(896, 128, (128, 128, 128), scale[1]) for _ in range(10)))
        self.mixed_7a = reduction_b(896, 384, 256, (256, 256))
        self.repeat_2 = nn.Sequential(*(block8(1792, (192, 192, 192), scale[2]) for _ in range(5)))
        self.block8 = block8(1792, (192, 192, 192), 1.0, relu=False)
        self.dropout = nn.Dropout(dropout)
        self.bottleneck = nn.Linear(1792, 512, bias=False)
        self.bn = nn.BatchNorm1d(512, eps=0.001)
        self.classif = linear_classifier(512, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 299, 299)
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))  # (N, 64, 147, 147)
        x = self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x)))  # (N, 192, 71, 71)
        x = self.repeat(self.conv2d_4b(x))  # (N, 256, 35, 35)
        x = self.repeat_1(self.mixed_6a(x))  # (N, 896, 17, 17)
        return self.block8(self.repeat_2(self.mixed_7a(x)))  # (N, 1792, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.bn(self.bottleneck(self.dropout(features.mean((2, 3)))))  # (N, 512)
        return x if pre_logits else self.classif(x)


@BACKBONES.variants(inception_resnet_v2={})
class InceptionResNetV2(Backbone):
    """scale: of the residuals in the three stages. Of its strides before the first module the small stem keeps one."""

    taps = ("repeat", "repeat_1", "conv2d_7b")
    classifier_name = "classif"
    image_size = 299
    num_features = 1536
    init = staticmethod(init)

    def __init__(
        self,
        *,
        scale: tuple[float, float, float] = (0.17, 0.1, 0.2),
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        check_scale(scale)
        small = self.choose_stem(stem, smallest=(75, 21))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv2d_1a = ConvBNReLU(in_chans, 32, 3, 1 if small else 2)
        self.conv2d_2a = ConvBNReLU(32, 32, 3)
        self.conv2d_2b = ConvBNReLU(32, 64, 3, padding=1)
        self.maxpool_3a = nn.Identity() if small else nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvBNReLU(64, 80, 1)
        self.conv2d_4a = ConvBNReLU(80, 192, 3)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        self.mixed_5b = Branches(
            ConvBNReLU(192, 96, 1),
            nn.Sequential(ConvBNReLU(192, 48, 1), ConvBNReLU(48, 64, 5, padding=2)),
            chain(192, 64, 96, 96),
            nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), ConvBNReLU(192, 64, 1)),
        )
        self.repeat = nn.Sequential(*(block35(320, (48, 64), scale[0]) for _ in range(10)))
        self.mixed_6a = reduction_a(320, k=256, l=256, m=384, n=384)
        self.repeat_1 = nn.Sequential(*(block17(1088, 192, (128, 160, 192), scale[1]) for _ in range(20)))
        self.mixed_7a = reduction_b(1088, 384, 288, (288, 320))
        self.repeat_2 = nn.Sequential(*(block8(2080, (192, 224, 256), scale[2]) for _ in range(9)))
        self.block8 = block8(2080, (192, 224, 256), 1.0, relu=False)
        self.conv2d_7b = ConvBNReLU(2080, 1536, 1)
        self.dropout = nn.Dropout(dropout)
        self.classif = linear_classifier(1536, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 299, 299)
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))  # (N, 64, 147, 147)
        x = self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x)))  # (N, 192, 71, 71)
        x = self.repeat(self.mixed_5b(self.maxpool_5a(x)))  # (N, 320, 35, 35)
        x = self.repeat_1(self.mixed_6a(x))  # (N, 1088, 17, 17)
        x = self.block8(self.repeat_2(self.mixed_7a(x)))  # (N, 2080, 8, 8)
        return self.conv2d_7b(x)  # (N, 1536, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.classif(pooled)
