"""Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019, Searching for MobileNetV3, Tables 1
and 2; …_minimal: the nets of the authors' code without squeeze-and-excitation, 5×5 filters and h-swish.

Differs: padding is symmetric, as in torchvision, where the authors' code has TensorFlow's SAME padding; …_075 and
…_minimal have SAME padding too, since the authors' weights are the only ones released. Widths below 1 keep the channels
of the layer before the last, and an expansion multiplies the channels that come in, after they were rounded, as in
timm. Table 2 marks squeeze-and-excitation on the small net's last 1×1 convolution too, which no release has. The small
net is the final paper's, of 56 million multiply-adds; its first version had 66. Initial weights are those of the
authors' code. Batch norm's eps and momentum and the parameter names are torchvision's.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.mobilenet_v1 import truncated_normal_init
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_act import conv_bn_act
from zoo.layers.rounding import make_divisible
from zoo.layers.same_padding import check_padding
from zoo.layers.squeeze_excitation import SqueezeExcitation

relu = partial(nn.ReLU, inplace=True)
norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class Bneck(nn.Module):
    """Section 5: 1×1 up to `expanded` channels, depthwise, squeeze-and-excitation if `se`, 1×1 down, and a sum."""

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        se: bool,
        padding: str = "symmetric",
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        step = partial(conv_bn_act, padding=padding, norm=norm)
        self.block = nn.Sequential()
        if expanded != in_channels:
            self.block.append(step(in_channels, expanded, 1, activation=activation))
        self.block.append(step(expanded, expanded, kernel_size, stride, groups=expanded, activation=activation))
        if se:
            squeeze = make_divisible(expanded // 4)
            self.block.append(SqueezeExcitation(expanded, squeeze, activation=relu, gate=nn.Hardsigmoid))
        self.block.append(step(expanded, out_channels, 1, activation=None))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return out + x if self.residual else out


# kernel, expanded channels, channels, squeeze-and-excitation?, h-swish?, stride
LARGE = (  # Table 1
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
SMALL = (  # Table 2
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
SIZES = {  # blocks, width of the layer before the last, where the stages end
    "large": (LARGE, 1280, (1, 3, 6, 12, 16)),
    "small": (SMALL, 1024, (0, 1, 3, 8, 12)),
}


@BACKBONES.variants(
    mobilenet_v3_large=dict(size="large"),
    mobilenet_v3_large_075=dict(size="large", width=0.75, padding="same"),
    mobilenet_v3_large_minimal=dict(size="large", minimal=True, padding="same"),
    mobilenet_v3_small=dict(size="small"),
    mobilenet_v3_small_075=dict(size="small", width=0.75, padding="same"),
    mobilenet_v3_small_minimal=dict(size="small", minimal=True, padding="same"),
)
class MobileNetV3(Backbone):
    """size: "large" or "small". width: multiplies channels. minimal: 3×3 filters, ReLU, nothing squeezed.

    padding: "symmetric", or "same" for the weights of the authors, as timm's tf_mobilenetv3_*.
    """

    classifier_name = "classifier.3"
    image_size = 224
    init = staticmethod(truncated_normal_init)

    def __init__(
        self,
        *,
        size: str,
        width: float = 1.0,
        minimal: bool = False,
        padding: str = "symmetric",
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if size not in SIZES or width <= 0:
            raise ValueError(f"size={size!r}, width={width}: known sizes are large and small, a width is above 0")
        check_padding(padding)
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        rows, last, ends = SIZES[size]
        self.taps = tuple(f"features.{i}" for i in ends)
        self.num_features = make_divisible(last * max(1.0, width))
        activation = relu if minimal else nn.Hardswish
        base, channels = 16, make_divisible(16 * width)
        step = partial(conv_bn_act, padding=padding, norm=norm, activation=activation)
        self.features = nn.Sequential(step(in_chans, channels, 3, 1 if small else 2))
        for kernel, expanded, planes, se, hs, stride in rows:
            if small and stride == 2:
                small, stride = False, 1  # only the first
            widths = channels, make_divisible(channels * expanded / base), make_divisible(planes * width)
            options = {"se": se and not minimal, "padding": padding, "activation": activation if hs else relu}
            self.features.append(Bneck(*widths, 3 if minimal else kernel, stride, **options))
            base, channels = planes, widths[2]
        wide = 6 * channels
        self.features.append(step(channels, wide, 1))
        self.classifier = nn.Sequential(
            nn.Linear(wide, self.num_features),
            activation(),
            nn.Dropout(dropout),
            linear_classifier(self.num_features, num_classes),
        )
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 960, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return self.classifier[:-1](pooled) if pre_logits else self.classifier(pooled)
