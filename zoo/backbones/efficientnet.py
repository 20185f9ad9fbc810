"""Tan, Le 2019, EfficientNet: Rethinking model scaling for convolutional neural networks, Table 1; section 3.3: how the
one net becomes b1 to b7.

Differs: padding is symmetric and batch norm has torch's eps and momentum in b0 to b4, as in torchvision, where the
authors have TensorFlow's SAME padding and eps 0.001, momentum 0.01 throughout. The factors of b1 to b7 are the rounded
ones of the authors' code, not powers of the constants. Initial weights are that code's. Parameter names are
torchvision's.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_act import conv_bn_act
from zoo.layers.drop_path import DropPath, rising_rates
from zoo.layers.rounding import make_divisible
from zoo.layers.squeeze_excitation import SqueezeExcitation


class Scale(NamedTuple):
    """Factors over the base net, for layers, channels and the side of the images."""

    depth: float
    width: float
    resolution: float

    @property
    def image_size(self) -> int:
        """The side in pixels, where the base net has 224."""
        return round(224 * self.resolution)


def compound(
    phi: float,
    *,
    alpha: float = 1.2,
    beta: float = 1.1,
    gamma: float = 1.15,
    along: Sequence[str] = Scale._fields,
) -> Scale:
    """Equation 3: d = α^φ, w = β^φ, r = γ^φ; the cost grows by (αβ²γ²)^φ, about 2^φ with the paper's constants.

    along: the dimensions to scale, of depth, width and resolution; the others stay 1. Raises ValueError for other names
    and for constants below 1. `depth`, `width` and `image_size` are also the options of EfficientNet.
    """
    unknown = [name for name in along if name not in Scale._fields]
    if unknown or isinstance(along, str) or not along:
        raise ValueError(f"along={along!r}: a sequence of {', '.join(Scale._fields)}")
    if min(alpha, beta, gamma) < 1:
        raise ValueError(f"alpha={alpha}, beta={beta}, gamma={gamma}: each is at least 1")
    constants = zip(Scale._fields, (alpha, beta, gamma), strict=True)
    return Scale(*(constant**phi if name in along else 1.0 for name, constant in constants))


class MBConv(nn.Module):
    """MobileNetV2's inverted residual with squeeze-and-excitation to a quarter of the channels that come in."""

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
        width = in_channels * expansion
        expand = [] if expansion == 1 else [step(in_channels, width, 1, activation=nn.SiLU)]
        self.block = nn.Sequential(
            *expand,
            step(width, width, kernel_size, stride, groups=width, activation=nn.SiLU),
            SqueezeExcitation(width, max(1, in_channels // 4), activation=nn.SiLU),
            step(width, out_channels, 1, activation=None),
        )
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return self.drop_path(out) + x if self.residual else out


STAGES = (  # Table 1, stages 2 to 8: expansion, kernel, first stride, channels, layers
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def fan_out_init(module: nn.Module) -> None:
    """As the authors' code. The fan-out of a depthwise filter is its own area: torch's counts every group's."""
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@BACKBONES.variants(  # the table in the authors' code
    efficientnet_b0=dict(width=1.0, depth=1.0, image_size=224, dropout=0.2),
    efficientnet_b1=dict(width=1.0, depth=1.1, image_size=240, dropout=0.2),
    efficientnet_b2=dict(width=1.1, depth=1.2, image_size=260, dropout=0.3),
    efficientnet_b3=dict(width=1.2, depth=1.4, image_size=300, dropout=0.3),
    efficientnet_b4=dict(width=1.4, depth=1.8, image_size=380, dropout=0.4),
    efficientnet_b5=dict(width=1.6, depth=2.2, image_size=456, dropout=0.4, bn_eps=1e-3, bn_momentum=0.01),
    efficientnet_b6=dict(width=1.8, depth=2.6, image_size=528, dropout=0.5, bn_eps=1e-3, bn_momentum=0.01),
    efficientnet_b7=dict(width=2.0, depth=3.1, image_size=600, dropout=0.5, bn_eps=1e-3, bn_momentum=0.01),
)
class EfficientNet(Backbone):
    """width, depth: factors of channels and layers over b0; `compound` gives such factors.

    image_size: the side that the factors are meant for; other sides work too. drop_path: what the probability that an
    image goes without a block grows to, from 0 at the first.
    """

    taps = ("features.1", "features.2", "features.3", "features.5", "features.8")
    classifier_name = "classifier.1"
    init = staticmethod(fan_out_init)

    def __init__(
        self,
        *,
        width: float,
        depth: float,
        image_size: int,
        dropout: float,
        drop_path: float = 0.2,
        bn_eps: float = 1e-5,
        bn_momentum: float = 0.1,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if min(width, depth) <= 0:
            raise ValueError(f"width={width}, depth={depth}: factors are above 0")
        self.num_classes, self.in_chans = num_classes, in_chans
        small = self.choose_stem(stem, smallest=(32, 8))
        self.image_size = image_size
        self.check_images(*self.input_size)
        norm = partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum)
        depths = [math.ceil(depth * layers) for *_, layers in STAGES]
        rates = iter(rising_rates(drop_path, sum(depths)))
        channels = make_divisible(32 * width)
        stem_stride = 1 if small else 2
        self.features = nn.Sequential(conv_bn_act(in_chans, channels, 3, stem_stride, norm=norm, activation=nn.SiLU))
        for i, (expansion, kernel, first, planes, _) in enumerate(STAGES):
            stage, out_channels = nn.Sequential(), make_divisible(planes * width)
            for j in range(depths[i]):
                stride = first if j == 0 and not (small and i == 1) else 1
                sizes = channels, out_channels, kernel, stride, expansion
                stage.append(MBConv(*sizes, norm=norm, drop_path=next(rates)))
                channels = out_channels
            self.features.append(stage)
        self.num_features = 4 * channels
        self.features.append(conv_bn_act(channels, self.num_features, 1, norm=norm, activation=nn.SiLU))
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear_classifier(self.num_features, num_classes))
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 1280, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        dropout, classifier = self.classifier
        pooled = dropout(features.mean((2, 3)))
        return pooled if pre_logits else classifier(pooled)
