"""Ioffe, Szegedy 2015, Batch normalization: accelerating deep network training by reducing internal covariate shift,
appendix, Figure 5.

Differs: the first 7×7 convolution is a plain one, not separable, and convolutions keep a bias beside batch norm, both
as in the public Caffe model, whose 11.3 million parameters it has; the paper's text says 13.6. That model's poolings of
4c and 4d project to 128 channels, the figure's (as recalled) to 96. Its poolings of stride 2 round up, those here are
padded by one, which fits maps of any side and shifts the windows by a pixel. It has no auxiliary head.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import xavier_fan_in_


class Conv(nn.Sequential):
    def __init__(self, in_planes: int, planes: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, kernel, stride, padding=kernel // 2)
        self.bn = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)


class Inception(nn.Module):
    """sizes: Figure 5's #1×1, #3×3 reduce, #3×3, double #3×3 reduce, double #3×3, pool proj.

    Where #1×1 is 0 the module halves the map, and its pooling passes all channels through.
    """

    def __init__(self, in_planes: int, sizes: tuple[int, int, int, int, int, int], pool: str) -> None:
        super().__init__()
        narrow, reduce3, wide3, reduce_double, wide_double, projected = sizes
        stride = 1 if narrow else 2
        self.branch1x1 = Conv(in_planes, narrow, 1) if narrow else None
        self.branch3x3 = nn.Sequential(Conv(in_planes, reduce3, 1), Conv(reduce3, wide3, 3, stride))
        self.branch_double = nn.Sequential(
            Conv(in_planes, reduce_double, 1),
            Conv(reduce_double, wide_double, 3),
            Conv(wide_double, wide_double, 3, stride),
        )
        pooling = nn.AvgPool2d(3, stride, 1) if pool == "average" else nn.MaxPool2d(3, stride, 1)
        self.branch_pool = nn.Sequential(pooling, Conv(in_planes, projected, 1)) if projected else pooling
        self.out_planes = narrow + wide3 + wide_double + (projected or in_planes)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch3x3(x), self.branch_double(x), self.branch_pool(x)]
        return torch.cat(branches if self.branch1x1 is None else [self.branch1x1(x), *branches], 1)


MODULES = {  # Figure 5, rows 3a to 5b
    "inception3a": ((64, 64, 64, 64, 96, 32), "average"),
    "inception3b": ((64, 64, 96, 64, 96, 64), "average"),
    "inception3c": ((0, 128, 160, 64, 96, 0), "max"),
    "inception4a": ((224, 64, 96, 96, 128, 128), "average"),
    "inception4b": ((192, 96, 128, 96, 128, 128), "average"),
    "inception4c": ((160, 128, 160, 128, 160, 128), "average"),
    "inception4d": ((96, 128, 192, 160, 192, 128), "average"),
    "inception4e": ((0, 128, 192, 192, 256, 0), "max"),
    "inception5a": ((352, 192, 320, 160, 224, 128), "average"),
    "inception5b": ((352, 192, 320, 192, 224, 128), "max"),
}


@BACKBONES.variants(bn_inception={})
class BNInception(Backbone):
    """The small stem has a first convolution without stride and no first pooling."""

    taps = ("pool2", "inceptions.inception3b", "inceptions.inception4d", "inceptions.inception5b")
    image_size = 224
    num_features = 1024

    def __init__(self, *, num_classes: int = 1000, in_chans: int = 3, stem: str = "large") -> None:
        super().__init__()
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = Conv(in_chans, 64, 7, 1 if small else 2)
        self.pool1 = nn.Identity() if small else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2_reduce = Conv(64, 64, 1)
        self.conv2 = Conv(64, 192, 3)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inceptions, width = nn.Sequential(), 192
        for name, (sizes, pool) in MODULES.items():
            module = Inception(width, sizes, pool)
            self.inceptions.add_module(name, module)
            width = module.out_planes
        self.fc = linear_classifier(1024, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            xavier_fan_in_(module.weight)
            nn.init.constant_(module.bias, 0.2)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        x = self.pool1(self.conv1(x))  # (N, 64, 56, 56)
        x = self.pool2(self.conv2(self.conv2_reduce(x)))  # (N, 192, 28, 28)
        return self.inceptions(x)  # (N, 1024, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)
