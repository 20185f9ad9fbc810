"""Srivastava, Greff, Schmidhuber 2015, Training very deep networks, section 3.

highway10… (Table 1) and highway19 (Highway B of Table 2) follow the network definitions in the authors' repository.

Differs: highway32 (Highway C) was not released. Known of it are 32 layers, receptive fields of 3×3 and 1×1 in turn and
about 1.25 million parameters; that it is built like highway19, with stages of 32, 64 and 96 channels and 1.26 million
parameters, is our reading. The authors' file draws highway19's first layer from a unit normal, which was hardly meant;
here it starts as the others do. `carry="free"` is equation 2 with a gate C of its own, which the paper's nets have not.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import xavier_fan_in_


class HighwayConv(nn.Module):
    """y = H(x)·T(x) + x·C(x), with C = 1 − T (carry="coupled", equation 3) or a gate of its own ("free", equation 2).

    gate_bias: of T when training starts. Negative: the layer begins by carrying its input.
    """

    def __init__(self, planes: int, kernel: int, carry: str, gate_bias: float) -> None:
        super().__init__()
        if carry not in ("coupled", "free"):
            raise ValueError(f"carry={carry!r} is not known: coupled is 1 − T, free is a gate of its own")
        self.gate_bias = gate_bias
        self.plain = nn.Conv2d(planes, planes, kernel, padding=kernel // 2)
        self.relu = nn.ReLU(inplace=True)
        self.transform = nn.Conv2d(planes, planes, kernel, padding=kernel // 2)
        self.carry = nn.Conv2d(planes, planes, kernel, padding=kernel // 2) if carry == "free" else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.plain(x))
        t = self.transform(x).sigmoid()
        if self.carry is None:
            return torch.lerp(x, h, t)  # h·t + x·(1 − t)
        return h * t + x * self.carry(x).sigmoid()


def initialise(module: nn.Module, *, classifier_std: float) -> None:
    """As in the authors' files."""
    if isinstance(module, nn.Conv2d):
        xavier_fan_in_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=classifier_std)
        nn.init.zeros_(module.bias)
    elif isinstance(module, HighwayConv):  # comes after its convolutions
        nn.init.constant_(module.transform.bias, module.gate_bias)
        if module.carry is not None:
            nn.init.constant_(module.carry.bias, -module.gate_bias)


def dropouts(rates: Sequence[float]) -> list[nn.Dropout]:
    """One each for the image and the three stages."""
    if len(rates) != 4 or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"dropout={rates}: it is four rates in [0, 1), for the image and what each stage gives")
    return [nn.Dropout(rate) for rate in rates]


@BACKBONES.variants(  # Table 1
    highway10_w16=dict(width=16),
    highway10_w32=dict(width=32),
)
class MnistHighway(Backbone):
    """A plain layer and eight highways, all of one width. dropout: of the image and after each pooling."""

    taps = ("stage1", "stage2", "stage3")
    smallest = 8
    any_size = False

    def __init__(
        self,
        *,
        width: int,
        carry: str = "coupled",
        gate_bias: float = -1.0,
        dropout: Sequence[float] = (0.2, 0.3, 0.4, 0.5),
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.check_images(*self.input_size)
        side = ((image_size - 4) // 4 + 1) // 2  # Caffe's poolings round up
        self.num_features = width * side * side
        self.drop0, self.drop1, self.drop2, self.drop3 = dropouts(dropout)
        conv = nn.Conv2d(in_chans, width, 5)
        highways = [HighwayConv(width, 3, carry, gate_bias) for _ in range(8)]
        self.stage1 = nn.Sequential(conv, nn.ReLU(inplace=True), *highways[:2])
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stage2 = nn.Sequential(*highways[2:5])
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stage3 = nn.Sequential(*highways[5:])
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.fc = linear_classifier(self.num_features, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        initialise(module, classifier_std=0.1)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        x = self.stage1(self.drop0(x))  # (N, width, 24, 24)
        x = self.stage2(self.drop1(self.pool1(x)))  # (N, width, 12, 12)
        x = self.stage3(self.drop2(self.pool2(x)))  # (N, width, 6, 6)
        return self.pool3(x)  # (N, width, 3, 3)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        flat = self.drop3(features.flatten(1))
        return flat if pre_logits else self.fc(flat)


@BACKBONES.variants(
    highway19=dict(widths=(32, 80, 128), depths=(5, 6, 6)),
    highway32=dict(widths=(32, 64, 96), depths=(10, 10, 10), kernels=(3, 1)),
)
class CifarHighway(Backbone):
    """widths, depths: of the three stages, each a plain 3×3 layer followed by highways.

    kernels: receptive fields of a stage's layers, over and over. dropout: of the image, after the poolings, at the end.
    """

    taps = ("stage1", "stage2", "stage3")
    smallest = 4
    image_size = 32
    num_features = 100

    def __init__(
        self,
        *,
        widths: tuple[int, int, int],
        depths: tuple[int, int, int],
        kernels: tuple[int, ...] = (3,),
        carry: str = "coupled",
        gate_bias: float = -2.0,
        dropout: Sequence[float] = (0.2, 0.2, 0.2, 0.2),
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.drop0, self.drop1, self.drop2, self.drop3 = dropouts(dropout)
        before = in_chans
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            sides = itertools.islice(itertools.cycle(kernels), 1, depth)  # the first is the plain layer's
            highways = (HighwayConv(width, side, carry, gate_bias) for side in sides)
            conv = nn.Conv2d(before, width, 3, padding=1)
            self.add_module(f"stage{i + 1}", nn.Sequential(conv, nn.ReLU(inplace=True), *highways))
            before = width
        self.pool1 = nn.MaxPool2d(2)
        self.pool2 = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Conv2d(before, 100, 1), nn.ReLU(inplace=True))
        self.fc = linear_classifier(100, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        initialise(module, classifier_std=0.05)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.stage1(self.drop0(x))  # (N, 32, 32, 32)
        x = self.stage2(self.drop1(self.pool1(x)))  # (N, 80, 16, 16)
        x = self.stage3(self.drop2(self.pool2(x)))  # (N, 128, 8, 8)
        return self.last(x)  # (N, 100, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.drop3(features.mean((2, 3)))
        return pooled if pre_logits else self.fc(pooled)
