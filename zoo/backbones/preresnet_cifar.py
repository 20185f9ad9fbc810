"""He, Zhang, Ren, Sun 2016, Identity mappings in deep residual networks: the CIFAR networks, and the ablations of
Tables 1 and 2.

Differs: preresnet164 and preresnet1001 are the authors' resnet-pre-act.lua, where a unit that widens does so by a 1×1
convolution, and one BN and ReLU serves branch and shortcut. Here every first unit of a stage shares so, in both orders
of pre-activation. Where an order has BN after the last convolution of the branch, it has BN after that of the shortcut
too: bottlenecks of these orders have 896 parameters more. preresnet110 widens by zero channels, as the net of 2015 that
it is compared with; other zoos have 1×1 convolutions and 2,560 parameters more.
Table 1 was made with order=original. Of its settings there is the one that worked best: constant scaling of both paths,
not of the shortcut alone; gates with initial biases of -6. Where a unit widens, what a gate, a scale or dropout acts on
is the widened shortcut.
"""

from typing import NamedTuple

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.backbones.resnet_cifar import Shortcut
from zoo.layers.initial import he_fan_out


class Order(NamedTuple):
    """What follows the net's first convolution, what stands around the convolutions of a unit, what follows the sum."""

    stem: str
    before: str
    between: str
    last: str
    after: str


ORDERS = {  # Figure 4, (a) to (e): the same parts, otherwise arranged
    "original": Order(stem="bn relu", before="", between="bn relu", last="bn", after="relu"),
    "bn_after_addition": Order(stem="bn relu", before="", between="bn relu", last="", after="bn relu"),
    "relu_before_addition": Order(stem="bn relu", before="", between="bn relu", last="bn relu", after=""),
    "relu_only_preactivation": Order(stem="bn", before="relu", between="bn relu", last="bn", after=""),
    "full_preactivation": Order(stem="", before="bn relu", between="bn relu", last="", after=""),
}

BLOCKS = {  # the convolutions of a unit: kernel, and width over the stage's
    "basic": ((3, 1), (3, 1)),
    "bottleneck": ((1, 1), (3, 1), (1, 4)),
}


class Add(nn.Module):
    """Figure 2(a), and (e) where `match` is a convolution. match: x → the shape of the residual f; h in the paper."""

    def __init__(self, match: nn.Module, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.match = match

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        return self.match(x) + f


class ConstantScaling(Add):
    """Figure 2(b): gates that are frozen half open."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        return 0.5 * self.match(x) + 0.5 * f


class Gate(nn.Conv2d):
    """A type of its own because its biases start otherwise: at -6, so that 1 - g is nearly 1."""


class ShortcutOnlyGating(Add):
    """Figure 2(d)."""

    def __init__(self, match: nn.Module, in_planes: int, planes: int, stride: int) -> None:
        super().__init__(match, in_planes, planes, stride)
        self.gate = Gate(in_planes, planes, 1, stride)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        g = self.gate(x).sigmoid()
        return (1 - g) * self.match(x) + f


class ExclusiveGating(ShortcutOnlyGating):
    """Figure 2(c): what the shortcut loses the residual gets, as in highway networks."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        g = self.gate(x).sigmoid()
        return (1 - g) * self.match(x) + g * f


class DropoutShortcut(Add):
    """Figure 2(f). What is kept is not scaled up, so the shortcut is halved on average, in training as in testing."""

    def __init__(self, match: nn.Module, in_planes: int, planes: int, stride: int) -> None:
        super().__init__(match, in_planes, planes, stride)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        return 0.5 * self.dropout(self.match(x)) + f


SHORTCUTS = {
    "identity": Add,
    "constant_scaling": ConstantScaling,
    "exclusive_gating": ExclusiveGating,
    "shortcut_only_gating": ShortcutOnlyGating,
    "conv": Add,
    "dropout": DropoutShortcut,
}


class Unit(nn.Module):
    """A residual unit. first: of its stage, where the shortcut too begins after what precedes the first convolution."""

    def __init__(
        self, in_planes: int, width: int, stride: int, *, block: str, order: str, shortcut: str, first: bool
    ) -> None:
        super().__init__()
        parts = ORDERS[order]
        self.shared = activation(parts.before if first else "", in_planes)
        self.residual = nn.Sequential(activation("" if first else parts.before, in_planes))
        planes = in_planes
        for i, (kernel, factor) in enumerate(BLOCKS[block]):
            if i > 0:
                self.residual.append(activation(parts.between, planes))
            before, planes = planes, width * factor
            self.residual.append(
                nn.Conv2d(before, planes, kernel, stride if i == 0 else 1, padding=kernel // 2, bias=False)
            )
        self.residual.append(activation(parts.last, planes))
        if shortcut == "conv" or (block == "bottleneck" and in_planes != planes):
            norm = activation("bn" if "bn" in parts.last else "", planes)
            match = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False), norm)
        else:
            match = nn.Identity() if in_planes == planes else Shortcut(stride, planes - in_planes)
        self.shortcut = SHORTCUTS[shortcut](match, in_planes, planes, stride)
        self.after = activation(parts.after, planes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        return self.after(self.shortcut(x, self.residual(x)))


@BACKBONES.variants(  # depth = 6n + 2 of basic blocks, 9n + 2 of bottlenecks
    preresnet110=dict(n=18, block="basic"),
    preresnet164=dict(n=18),
    preresnet1001=dict(n=111),
)
class CifarPreResNet(Backbone):
    """n: units of each of the three stages. order: one of ORDERS. shortcut: one of SHORTCUTS, for every unit."""

    taps = ("layer1", "layer2", "activation")  # the last sum is seen where it is pooled: after the last activation
    classifier_name = "linear"
    smallest = 4
    image_size = 32

    def __init__(
        self,
        *,
        n: int,
        block: str = "bottleneck",
        order: str = "full_preactivation",
        shortcut: str = "identity",
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n={n}: a stage has at least one unit")
        for option, value, known in (
            ("block", block, BLOCKS),
            ("order", order, ORDERS),
            ("shortcut", shortcut, SHORTCUTS),
        ):
            if value not in known:
                raise ValueError(f"{option}={value!r} is not known: {', '.join(known)}")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.stem_activation = activation(ORDERS[order].stem, 16)
        planes, expansion = 16, BLOCKS[block][-1][1]
        for i, width in enumerate((16, 32, 64)):
            units = nn.Sequential()
            for j in range(n):
                stride = 2 if i > 0 and j == 0 else 1
                units.append(Unit(planes, width, stride, block=block, order=order, shortcut=shortcut, first=j == 0))
                planes = width * expansion
            self.add_module(f"layer{i + 1}", units)
        self.activation = activation(ORDERS[order].before, planes)  # of a unit that is not there
        self.num_features = planes
        self.linear = linear_classifier(planes, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:  # as resnet-pre-act.lua
        he_fan_out(module)
        if isinstance(module, Gate):
            nn.init.constant_(module.bias, -6)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.stem_activation(self.conv1(x))  # (N, 16, 32, 32)
        x = self.layer1(x)  # (N, 64, 32, 32) of bottlenecks
        x = self.layer2(x)  # (N, 128, 16, 16)
        x = self.layer3(x)  # (N, 256, 8, 8)
        return self.activation(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.linear(pooled)


def activation(words: str, planes: int) -> nn.Sequential:
    """These modules, in this order. A ReLU without BN is not in place: what it reads, others read too."""
    layers = nn.Sequential()
    for word in words.split():
        layers.append(nn.BatchNorm2d(planes) if word == "bn" else nn.ReLU(inplace="bn" in words))
    return layers
