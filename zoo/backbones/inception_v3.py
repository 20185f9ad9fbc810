"""Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, Rethinking the Inception architecture for computer vision.

Differs: inception_v3 is the net that the authors released and torchvision has (42 layers as in Table 1, other widths in
the stem, 5×5 where Figure 5 has two 3×3); its parameter names are torchvision's. inception_v2 was never released: it is
our reading of Table 1 and Figures 5 to 7 and 10, with the released net's filter counts where the paper gives none, and
has 5.5 billion multiply-adds (5.9 with entry="3x3") where Table 3 speaks of 3.8 (4.8).
Auxiliary heads pool adaptively on maps that are too small for the paper's pooling.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.conv_bn_relu import ConvBNReLU
from zoo.layers.initial import truncated_normal_


class InceptionA(nn.Module):
    """On 35×35 maps. kernel: of the second branch, 5 in the released net; Figure 5 has a 3×3 there."""

    def __init__(self, in_planes: int, projected: int, kernel: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(in_planes, 64, 1)
        self.branch5x5_1 = ConvBNReLU(in_planes, 48, 1)
        self.branch5x5_2 = ConvBNReLU(48, 64, kernel, padding=kernel // 2)
        self.branch3x3dbl_1 = ConvBNReLU(in_planes, 64, 1)
        self.branch3x3dbl_2 = ConvBNReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBNReLU(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_planes, projected, 1)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), middle, double, self.branch_pool(self.pool(x))], 1)


class InceptionB(nn.Module):
    """Figure 10: 35×35 to 17×17 without a bottleneck, by convolutions and a pooling of stride 2 side by side."""

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBNReLU(in_planes, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBNReLU(in_planes, 64, 1)
        self.branch3x3dbl_2 = ConvBNReLU(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBNReLU(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, self.pool(x)], 1)


class InceptionC(nn.Module):
    """Figure 6 with n = 7, on 17×17 maps: n×n as 1×n and n×1."""

    def __init__(self, in_planes: int, width: int) -> None:
        super().__init__()
        row, column = dict(kernel=(1, 7), padding=(0, 3)), dict(kernel=(7, 1), padding=(3, 0))
        self.branch1x1 = ConvBNReLU(in_planes, 192, 1)
        self.branch7x7_1 = ConvBNReLU(in_planes, width, 1)
        self.branch7x7_2 = ConvBNReLU(width, width, **row)
        self.branch7x7_3 = ConvBNReLU(width, 192, **column)
        self.branch7x7dbl_1 = ConvBNReLU(in_planes, width, 1)
        self.branch7x7dbl_2 = ConvBNReLU(width, width, **column)
        self.branch7x7dbl_3 = ConvBNReLU(width, width, **row)
        self.branch7x7dbl_4 = ConvBNReLU(width, width, **column)
        self.branch7x7dbl_5 = ConvBNReLU(width, 192, **row)
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_planes, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(self.pool(x))], 1)


class InceptionD(nn.Module):
    """17×17 to 8×8."""

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBNReLU(in_planes, 192, 1)
        self.branch3x3_2 = ConvBNReLU(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBNReLU(in_planes, 192, 1)
        self.branch7x7x3_2 = ConvBNReLU(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvBNReLU(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvBNReLU(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), self.pool(x)], 1)


class InceptionE(nn.Module):
    """Figure 7, on 8×8 maps: 1×3 and 3×1 side by side, for more features where they are wanted."""

    def __init__(self, in_planes: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBNReLU(in_planes, 320, 1)
        self.branch3x3_1 = ConvBNReLU(in_planes, 384, 1)
        self.branch3x3_2a = ConvBNReLU(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvBNReLU(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvBNReLU(in_planes, 448, 1)
        self.branch3x3dbl_2 = ConvBNReLU(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvBNReLU(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvBNReLU(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(3, 1, padding=1)
        self.branch_pool = ConvBNReLU(in_planes, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(self.pool(x)),
            ],
            1,
        )


class ConvReLU(nn.Sequential):
    """Without batch norm."""

    def __init__(self, in_planes: int, planes: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, kernel)
        self.relu = nn.ReLU(inplace=True)


class Auxiliary(nn.Module):
    """On the last 17×17 maps. norm: batch norm in its fully connected layer, a 5×5 on 5×5 maps ("BN-auxiliary")."""

    def __init__(self, in_planes: int, num_classes: int, norm: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.shrink = nn.AdaptiveAvgPool2d(5)
        self.conv0 = ConvBNReLU(in_planes, 128, 1)
        self.conv1 = ConvBNReLU(128, 768, 5) if norm else ConvReLU(128, 768, 5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, 768, 17, 17)
        x = self.pool(x) if min(x.shape[2:]) >= 17 else self.shrink(x)
        x = self.conv1(self.conv0(x))  # (N, 768, 1, 1)
        return self.fc(x.mean((2, 3)))


POOL = None  # 3×3, stride 2
ENTRIES = {  # the layers before the first module: name → filters, kernel, stride, padding
    "released": {
        "Conv2d_1a_3x3": (32, 3, 2, 0),
        "Conv2d_2a_3x3": (32, 3, 1, 0),
        "Conv2d_2b_3x3": (64, 3, 1, 1),
        "maxpool1": POOL,
        "Conv2d_3b_1x1": (80, 1, 1, 0),
        "Conv2d_4a_3x3": (192, 3, 1, 0),
        "maxpool2": POOL,
    },
    "3x3": {  # Table 1
        "conv1a": (32, 3, 2, 0),
        "conv1b": (32, 3, 1, 0),
        "conv1c": (64, 3, 1, 1),
        "maxpool1": POOL,
        "conv2": (80, 3, 1, 0),
        "conv3": (192, 3, 2, 0),
        "conv4": (288, 3, 1, 1),
    },
    "7x7": {  # the one convolution that Table 1's first three factorise
        "conv1": (64, 7, 2, 3),
        "maxpool1": POOL,
        "conv2": (80, 3, 1, 0),
        "conv3": (192, 3, 2, 0),
        "conv4": (288, 3, 1, 1),
    },
}


@BACKBONES.variants(
    inception_v2=dict(entry="7x7", kernel=3, aux_norm=False),
    inception_v3=dict(entry="released", kernel=5, aux_norm=True),
)
class InceptionV3(Backbone):
    """entry: the layers before the first module, "released", "3x3" or "7x7". kernel: 5, or 3 as in Figure 5.

    aux_logits: whether it has the auxiliary head, which `forward_aux` scores too. aux_norm: whether that head has batch
    norm in its fully connected layer. Of the strides before the first module the small stem keeps the last.
    """

    taps = ("Mixed_5d", "Mixed_6e", "Mixed_7c")
    image_size = 299
    num_features = 2048
    criterion = "auxiliary"
    auxiliary_heads = ("AuxLogits",)

    def __init__(
        self,
        *,
        entry: str,
        kernel: int,
        aux_norm: bool,
        aux_logits: bool = True,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if entry not in ENTRIES:
            raise ValueError(f"entry={entry!r} is not known: {', '.join(ENTRIES)}")
        small = self.choose_stem(stem, smallest=(69, 17) if entry == "7x7" else (75, 21))
        self.num_classes, self.in_chans, self.entry = num_classes, in_chans, entry
        self.aux_logits, self.aux_norm = aux_logits, aux_norm
        width, first = in_chans, True
        for name, layer in ENTRIES[entry].items():
            if layer is POOL:
                self.add_module(name, nn.Identity() if small and name == "maxpool1" else nn.MaxPool2d(3, 2))
                continue
            planes, size, stride, padding = layer
            self.add_module(name, ConvBNReLU(width, planes, size, 1 if small and first else stride, padding))
            width, first = planes, False
        if entry == "released":
            self.Mixed_5b = InceptionA(192, 32, kernel)
            self.Mixed_5c = InceptionA(256, 64, kernel)
        else:
            self.Mixed_5b = InceptionA(288, 64, kernel)
            self.Mixed_5c = InceptionA(288, 64, kernel)
        self.Mixed_5d = InceptionA(288, 64, kernel)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = self._auxiliary(num_classes)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.dropout = nn.Dropout(dropout)
        self.fc = linear_classifier(2048, num_classes)
        self.apply(self.init)

    def _auxiliary(self, num_classes: int) -> nn.Module:
        return Auxiliary(768, num_classes, self.aux_norm) if num_classes and self.aux_logits else nn.Identity()

    @staticmethod
    def init(module: nn.Module) -> None:  # as the authors' code
        if isinstance(module, nn.Conv2d | nn.Linear):
            truncated_normal_(module.weight, 0.1)
        elif isinstance(module, Auxiliary):  # comes after its layers
            truncated_normal_(module.conv1.conv.weight, 0.01)
            truncated_normal_(module.fc.weight, 0.001)

    def _stages(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The maps that the auxiliary head and the classifier read."""
        for name in ENTRIES[self.entry]:
            x = self.get_submodule(name)(x)  # at the end (N, 192 or 288, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (N, 288, 35, 35)
        x = self.Mixed_6a(x)  # (N, 768, 17, 17)
        middle = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7a(middle)  # (N, 1280, 8, 8)
        return middle, self.Mixed_7c(self.Mixed_7b(x))  # (N, 2048, 8, 8)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 299, 299)
        return self._stages(x)[-1]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = self.dropout(features.mean((2, 3)))
        return pooled if pre_logits else self.fc(pooled)

    def forward_aux(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores, and those of the auxiliary head; an empty list if it was built without one."""
        self.check_batch(x)
        middle, features = self._stages(x)
        return self.forward_head(features), [self.AuxLogits(middle)] if self.aux_logits and self.num_classes else []

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh classifiers for another number of classes, the auxiliary one too; 0 takes them away."""
        super().reset_classifier(num_classes)
        self.replace("AuxLogits", self._auxiliary(num_classes))
