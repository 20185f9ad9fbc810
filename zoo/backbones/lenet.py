"""LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition, section II.B.

Differs: lenet5 is the net as it is built today: every map of C3 sees every map of S2; pooling has no parameters; the
output layer is linear, not RBF; the activation is a plain tanh; 28×28 images are padded by 2 to the paper's 32×32.
lenet5_original has all of these as in the paper, but for the codes of its RBF units: random ±1 instead of drawn digits.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES


@BACKBONES.variants(lenet5={})
class LeNet(Backbone):
    taps = ("conv1", "conv2")
    classifier_name = "fc3"
    smallest = 12
    any_size = False

    def __init__(self, *, num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features = 84
        self.check_images(*self.input_size)
        side = (image_size // 2 - 4) // 2  # of S4
        self.conv1 = nn.Conv2d(in_chans, 6, 5, padding=2)
        self.tanh1 = nn.Tanh()
        self.pool1 = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.tanh2 = nn.Tanh()
        self.pool2 = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.tanh3 = nn.Tanh()
        self.fc2 = nn.Linear(120, 84)
        self.tanh4 = nn.Tanh()
        self.fc3 = linear_classifier(84, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        x = self.pool1(self.tanh1(self.conv1(x)))  # (N, 6, 14, 14)
        return self.pool2(self.tanh2(self.conv2(x)))  # (N, 16, 5, 5)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.tanh3(self.fc1(features.flatten(1)))  # (N, 120)
        x = self.tanh4(self.fc2(x))  # (N, 84)
        return x if pre_logits else self.fc3(x)


# Table I: which maps of S2 each map of C3 sees. Rows of three, of four, and all six.
THREES = tuple(tuple((i + j) % 6 for j in range(3)) for i in range(6))
FOURS = (*(tuple((i + j) % 6 for j in range(4)) for i in range(6)), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5))


class Subsampling(nn.Module):
    """S2 and S4: the sum of 2×2 neighbours times a coefficient plus a bias, one of each a map."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.coefficient = nn.Parameter(torch.ones(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.pool(x) * self.coefficient + self.bias


class PartialConvolution(nn.Module):
    """C3: 5×5 filters over the maps that Table I names."""

    def __init__(self) -> None:
        super().__init__()
        self.threes = nn.Conv2d(18, 6, 5, groups=6)
        self.fours = nn.Conv2d(36, 9, 5, groups=9)
        self.all = nn.Conv2d(6, 1, 5)
        for name, table in ("sees3", THREES), ("sees4", FOURS):
            self.register_buffer(name, torch.tensor(table).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.threes(x[:, self.sees3]), self.fours(x[:, self.sees4]), self.all(x)], 1)


class Squash(nn.Module):
    """Appendix A: 1.7159 · tanh(2/3 · a)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)


class RBF(nn.Module):
    """Minus the squared distances to a fixed ±1 code a class: scores that are highest where the paper's are lowest."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        fixed = torch.Generator().manual_seed(1998)  # the same codes whatever the run's seed is
        codes = torch.randint(2, (num_classes, num_features), generator=fixed, device="cpu")
        self.register_buffer("codes", (2.0 * codes - 1).to(torch.get_default_device()))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(2)


def rbf_classifier(num_features: int, num_classes: int) -> nn.Module:
    return RBF(num_features, num_classes) if num_classes else nn.Identity()


@BACKBONES.variants(lenet5_original={})
class LeNet5(Backbone):
    taps = ("c1", "c3")
    classifier_name = "output"
    make_classifier = staticmethod(rbf_classifier)
    smallest = 16
    any_size = False
    num_features = 84

    def __init__(self, *, num_classes: int = 10, in_chans: int = 1, image_size: int = 32) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.check_images(*self.input_size)
        self.c1 = nn.Conv2d(in_chans, 6, 5)
        self.squash1 = Squash()
        self.s2 = Subsampling(6)
        self.squash2 = Squash()
        self.c3 = PartialConvolution()
        self.squash3 = Squash()
        self.s4 = Subsampling(16)
        self.squash4 = Squash()
        self.c5 = nn.Conv2d(16, 120, ((image_size - 4) // 2 - 4) // 2)
        self.squash5 = Squash()
        self.f6 = nn.Linear(120, 84)
        self.squash6 = Squash()
        self.output = rbf_classifier(84, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):  # appendix A: uniform within 2.4 / fan-in
            bound = 2.4 / module.weight[0].numel()
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Subsampling):
            nn.init.constant_(module.coefficient, 0.25)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 32, 32)
        x = self.squash2(self.s2(self.squash1(self.c1(x))))  # (N, 6, 14, 14)
        return self.squash4(self.s4(self.squash3(self.c3(x))))  # (N, 16, 5, 5)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.squash5(self.c5(features)).flatten(1)  # (N, 120)
        x = self.squash6(self.f6(x))  # (N, 84)
        return x if pre_logits else self.output(x)
