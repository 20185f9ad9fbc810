"""He, Zhang, Ren, Sun 2015, Delving deep into rectifiers, Table 3: models A, B and C.

Differs: the table was recalled, not opened, when this was written; with these layers the multiply-adds of A, B and C
come to 1.91, 2.32 and 5.35·10¹⁰, the figures recalled are 1.90, 2.32 and 5.30. The pyramid's bins are torch's adaptive
ones. The fully connected layers start by the rule of the convolutions. The authors train the slopes without weight
decay, which is the optimiser's affair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES

SLOPE = 0.25  # of every PReLU when training starts
PYRAMID = (7, 3, 2, 1)  # bins on a side: 63 in all


class SpatialPyramidPooling(nn.Module):
    """The maximum of each bin of each level, whatever the maps' size: (N, C, H, W) → (N, 63 C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, side).flatten(1) for side in PYRAMID], 1)


def stage(in_planes: int, planes: int, depth: int) -> nn.Sequential:
    layers = nn.Sequential()
    for _ in range(depth):
        layers.extend([nn.Conv2d(in_planes, planes, 3, padding=1), nn.PReLU(planes, SLOPE)])
        in_planes = planes
    return layers


@BACKBONES.variants(
    prelunet_a=dict(widths=(256, 512, 512), depth=5),
    prelunet_b=dict(widths=(256, 512, 512), depth=6),
    prelunet_c=dict(widths=(384, 768, 896), depth=6),
)
class PReLUNet(Backbone):
    """widths: of the three stages. depth: 3×3 convolutions of each. A slope is learnt for each channel.

    Any image size has the same classifier: the pyramid gives 63 bins.
    """

    taps = ("stage1", "stage2", "stage3")
    classifier_name = "fc3"
    image_size = 224
    num_features = 4096

    def __init__(
        self,
        *,
        widths: tuple[int, int, int],
        depth: int,
        dropout: float = 0.5,
        num_classes: int = 1000,
        in_chans: int = 3,
        stem: str = "large",
    ) -> None:
        super().__init__()
        if len(widths) != 3 or min(*widths, depth) < 1:
            raise ValueError(f"widths={widths}, depth={depth}: three stages, all from 1")
        small = self.choose_stem(stem, smallest=(16, 4))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = nn.Conv2d(in_chans, 96, 7, 1 if small else 2, padding=3)
        self.prelu1 = nn.PReLU(96, SLOPE)
        self.pool1 = nn.Identity() if small else nn.MaxPool2d(2)
        self.stage1 = stage(96, widths[0], depth)
        self.pool2 = nn.MaxPool2d(2)
        self.stage2 = stage(widths[0], widths[1], depth)
        self.pool3 = nn.MaxPool2d(2)
        self.stage3 = stage(widths[1], widths[2], depth)
        self.spp = SpatialPyramidPooling()
        self.hidden = nn.Sequential(
            nn.Linear(widths[2] * sum(side * side for side in PYRAMID), 4096),
            nn.PReLU(4096, SLOPE),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.PReLU(4096, SLOPE),
            nn.Dropout(dropout),
        )
        self.fc3 = linear_classifier(4096, num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):  # equation 15: variance 2 / ((1 + a²) n), n the fan-in
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        x = self.prelu1(self.conv1(x))  # (N, 96, 112, 112)
        x = self.stage1(self.pool1(x))  # (N, 256, 56, 56)
        x = self.stage2(self.pool2(x))  # (N, 512, 28, 28)
        return self.stage3(self.pool3(x))  # (N, 512, 14, 14)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.hidden(self.spp(features))  # (N, 4096)
        return x if pre_logits else self.fc3(x)
