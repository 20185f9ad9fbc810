"""Huang, Liu, van der Maaten, Weinberger 2017, Densely connected convolutional networks, Table 1 (k = 32).

Differs: densenet161 (k = 48) is of the authors' repository, not of Table 1. Each layer's maps are appended to one
tensor that the next layer reads, where torchvision keeps a list and concatenates it anew: the same values, one copy
less a block. Parameter names are torchvision's.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import he_fan_out


class DenseLayer(nn.Module):
    """BN-ReLU-1×1 to 4k maps, BN-ReLU-3×3 to k maps: the bottleneck of DenseNet-B. Dropout after either convolution."""

    def __init__(self, in_planes: int, growth_rate: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_planes)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_planes, 4 * growth_rate, 1, bias=False)
        self.dropout1 = dropout_or_nothing(dropout)
        self.norm2 = nn.BatchNorm2d(4 * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.dropout2 = dropout_or_nothing(dropout)

    def squeeze(self, *maps: Tensor) -> Tensor:
        """All maps so far, whole or in pieces → 4k of them. What `memory_efficient` computes twice."""
        x = maps[0] if len(maps) == 1 else torch.cat(maps, 1)
        return self.conv1(self.relu1(self.norm1(x)))

    def grow(self, x: Tensor) -> Tensor:
        """4k maps → the k new ones."""
        x = self.relu2(self.norm2(self.dropout1(x)))
        return self.dropout2(self.conv2(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.grow(self.squeeze(x))


class DenseBlock(nn.Sequential):
    """Every layer reads the block's input and the maps of all layers before it; all of them come out."""

    def __init__(self, *layers: nn.Module, memory_efficient: bool = False) -> None:
        super().__init__()
        self.memory_efficient = memory_efficient
        for i, layer in enumerate(layers):
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        if self.memory_efficient:
            return self.recomputing(x)
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x

    def recomputing(self, x: Tensor) -> Tensor:
        """Keeps the pieces and concatenates them again in the backward pass: memory grows linearly with the depth."""
        maps = [x]
        for layer in self:
            squeezed = checkpoint(layer.squeeze, *maps, use_reentrant=False, preserve_rng_state=False)
            maps.append(layer.grow(squeezed))
        return torch.cat(maps, 1)


class Transition(nn.Sequential):
    def __init__(self, in_planes: int, planes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.dropout = dropout_or_nothing(dropout)
        self.pool = nn.AvgPool2d(2)


@BACKBONES.variants(
    densenet121=dict(layers=(6, 12, 24, 16)),
    densenet161=dict(layers=(6, 12, 36, 24), growth_rate=48, stem_width=96),
    densenet169=dict(layers=(6, 12, 32, 32)),
    densenet201=dict(layers=(6, 12, 48, 32)),
    densenet264=dict(layers=(6, 12, 64, 48)),
)
class DenseNet(Backbone):
    """layers: of each of the four blocks. growth_rate: the paper's k. dropout: after each convolution but the first.

    memory_efficient: recompute concatenations, first norms and 1×1 convolutions in the backward pass. Eagerly those
    norms then count each batch twice in their running statistics, as torchvision's do.
    """

    taps = ("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.denseblock4")
    classifier_name = "classifier"
    image_size = 224
    init = staticmethod(he_fan_out)

    def __init__(
        self,
        *,
        layers: tuple[int, int, int, int],
        growth_rate: int = 32,
        stem_width: int = 64,
        dropout: float = 0.0,
        memory_efficient: bool = False,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if len(layers) != 4 or min(*layers, growth_rate, stem_width) < 1:
            sizes = f"layers={layers}, growth_rate={growth_rate}, stem_width={stem_width}"
            raise ValueError(f"{sizes}: four blocks, all from 1")
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.features = nn.Sequential()
        self.features.conv0 = nn.Conv2d(in_chans, stem_width, 7, 1 if small else 2, padding=3, bias=False)
        self.features.norm0 = nn.BatchNorm2d(stem_width)
        self.features.relu0 = nn.ReLU(inplace=True)
        self.features.pool0 = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        width = stem_width
        for i, depth in enumerate(layers):
            if i > 0:  # compression by half: the C of DenseNet-BC
                self.features.add_module(f"transition{i}", Transition(width, width // 2, dropout))
                width //= 2
            dense = (DenseLayer(width + j * growth_rate, growth_rate, dropout) for j in range(depth))
            self.features.add_module(f"denseblock{i + 1}", DenseBlock(*dense, memory_efficient=memory_efficient))
            width += depth * growth_rate
        self.features.norm5 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.num_features = width
        self.classifier = linear_classifier(width, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.relu(self.features(x))  # (N, 1024, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.classifier(pooled)


def dropout_or_nothing(rate: float) -> nn.Module:
    return nn.Dropout(rate) if rate else nn.Identity()
