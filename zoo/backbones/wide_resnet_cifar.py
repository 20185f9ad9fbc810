"""Zagoruyko, Komodakis 2016, Wide residual networks, Table 1: the CIFAR and SVHN networks.

Differs: nothing in the network, which is the author's wide-resnet.lua: where a block widens, its shortcut is a 1×1
convolution and begins after the first BN and ReLU.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import he_fan_out


class WideBlock(nn.Module):
    """B(3, 3) of section 3: two 3×3 convolutions, with dropout between them."""

    def __init__(self, in_planes: int, planes: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.projection: nn.Module | None = None
        if in_planes != planes:
            self.projection = nn.Conv2d(in_planes, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu1(self.bn1(x))
        out = self.dropout(self.relu2(self.bn2(self.conv1(activated))))
        shortcut = x if self.projection is None else self.projection(activated)
        return self.conv2(out) + shortcut


@BACKBONES.variants(  # WRN-depth-k
    wrn16_4=dict(depth=16, k=4),
    wrn16_8=dict(depth=16, k=8),
    wrn28_10=dict(depth=28, k=10),
    wrn40_4=dict(depth=40, k=4),
    wrn40_10=dict(depth=40, k=10),
)
class CifarWideResNet(Backbone):
    """depth: 6n + 4 convolutions, three of them the shortcuts that widen. k: width over that of the thin net.

    dropout: probability, inside the blocks; the paper's is 0.3 for CIFAR and 0.4 for SVHN in Table 6, else 0.
    """

    taps = ("layer1", "layer2", "relu")  # the last sum is seen where it is pooled: after the last BN and ReLU
    classifier_name = "linear"
    smallest = 4
    image_size = 32
    init = staticmethod(he_fan_out)

    def __init__(self, *, depth: int, k: int, dropout: float = 0.0, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        n, rest = divmod(depth - 4, 6)
        if n < 1 or rest:
            raise ValueError(f"depth={depth} is not possible: it must be 6n + 4, as 10, 16, 22, 28")
        if k < 1:
            raise ValueError(f"k={k}: the net is widened at least by 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is not possible: it must be at least 0 and less than 1")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, 64 * k
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.layer1 = stage(16, 16 * k, n, stride=1, dropout=dropout)
        self.layer2 = stage(16 * k, 32 * k, n, stride=2, dropout=dropout)
        self.layer3 = stage(32 * k, 64 * k, n, stride=2, dropout=dropout)
        self.bn = nn.BatchNorm2d(64 * k)
        self.relu = nn.ReLU(inplace=True)
        self.linear = linear_classifier(64 * k, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.conv1(x)  # (N, 16, 32, 32)
        x = self.layer1(x)  # (N, 16k, 32, 32)
        x = self.layer2(x)  # (N, 32k, 16, 16)
        x = self.layer3(x)  # (N, 64k, 8, 8)
        return self.relu(self.bn(x))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.linear(pooled)


def stage(in_planes: int, planes: int, n: int, stride: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        WideBlock(in_planes, planes, stride, dropout),
        *(WideBlock(planes, planes, 1, dropout) for _ in range(n - 1)),
    )
