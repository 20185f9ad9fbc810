"""He, Zhang, Ren, Sun 2015, Deep residual learning for image recognition, section 4.2: the CIFAR-10 networks.

Differs: nothing in the network. Parameter names are those of akamaster/pytorch_resnet_cifar10, whose weights load.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES


class Shortcut(nn.Module):
    """Option A: identity, subsampled by the stride and padded with zero channels on both sides. No parameters."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))


class BasicBlock(nn.Module):
    def __init__(self, in_planes: int, planes: int, stride: int, shortcut: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module | None = None
        if shortcut:
            self.shortcut = nn.Identity() if in_planes == planes else Shortcut(stride, planes - in_planes)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out if self.shortcut is None else out + self.shortcut(x))


@BACKBONES.variants(  # Table 6: depth = 6n + 2
    resnet20=dict(n=3),
    resnet32=dict(n=5),
    resnet44=dict(n=7),
    resnet56=dict(n=9),
    resnet110=dict(n=18),
    resnet1202=dict(n=200),
    # Figure 6, left: the plain nets
    plain20=dict(n=3, shortcut=False),
    plain32=dict(n=5, shortcut=False),
    plain44=dict(n=7, shortcut=False),
    plain56=dict(n=9, shortcut=False),
    plain110=dict(n=18, shortcut=False),
)
class CifarResNet(Backbone):
    """n: blocks of each of the three stages. shortcut: without, it is the plain net that the paper compares with."""

    block = BasicBlock
    taps = ("layer1", "layer2", "layer3")
    classifier_name = "linear"
    smallest = 4
    image_size = 32

    def __init__(self, *, n: int, shortcut: bool = True, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n={n}: a stage has at least one block")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, 64
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = self._stage(16, 16, n, 1, shortcut)
        self.layer2 = self._stage(16, 32, n, 2, shortcut)
        self.layer3 = self._stage(32, 64, n, 2, shortcut)
        self.linear = linear_classifier(64, num_classes)
        self.apply(self.init)

    def _stage(self, in_planes: int, planes: int, n: int, stride: int, shortcut: bool) -> nn.Sequential:
        rest = (self.block(planes, planes, 1, shortcut) for _ in range(n - 1))
        return nn.Sequential(self.block(in_planes, planes, stride, shortcut), *rest)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):  # He et al. 2015, Delving deep into rectifiers: fan-in
            nn.init.kaiming_normal_(module.weight)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 32, 16, 16)
        return self.layer3(x)  # (N, 64, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.linear(pooled)
