"""Sandler, Howard, Zhu, Zhmoginov, Chen 2018, MobileNetV2: Inverted residuals and linear bottlenecks, Table 2.

Differs: padding is symmetric and batch norm has torch's eps and momentum, as in torchvision, where the authors' code
has TensorFlow's SAME padding. Width 1.4 has 6.1 million parameters, as released, where the paper prints 6.9. Initial
weights are those of the authors' code. Parameter names are torchvision's.
"""

from functools import partial

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.mobilenet_v1 import truncated_normal_init
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_act import conv_bn_act
from zoo.layers.rounding import make_divisible

relu6 = partial(nn.ReLU6, inplace=True)


class InvertedResidual(nn.Module):
    """Section 3.3: 1×1 up by `expansion`, depthwise 3×3, 1×1 down without activation, and a sum where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        expand = [] if expansion == 1 else [conv_bn_act(in_channels, width, 1, activation=relu6)]
        self.conv = nn.Sequential(
            *expand,
            conv_bn_act(width, width, 3, stride, groups=width, activation=relu6),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return out + x if self.residual else out


STAGES = (  # Table 2: expansion t, channels c, layers n, first stride s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@BACKBONES.variants(
    mobilenet_v2_140=dict(width=1.4),
    mobilenet_v2_130=dict(width=1.3),
    mobilenet_v2=dict(width=1.0),
    mobilenet_v2_075=dict(width=0.75),
    mobilenet_v2_050=dict(width=0.5),
    mobilenet_v2_035=dict(width=0.35),
)
class MobileNetV2(Backbone):
    """width: multiplies the channels of every layer, those of the last convolution only if it is above 1."""

    taps = ("features.1", "features.3", "features.6", "features.13", "features.18")
    classifier_name = "classifier.1"
    image_size = 224
    init = staticmethod(truncated_normal_init)

    def __init__(
        self,
        *,
        width: float,
        dropout: float = 0.2,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if width <= 0:
            raise ValueError(f"width={width}: a multiplier of channels is above 0")
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = make_divisible(1280 * max(1.0, width))
        channels = make_divisible(32 * width)
        self.features = nn.Sequential(conv_bn_act(in_chans, channels, 3, 1 if small else 2, activation=relu6))
        for i, (t, c, n, s) in enumerate(STAGES):
            for j in range(n):
                stride = s if j == 0 and not (small and i == 1) else 1
                self.features.append(InvertedResidual(channels, make_divisible(c * width), stride, t))
                channels = make_divisible(c * width)
        self.features.append(conv_bn_act(channels, self.num_features, 1, activation=relu6))
        self.classifier = nn.Sequential(nn.Dropout(dropout), linear_classifier(self.num_features, num_classes))
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 1280, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        dropout, classifier = self.classifier
        pooled = dropout(features.mean((2, 3)))
        return pooled if pre_logits else classifier(pooled)
