"""Huang, Sun, Liu, Sedra, Weinberger 2016, Deep networks with stochastic depth, section 3: the CIFAR-10 networks.

Differs: a dead block is computed and multiplied by zero, not skipped, so that one compiled graph serves every draw: no
time is saved, its parameters get zero gradients, and its BN statistics still follow the data. The authors' code
subsamples the shortcut by averaging 2×2 pixels, pads zero channels on one side only and gives the convolutions biases;
here the shortcut is that of He et al. 2015 and there are none. Parameter names are those of resnet_cifar.py, whose
weights load.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.backbones.resnet_cifar import BasicBlock, CifarResNet


class MortalBlock(BasicBlock):
    """In training it lives with probability `survival`, for the whole mini-batch at once: equation 2."""

    def __init__(self, in_planes: int, planes: int, stride: int, survival: float) -> None:
        super().__init__(in_planes, planes, stride)
        self.survival = survival

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
class StochasticDepth(Backbone):
    """n: blocks of each of the three stages. survival: the last block's probability to live, p_L; it falls from 1."""

    taps = CifarResNet.taps
    classifier_name = CifarResNet.classifier_name
    smallest = CifarResNet.smallest
    image_size = CifarResNet.image_size
    num_features = 64
    init = staticmethod(CifarResNet.init)

    def __init__(self, *, n: int, survival: float = 0.5, num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n={n}: a stage has at least one block")
        if not 0 < survival <= 1:
            raise ValueError(f"survival={survival} is not possible: it must be greater than 0 and at most 1")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        width = 16
        for i, planes in enumerate((16, 32, 64)):
            blocks = nn.Sequential()
            for j in range(n):
                stride = 2 if i > 0 and j == 0 else 1
                depth = (i * n + j + 1) / (3 * n)  # l / L
                blocks.append(MortalBlock(width, planes, stride, survival=1 - depth * (1 - survival)))  # equation 4
                width = planes
            self.add_module(f"layer{i + 1}", blocks)
        self.linear = linear_classifier(64, num_classes)
        self.apply(self.init)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 16, 32, 32)
        x = self.layer1(x)
        x = self.layer2(x)  # (N, 32, 16, 16)
        return self.layer3(x)  # (N, 64, 8, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.linear(pooled)
