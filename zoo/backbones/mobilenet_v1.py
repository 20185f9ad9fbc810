"""Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam 2017, MobileNets: Efficient convolutional neural
networks for mobile vision applications, Table 1; Table 6: the width multiplier α.

Differs: ReLU6 in place of ReLU, as the authors' code and all released weights have it. The last depthwise convolution
has stride 1: Table 1 prints 2, but keeps 7×7 maps, and only 1 gives the paper's 569 million multiply-adds. Initial
weights are those of the authors' code, whose dropout of 0.001 is left out; padding is symmetric and batch norm has
torch's eps and momentum, as in timm, where that code has TensorFlow's SAME padding. The paper's resolution multiplier ρ
is the side of the images given. Parameter names are those of timm's mobilenetv1_100.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import truncated_normal_
from zoo.layers.rounding import make_divisible


class DepthwiseSeparable(nn.Module):
    """Section 3.1: one 3×3 filter for each channel, then a 1×1 convolution that combines them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_dw(x)))
        return self.act2(self.bn2(self.conv_pw(x)))


STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # Table 1: channels, layers, first stride


def truncated_normal_init(module: nn.Module) -> None:
    """As the authors' code for all MobileNets: a normal of deviation 0.09, cut off at two deviations."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        truncated_normal_(module.weight, 0.09)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@BACKBONES.variants(
    mobilenet_v1=dict(width=1.0),
    mobilenet_v1_075=dict(width=0.75),
    mobilenet_v1_050=dict(width=0.5),
    mobilenet_v1_025=dict(width=0.25),
)
class MobileNetV1(Backbone):
    """width: the paper's α, which multiplies the channels of every layer."""

    taps = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")
    classifier_name = "classifier"
    image_size = 224
    init = staticmethod(truncated_normal_init)

    def __init__(self, *, width: float, num_classes: int = 1000, in_chans: int = 3, stem: str = "large") -> None:
        super().__init__()
        if width <= 0:
            raise ValueError(f"width={width}: a multiplier of channels is above 0")
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        channels = make_divisible(32 * width)
        self.conv_stem = nn.Conv2d(in_chans, channels, 3, 1 if small else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        for i, (planes, depth, first) in enumerate(STAGES):
            stage = nn.Sequential()
            for j in range(depth):
                stride = first if j == 0 and not (small and i == 1) else 1
                stage.append(DepthwiseSeparable(channels, make_divisible(planes * width), stride))
                channels = make_divisible(planes * width)
            self.blocks.append(stage)
        self.num_features = channels
        self.classifier = linear_classifier(channels, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        x = self.act1(self.bn1(self.conv_stem(x)))  # (N, 32, 112, 112)
        return self.blocks(x)  # (N, 1024, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)
