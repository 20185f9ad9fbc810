"""Simonyan, Zisserman 2014, Very deep convolutional networks for large-scale image recognition, Table 1.

Differs: the `_bn` nets are torchvision's, not the paper's, and keep the convolutions' biases beside batch norm; the
fully connected layers read a map pooled to 7×7, whatever the image's size; weights start as He et al. 2015 draw them,
the paper starts its deeper nets from a trained net A. Parameter names are torchvision's.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES

WIDTHS = (64, 128, 256, 512, 512)


@BACKBONES.variants(  # Table 1's columns: the 3×3 convolutions before each pooling
    vgg11=dict(depths=(1, 1, 2, 2, 2)),  # A
    vgg11_lrn=dict(depths=(1, 1, 2, 2, 2), norm="lrn"),  # A-LRN
    vgg13=dict(depths=(2, 2, 2, 2, 2)),  # B
    vgg16_c=dict(depths=(2, 2, 3, 3, 3), last_kernel=1),  # C
    vgg16=dict(depths=(2, 2, 3, 3, 3)),  # D
    vgg19=dict(depths=(2, 2, 4, 4, 4)),  # E
    vgg11_bn=dict(depths=(1, 1, 2, 2, 2), norm="batch"),
    vgg13_bn=dict(depths=(2, 2, 2, 2, 2), norm="batch"),
    vgg16_bn=dict(depths=(2, 2, 3, 3, 3), norm="batch"),
    vgg19_bn=dict(depths=(2, 2, 4, 4, 4), norm="batch"),
)
class VGG(Backbone):
    """norm: "none", "batch", or "lrn" after the first convolution. last_kernel: of a third convolution in a stage.

    The small stem leaves out the first pooling and pools globally before the fully connected layers.
    """

    classifier_name = "classifier.6"
    image_size = 224
    num_features = 4096

    def __init__(
        self,
        *,
        depths: tuple[int, int, int, int, int],
        norm: str = "none",
        last_kernel: int = 3,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if norm not in ("none", "batch", "lrn"):
            raise ValueError(f"norm={norm!r} is not known: none, batch, lrn")
        if len(depths) != 5 or min(depths) < 1 or last_kernel not in (1, 3):
            raise ValueError(f"depths={depths}, last_kernel={last_kernel}: five stages, all from 1, a kernel of 1 or 3")
        small = self.choose_stem(stem, smallest=(32, 16))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.features, poolings = nn.Sequential(), []
        for width, depth in zip(WIDTHS, depths, strict=True):
            for i in range(depth):
                self.features.extend(convolution(in_chans, width, last_kernel if i == 2 else 3, norm))
                in_chans, norm = width, "none" if norm == "lrn" else norm
            poolings.append(f"features.{len(self.features)}")
            self.features.append(nn.Identity() if small and len(poolings) == 1 else nn.MaxPool2d(2, 2))
        self.taps = tuple(poolings)
        side = 1 if small else 7
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(512 * side * side, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            linear_classifier(4096, num_classes),
        )
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):  # section 3.1
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 512, 7, 7)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        *hidden, last = self.classifier
        x = self.avgpool(features).flatten(1)
        for layer in hidden:
            x = layer(x)
        return x if pre_logits else last(x)


def convolution(in_planes: int, planes: int, kernel: int, norm: str) -> Iterator[nn.Module]:
    yield nn.Conv2d(in_planes, planes, kernel, padding=kernel // 2)
    if norm == "batch":
        yield nn.BatchNorm2d(planes)
    yield nn.ReLU(inplace=True)
    if norm == "lrn":
        yield nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # Krizhevsky et al. 2012; torch divides α by 5
