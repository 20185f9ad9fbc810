"""Tan, Le 2021, EfficientNetV2: Smaller models and faster training, Table 4.

Differs: padding is symmetric, unless padding=same, and batch norm has momentum 0.1, as in torchvision, where the
authors have TensorFlow's SAME padding and 0.01. The large net has 118.5 million parameters, where the paper prints 120.
Initial weights are those of the authors' code. Parameter names are torchvision's.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.efficientnet import MBConv, fan_out_init
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_act import conv_bn_act
from zoo.layers.drop_path import DropPath, rising_rates
from zoo.layers.same_padding import check_padding

norm = partial(nn.BatchNorm2d, eps=1e-3)


class FusedMBConv(nn.Module):
    """Figure 2: a 3×3 convolution for MBConv's 1×1 and depthwise filter. Without expansion it is all there is."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        *,
        padding: str = "symmetric",
        norm: Callable[[int], nn.Module],
        drop_path: float,
    ) -> None:
        super().__init__()
        step = partial(conv_bn_act, padding=padding, norm=norm)
        width = out_channels if expansion == 1 else in_channels * expansion
        self.block = nn.Sequential(step(in_channels, width, kernel_size, stride, activation=nn.SiLU))
        if expansion != 1:
            self.block.append(step(width, out_channels, 1, activation=None))
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return self.drop_path(out) + x if self.residual else out


# block, expansion, first stride, channels, layers; all kernels are 3×3
SMALL = (
    (FusedMBConv, 1, 1, 24, 2),
    (FusedMBConv, 4, 2, 48, 4),
    (FusedMBConv, 4, 2, 64, 4),
    (MBConv, 4, 2, 128, 6),
    (MBConv, 6, 1, 160, 9),
    (MBConv, 6, 2, 256, 15),
)
MEDIUM = (
    (FusedMBConv, 1, 1, 24, 3),
    (FusedMBConv, 4, 2, 48, 5),
    (FusedMBConv, 4, 2, 80, 5),
    (MBConv, 4, 2, 160, 7),
    (MBConv, 6, 1, 176, 14),
    (MBConv, 6, 2, 304, 18),
    (MBConv, 6, 1, 512, 5),
)
LARGE = (
    (FusedMBConv, 1, 1, 32, 4),
    (FusedMBConv, 4, 2, 64, 7),
    (FusedMBConv, 4, 2, 96, 7),
    (MBConv, 4, 2, 192, 10),
    (MBConv, 6, 1, 224, 19),
    (MBConv, 6, 2, 384, 25),
    (MBConv, 6, 1, 640, 7),
)
SIZES = {"s": SMALL, "m": MEDIUM, "l": LARGE}


@BACKBONES.variants(
    efficientnet_v2_s=dict(size="s", image_size=384, dropout=0.2),
    efficientnet_v2_m=dict(size="m", image_size=480, dropout=0.3),
    efficientnet_v2_l=dict(size="l", image_size=480, dropout=0.4),
)
class EfficientNetV2(Backbone):
    """size: "s", "m" or "l". image_size: the side that it is evaluated at; other sides work too.

    drop_path: what the probability that an image goes without a block grows to, from 0 at the first. padding:
    "symmetric", or "same" for the weights of the authors, as timm's tf_efficientnetv2_*.
    """

    classifier_name = "classifier.1"
    num_features = 1280
    init = staticmethod(fan_out_init)

    def __init__(
        self,
        *,
        size: str,
        image_size: int,
        dropout: float,
        drop_path: float = 0.2,
        padding: str = "symmetric",
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size={size!r} is not known: s, m and l are")
        check_padding(padding)
        self.num_classes, self.in_chans = num_classes, in_chans
        small = self.choose_stem(stem, smallest=(32, 8))
        self.image_size = image_size
        self.check_images(*self.input_size)
        stages = SIZES[size]
        self.taps = tuple(f"features.{i}" for i in (1, 2, 3, 5, len(stages) + 1))
        rates = iter(rising_rates(drop_path, sum(layers for *_, layers in stages)))
        channels, common = stages[0][3], {"padding": padding, "norm": norm}
        step = partial(conv_bn_act, **common, activation=nn.SiLU)
        self.features = nn.Sequential(step(in_chans, channels, 3, 1 if small else 2))
        for i, (block, expansion, first, planes, layers) in enumerate(stages):
            stage = nn.Sequential()
            for j in range(layers):
                stride = first if j == 0 and not (small and i == 1) else 1
                stage.append(block(channels, planes, 3, stride, expansion, **common, drop_path=next(rates)))
                channels = planes
            self.features.append(stage)
        self.features.append(step(channels, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear_classifier(1280, num_classes))
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 384, 384)
        return self.features(x)  # (N, 1280, 12, 12)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        dropout, classifier = self.classifier
        pooled = dropout(features.mean((2, 3)))
        return pooled if pre_logits else classifier(pooled)
