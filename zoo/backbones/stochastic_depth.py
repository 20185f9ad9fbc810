"""Huang, Sun, Liu, Sedra, Weinberger 2016, Deep networks with stochastic depth, section 3: the CIFAR-10 networks.

Differs: a dead block is computed and multiplied by zero, not skipped, so that one compiled graph serves every draw: no
time is saved, its parameters get zero gradients, and its BN statistics still follow the data. The authors' code
subsamples the shortcut by averaging 2×2 pixels, pads zero channels on one side only and gives the convolutions biases;
here the shortcut is that of He et al. 2015 and there are none. Parameter names are those of resnet_cifar.py, whose
weights load.
"""

from torch import Tensor

from zoo.backbones.register import BACKBONES
from zoo.backbones.resnet_cifar import BasicBlock, CifarResNet


class MortalBlock(BasicBlock):
    """In training it lives with probability `survival`, for the whole mini-batch at once: equation 2."""

    survival: float

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        # Equation 5: when testing, the residual is weighted by its expected presence in training.
        b = x.new_empty(()).bernoulli_(self.survival) if self.training else self.survival
        return self.relu2(b * out + self.shortcut(x))


@BACKBONES.variants(  # depth = 6n + 2
    resnet110_stochastic_depth=dict(n=18),
    resnet1202_stochastic_depth=dict(n=200),
)
class StochasticDepth(CifarResNet):
    """n: blocks of each of the three stages. survival: the last block's probability to live, p_L; it falls from 1."""

    block = MortalBlock

    def __init__(self, *, n: int, survival: float = 0.5, num_classes: int = 10, in_chans: int = 3) -> None:
        if not 0 < survival <= 1:
            raise ValueError(f"survival={survival} is not possible: it must be greater than 0 and at most 1")
        super().__init__(n=n, num_classes=num_classes, in_chans=in_chans)
        blocks = [*self.layer1, *self.layer2, *self.layer3]
        for depth, block in enumerate(blocks, start=1):
            block.survival = 1 - depth / len(blocks) * (1 - survival)  # equation 4
