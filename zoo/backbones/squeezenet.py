"""Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters.

Differs: images of 224 pixels and no padding at conv10, as torchvision, where the authors' files have 227 and 1: 819 and
not 861 million multiply-adds. The complex bypass has 1.59 million parameters, 6.4 MB, where the paper prints 7.7 MB.
Fire modules start as in torchvision, after He et al. 2015: by the authors' "xavier" each layer halves the variance, and
of a few thousand images such a net learns nothing. The biases of the class maps start at one. Parameter names are
torchvision's.
"""

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.layers.class_maps import ClassMaps, class_maps


class Fire(nn.Module):
    """A squeeze to few channels, expanded by 1×1 and 3×3 filters. bypass: "none", "identity" or "conv", added to it."""

    def __init__(self, in_planes: int, squeeze: int, expand1x1: int, expand3x3: int, bypass: str) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_planes, squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand1x1, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand3x3, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)
        self.bypass: nn.Module | None = None
        if bypass == "conv":
            self.bypass = nn.Conv2d(in_planes, expand1x1 + expand3x3, 1)
        elif bypass == "identity":
            self.bypass = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze_activation(self.squeeze(x))
        narrow = self.expand1x1_activation(self.expand1x1(squeezed))
        wide = self.expand3x3_activation(self.expand3x3(squeezed))
        out = torch.cat([narrow, wide], 1)
        return out if self.bypass is None else out + self.bypass(x)


@BACKBONES.variants(
    squeezenet1_0={},
    squeezenet1_1=dict(version="1.1"),
    squeezenet1_0_simple_bypass=dict(bypass="simple"),
    squeezenet1_0_complex_bypass=dict(bypass="complex"),
)
class SqueezeNet(Backbone):
    """Section 5.1's metaparameters: a fire module has 128, 128, 256, 256, 384, 384, 512, 512 filters that expand.

    version: "1.0", or "1.1", whose smaller stem and earlier poolings need 2.4 times fewer multiply-adds.
    squeeze_ratio: of the filters that squeeze to those that expand. share_3x3: of 3×3 filters among those that expand.
    bypass: "none"; "simple", identity around fire3, 5, 7 and 9; "complex", also 1×1 convolutions around the others.
    """

    classifier_name = "classifier.1"
    make_classifier = staticmethod(class_maps)
    image_size = 224
    num_features = 512

    def __init__(
        self,
        *,
        version: str = "1.0",
        squeeze_ratio: float = 0.125,
        share_3x3: float = 0.5,
        bypass: str = "none",
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        check_options(version, squeeze_ratio, share_3x3, bypass)
        small = self.choose_stem(stem, smallest=(21, 10) if version == "1.0" else (17, 6))
        self.num_classes, self.in_chans = num_classes, in_chans
        width, kernel, pooled = (96, 7, (4, 8)) if version == "1.0" else (64, 3, (3, 5))
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, width, kernel, 1 if small else 2),
            nn.ReLU(inplace=True),
            nn.Identity() if small else nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        taps = ["features.2"]
        for number in range(2, 10):  # fire2 to fire9
            expand = 128 * (number // 2)
            squeeze = max(round(expand * squeeze_ratio), 1)
            wide = min(max(round(expand * share_3x3), 1), expand - 1)
            around = {"none": "none", "simple": "identity", "complex": "identity"}[bypass]
            if number % 2 == 0:  # the channels change
                around = "conv" if bypass == "complex" else "none"
            self.features.append(Fire(width, squeeze, expand - wide, wide, around))
            width = expand
            if number in pooled:
                self.features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                taps.append(f"features.{len(self.features) - 1}")
        self.taps = (*taps, f"features.{len(self.features) - 1}")
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), class_maps(512, num_classes), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, ClassMaps):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.ones_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 512, 13, 13)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return self.classifier[0](features).mean((2, 3))
        return self.classifier(features).flatten(1)


def check_options(version: str, squeeze_ratio: float, share_3x3: float, bypass: str) -> None:
    for name, value, known in ("version", version, ("1.0", "1.1")), ("bypass", bypass, ("none", "simple", "complex")):
        if value not in known:
            raise ValueError(f"{name}={value!r} is not known: {', '.join(known)}")
    if not 0 < squeeze_ratio <= 1:
        raise ValueError(f"squeeze_ratio={squeeze_ratio} is not possible: it must be above 0 and at most 1")
    if not 0 < share_3x3 < 1:
        raise ValueError(f"share_3x3={share_3x3} is not possible: it must be above 0 and below 1")
