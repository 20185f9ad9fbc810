"""Liu, Tan et al. (Google) 2020, EfficientNet-Lite: the release of tensorflow/tpu, models/official/efficientnet/lite.
Tan, Le 2019, EfficientNet: Rethinking model scaling for convolutional neural networks, Table 1, of which it is made.

Differs: nothing in the network. Against EfficientNet: no squeeze-and-excitation, ReLU6, stem and head of b0's width in
all sizes, first and last stage of one layer. Padding is TensorFlow's SAME, which all published weights need. The
images' sides are the authors': timm's weights of lite3 and lite4 are for 300 and 380 pixels. Parameter names are those
of timm's tf_efficientnet_lite0 to 4.
"""

import math
from functools import partial

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.efficientnet import STAGES, fan_out_init
from zoo.backbones.register import BACKBONES
from zoo.layers.drop_path import DropPath, rising_rates
from zoo.layers.rounding import make_divisible
from zoo.layers.same_padding import same_conv

norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
relu6 = partial(nn.ReLU6, inplace=True)


class DepthwiseSeparable(nn.Module):
    """The inverted residual of the first stage, which expands nothing."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        self.conv_dw = same_conv(in_channels, in_channels, kernel_size, stride, groups=in_channels)
        self.bn1, self.act1 = norm(in_channels), relu6()
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = norm(out_channels)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_dw(x)))
        out = self.bn2(self.conv_pw(out))
        return self.drop_path(out) + x if self.residual else out


class InvertedResidual(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int, drop_path: float
    ) -> None:
        super().__init__()
        width = in_channels * expansion
        self.conv_pw = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1, self.act1 = norm(width), relu6()
        self.conv_dw = same_conv(width, width, kernel_size, stride, groups=width)
        self.bn2, self.act2 = norm(width), relu6()
        self.conv_pwl = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv_pw(x)))
        out = self.act2(self.bn2(self.conv_dw(out)))
        out = self.bn3(self.conv_pwl(out))
        return self.drop_path(out) + x if self.residual else out


@BACKBONES.variants(
    efficientnet_lite0=dict(width=1.0, depth=1.0, image_size=224, dropout=0.2),
    efficientnet_lite1=dict(width=1.0, depth=1.1, image_size=240, dropout=0.2),
    efficientnet_lite2=dict(width=1.1, depth=1.2, image_size=260, dropout=0.3),
    efficientnet_lite3=dict(width=1.2, depth=1.4, image_size=280, dropout=0.3),
    efficientnet_lite4=dict(width=1.4, depth=1.8, image_size=300, dropout=0.3),
)
class EfficientNetLite(Backbone):
    """width, depth: factors of the stages' channels and of the inner stages' layers over lite0.

    image_size: the side that the factors are meant for; other sides work too. drop_path: what the probability that an
    image goes without a block grows to, from 0 at the first.
    """

    taps = ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "act2")
    classifier_name = "classifier"
    num_features = 1280
    init = staticmethod(fan_out_init)

    def __init__(
        self,
        *,
        width: float,
        depth: float,
        image_size: int,
        dropout: float,
        drop_path: float = 0.2,
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
        inner = STAGES[1:-1]
        depths = [1, *(math.ceil(depth * layers) for *_, layers in inner), 1]
        rates = iter(rising_rates(drop_path, sum(depths)))
        self.conv_stem = same_conv(in_chans, 32, 3, 1 if small else 2)
        self.bn1, self.act1 = norm(32), relu6()
        self.blocks, channels = nn.Sequential(), 32
        for i, (expansion, kernel, first, planes, _) in enumerate(STAGES):
            stage, out_channels = nn.Sequential(), make_divisible(planes * width)
            block = DepthwiseSeparable if expansion == 1 else InvertedResidual
            for j in range(depths[i]):
                stride = first if j == 0 and not (small and i == 1) else 1
                stage.append(block(channels, out_channels, kernel, stride, expansion, next(rates)))
                channels = out_channels
            self.blocks.append(stage)
        self.conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2, self.act2 = norm(1280), relu6()
        self.dropout = nn.Dropout(dropout)
        self.classifier = linear_classifier(1280, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        x = self.act1(self.bn1(self.conv_stem(x)))  # (N, 32, 112, 112)
        x = self.blocks(x)  # (N, 320, 7, 7)
        return self.act2(self.bn2(self.conv_head(x)))  # (N, 1280, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.classifier(pooled)
