"""He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition, Table 1: the ImageNet networks.
Xie, Girshick, Dollár, Tu, He 2016, Aggregated residual transformations for deep neural networks (resnext…).
Zagoruyko, Komodakis 2016, Wide residual networks, section 3.4 (wide_resnet…).

Differs: the stride of a bottleneck is in its 3×3 convolution, as in torchvision and fb.resnet.torch ("v1.5"), not in
the first 1×1: the same parameters, 4.09 instead of 3.86 billion multiply-adds for resnet50. resnext101_32x8d is of
Mahajan et al. 2018 and wide_resnet101_2 of torchvision, not of the papers. Parameter names are torchvision's.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import he_fan_out


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int, *, groups: int, width_per_group: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = projection(in_planes, planes, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1 down, 3×3 in `groups` paths, 1×1 up: Xie et al. 2016, Figure 3(c), which equals the sum of the paths."""

    expansion = 4

    def __init__(self, in_planes: int, planes: int, stride: int, *, groups: int, width_per_group: int) -> None:
        super().__init__()
        width = planes * width_per_group // 64 * groups
        self.conv1 = nn.Conv2d(in_planes, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = projection(in_planes, 4 * planes, stride)
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + self.downsample(x))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


@BACKBONES.variants(
    resnet18=dict(block="basic", layers=(2, 2, 2, 2)),
    resnet34=dict(block="basic", layers=(3, 4, 6, 3)),
    resnet50=dict(layers=(3, 4, 6, 3)),
    resnet101=dict(layers=(3, 4, 23, 3)),
    resnet152=dict(layers=(3, 8, 36, 3)),
    resnext50_32x4d=dict(layers=(3, 4, 6, 3), groups=32, width_per_group=4),
    resnext101_32x4d=dict(layers=(3, 4, 23, 3), groups=32, width_per_group=4),
    resnext101_32x8d=dict(layers=(3, 4, 23, 3), groups=32, width_per_group=8),
    resnext101_64x4d=dict(layers=(3, 4, 23, 3), groups=64, width_per_group=4),
    wide_resnet50_2=dict(layers=(3, 4, 6, 3), width_per_group=128),
    wide_resnet101_2=dict(layers=(3, 4, 23, 3), width_per_group=128),
)
class ResNet(Backbone):
    """layers: blocks of each of the four stages. groups, width_per_group: cardinality and width of the bottlenecks."""

    taps = ("layer1", "layer2", "layer3", "layer4")
    image_size = 224
    init = staticmethod(he_fan_out)

    def __init__(
        self,
        *,
        layers: tuple[int, int, int, int],
        block: str = "bottleneck",
        groups: int = 1,
        width_per_group: int = 64,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if block not in BLOCKS or (block == "basic" and (groups, width_per_group) != (1, 64)):
            raise ValueError(f"block={block!r}: known are basic, of one group of width 64, and bottleneck")
        if len(layers) != 4 or min(layers) < 1 or min(groups, width_per_group) < 1:
            raise ValueError(
                f"layers={layers}, groups={groups}, width_per_group={width_per_group}: 4 stages, all from 1"
            )
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = 512 * BLOCKS[block].expansion
        self.conv1 = nn.Conv2d(in_chans, 64, 7, 1 if small else 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        width = 64
        for i, (planes, depth) in enumerate(zip((64, 128, 256, 512), layers, strict=True)):
            blocks = nn.Sequential()
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(BLOCKS[block](width, planes, stride, groups=groups, width_per_group=width_per_group))
                width = planes * BLOCKS[block].expansion
            self.add_module(f"layer{i + 1}", blocks)
        self.fc = linear_classifier(self.num_features, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (N, 64, 56, 56)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 512, 28, 28)
        x = self.layer3(x)  # (N, 1024, 14, 14)
        return self.layer4(x)  # (N, 2048, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)


def projection(in_planes: int, planes: int, stride: int) -> nn.Module:
    """The shortcut: identity, or where the shape changes a 1×1 convolution (the paper's option B)."""
    if stride == 1 and in_planes == planes:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
