"""Huang, Liu, van der Maaten, Weinberger 2017, Densely connected convolutional networks, section 4.2: 32×32 images.

Differs: nothing in the network. The authors' Torch code starts every net with 2k channels; the paper starts those
without bottleneck and compression with 16, which alone gives its 27.2 million parameters for L = 100, k = 24.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.densenet import DenseBlock, DenseLayer, Transition, dropout_or_nothing
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import he_fan_out


class PlainDenseLayer(nn.Module):
    """BN-ReLU-3×3, without a bottleneck."""

    def __init__(self, in_planes: int, growth_rate: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_planes, growth_rate, 3, padding=1, bias=False)
        self.dropout = dropout_or_nothing(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.conv(self.relu(self.norm(x))))


@BACKBONES.variants(  # Table 2
    densenet40_k12=dict(depth=40, growth_rate=12),
    densenet100_k12=dict(depth=100, growth_rate=12),
    densenet100_k24=dict(depth=100, growth_rate=24),
    densenet_bc100_k12=dict(depth=100, growth_rate=12, bc=True),
    densenet_bc250_k24=dict(depth=250, growth_rate=24, bc=True),
    densenet_bc190_k40=dict(depth=190, growth_rate=40, bc=True),
)
class CifarDenseNet(Backbone):
    """depth, growth_rate: the paper's L and k. bc: bottlenecks, and transitions that halve the channels.

    dropout: after every convolution but the first; 0.2 in the paper where images are not augmented.
    """

    taps = ("features.denseblock1", "features.denseblock2", "features.denseblock3")
    classifier_name = "classifier"
    smallest = 4
    image_size = 32
    init = staticmethod(he_fan_out)

    def __init__(
        self,
        *,
        depth: int,
        growth_rate: int,
        bc: bool = False,
        dropout: float = 0.0,
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        convolutions = 2 if bc else 1  # of a layer
        n, rest = divmod(depth - 4, 3 * convolutions)
        if n < 1 or rest:
            raise ValueError(f"depth={depth}: it is 4 + {3 * convolutions}n, with n layers in each of three blocks")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is not in [0, 1)")
        self.num_classes, self.in_chans = num_classes, in_chans
        width = 2 * growth_rate if bc else 16
        layer = DenseLayer if bc else PlainDenseLayer
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        for i in range(3):
            if i > 0:
                planes = width // 2 if bc else width
                self.features.add_module(f"transition{i}", Transition(width, planes, dropout))
                width = planes
            block = DenseBlock(*(layer(width + j * growth_rate, growth_rate, dropout) for j in range(n)))
            self.features.add_module(f"denseblock{i + 1}", block)
            width += n * growth_rate
        self.features.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.num_features = width
        self.classifier = linear_classifier(width, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        return self.relu(self.features(x))  # (N, num_features, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)
