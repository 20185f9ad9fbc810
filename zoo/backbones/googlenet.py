"""Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2014, Going deeper with convolutions,
Table 1.

Differs: googlenet_2014 is the paper's net in the details that the text leaves open as BVLC's Caffe files have them
(initialisation, dropout, normalisation). googlenet is torchvision's: batch norm after every convolution in place of
local response normalisation, 3×3 where the paper has 5×5, a last pooling of 2×2, auxiliary heads that pool adaptively;
its linear layers start as the Caffe files' all the same. The paper's heads pool so only on maps that are not 14×14.
Parameter names are torchvision's.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_relu import ConvBNReLU
from zoo.layers.initial import truncated_normal_, xavier_fan_in_


class ConvReLU(nn.Module):
    """The convolution of 2014: a bias, no batch norm."""

    def __init__(self, in_planes: int, planes: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, kernel, stride, padding)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


CONVOLUTIONS = {"batch": ConvBNReLU, "lrn": ConvReLU}


class Inception(nn.Module):
    """Figure 2(b). sizes: Table 1's #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj."""

    def __init__(self, in_planes: int, sizes: tuple[int, int, int, int, int, int], kernel: int, norm: str) -> None:
        super().__init__()
        conv = CONVOLUTIONS[norm]
        narrow, reduce3, wide3, reduce5, wide5, projected = sizes
        self.branch1 = conv(in_planes, narrow, 1)
        self.branch2 = nn.Sequential(conv(in_planes, reduce3, 1), conv(reduce3, wide3, 3, padding=1))
        self.branch3 = nn.Sequential(conv(in_planes, reduce5, 1), conv(reduce5, wide5, kernel, padding=kernel // 2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_planes, projected, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Scores(nn.Linear):
    """A last layer, a type of its own because its biases start at zero, those of the other layers above it."""


def scores(num_features: int, num_classes: int) -> nn.Module:
    return Scores(num_features, num_classes) if num_classes else nn.Identity()


class Auxiliary(nn.Module):
    """Section 5: pooling to 4×4, 128 filters of 1×1, 1024 units, 70 % dropout, scores."""

    def __init__(self, in_planes: int, num_classes: int, norm: str) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.shrink = nn.AdaptiveAvgPool2d(4)
        self.always_shrink = norm == "batch"  # as torchvision
        self.conv = CONVOLUTIONS[norm](in_planes, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = Scores(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, 14, 14)
        fits = tuple(x.shape[2:]) == (14, 14) and not self.always_shrink
        x = self.conv(self.pool(x) if fits else self.shrink(x))  # (N, 128, 4, 4)
        x = self.dropout(self.relu(self.fc1(x.flatten(1))))
        return self.fc2(x)


@BACKBONES.variants(
    googlenet=dict(norm="batch", kernel=3, last_pool=2, dropout=0.2),
    googlenet_2014=dict(norm="lrn", kernel=5, last_pool=3, dropout=0.4),
)
class GoogLeNet(Backbone):
    """norm: "batch" or "lrn". kernel: of the modules' widest branch. last_pool: kernel of the pooling before 5a.

    aux_logits: whether it has the two auxiliary heads, which `forward_aux` scores too. The small stem has a first
    convolution without stride and no first pooling.
    """

    taps = ("maxpool2", "inception3b", "inception4e", "inception5b")
    image_size = 224
    num_features = 1024
    criterion = "auxiliary"
    auxiliary_heads = ("aux1", "aux2")
    make_classifier = staticmethod(scores)

    def __init__(
        self,
        *,
        norm: str,
        kernel: int,
        last_pool: int,
        dropout: float,
        aux_logits: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if norm not in CONVOLUTIONS:
            raise ValueError(f"norm={norm!r} is not known: {', '.join(CONVOLUTIONS)}")
        small = self.choose_stem(stem, smallest=(32, 8))
        self.num_classes, self.in_chans, self.norm, self.aux_logits = num_classes, in_chans, norm, aux_logits
        conv = CONVOLUTIONS[norm]
        self.conv1 = conv(in_chans, 64, 7, 1 if small else 2, padding=3)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = response_norm(norm)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = response_norm(norm)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, (64, 96, 128, 16, 32, 32), kernel, norm)
        self.inception3b = Inception(256, (128, 128, 192, 32, 96, 64), kernel, norm)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, (192, 96, 208, 16, 48, 64), kernel, norm)
        self.inception4b = Inception(512, (160, 112, 224, 24, 64, 64), kernel, norm)
        self.inception4c = Inception(512, (128, 128, 256, 24, 64, 64), kernel, norm)
        self.inception4d = Inception(512, (112, 144, 288, 32, 64, 64), kernel, norm)
        self.inception4e = Inception(528, (256, 160, 320, 32, 128, 128), kernel, norm)
        self.maxpool4 = nn.MaxPool2d(last_pool, 2, ceil_mode=True)
        self.inception5a = Inception(832, (256, 160, 320, 32, 128, 128), kernel, norm)
        self.inception5b = Inception(832, (384, 192, 384, 48, 128, 128), kernel, norm)
        self.aux1, self.aux2 = self._auxiliaries(num_classes)
        self.dropout = nn.Dropout(dropout)
        self.fc = scores(1024, num_classes)
        self.apply(self.init)

    def _auxiliaries(self, num_classes: int) -> tuple[nn.Module, nn.Module]:
        if not (num_classes and self.aux_logits):
            return nn.Identity(), nn.Identity()
        return Auxiliary(512, num_classes, self.norm), Auxiliary(528, num_classes, self.norm)

    @staticmethod
    def init(module: nn.Module) -> None:
        if not isinstance(module, nn.Conv2d | nn.Linear):
            return
        if isinstance(module, nn.Conv2d) and module.bias is None:  # under batch norm: as torchvision
            truncated_normal_(module.weight, 0.01)
        else:  # as the Caffe files
            xavier_fan_in_(module.weight)
            nn.init.constant_(module.bias, 0.0 if isinstance(module, Scores) else 0.2)

    def _stages(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps that the two auxiliary heads and the classifier read."""
        x = self.norm1(self.maxpool1(self.conv1(x)))  # (N, 64, 56, 56)
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))  # (N, 192, 28, 28)
        x = self.maxpool3(self.inception3b(self.inception3a(x)))  # (N, 480, 14, 14)
        first = self.inception4a(x)  # (N, 512, 14, 14)
        second = self.inception4d(self.inception4c(self.inception4b(first)))  # (N, 528, 14, 14)
        x = self.maxpool4(self.inception4e(second))  # (N, 832, 7, 7)
        return first, second, self.inception5b(self.inception5a(x))  # (N, 1024, 7, 7)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self._stages(x)[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.fc(pooled)

    def forward_aux(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores, and those of the two auxiliary heads; an empty list if it was built without them."""
        self.check_batch(x)
        first, second, features = self._stages(x)
        has_heads = self.aux_logits and self.num_classes
        return self.forward_head(features), [self.aux1(first), self.aux2(second)] if has_heads else []

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh classifiers for another number of classes, the auxiliary ones too; 0 takes them away."""
        super().reset_classifier(num_classes)
        for name, head in zip(("aux1", "aux2"), self._auxiliaries(num_classes), strict=True):
            self.replace(name, head)


def response_norm(norm: str) -> nn.Module:
    """Local response normalisation where the net has it, as in the Caffe files."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) if norm == "lrn" else nn.Identity()
