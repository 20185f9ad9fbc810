"""Jaderberg, Simonyan, Zisserman, Kavukcuoglu 2015, Spatial transformer networks, section 4.1 and appendix A.4.

Differs: the paper varies the width of the classifier from set to set to keep about 400 thousand parameters; here it is
fixed at 32 and 64 filters, 117 thousand parameters on 28×28. Any image of 28×28 and up can be given.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.spatial_transformer import SpatialTransformer


@BACKBONES.variants(stn_cnn={})
class STNCNN(Backbone):
    """An affine spatial transformer in front of a small CNN. `warp(x)` returns what the CNN is shown."""

    taps = ("relu1", "relu2")
    smallest = 28
    any_size = False

    def __init__(self, *, num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.check_images(*self.input_size)
        self.transformer = localised(in_chans, image_size)
        side = ((image_size - 8) // 2 - 6) // 2
        self.num_features = 64 * side * side
        self.conv1 = nn.Conv2d(in_chans, 32, 9)
        self.relu1 = nn.ReLU(inplace=True)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 64, 7)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool2 = nn.MaxPool2d(2)
        self.fc = linear_classifier(self.num_features, num_classes)

    def warp(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (N, C, H, W) → the transformed images, of the same shape, and θ (N, 2, 3)."""
        return self.transformer(x)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        x, _ = self.warp(x)
        x = self.pool1(self.relu1(self.conv1(x)))  # (N, 32, 10, 10)
        return self.pool2(self.relu2(self.conv2(x)))  # (N, 64, 2, 2)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        flat = features.flatten(1)
        return flat if pre_logits else self.fc(flat)


def localised(in_chans: int, image_size: int) -> SpatialTransformer:
    """The localisation net of ST-CNN: halve the image, two 5×5 convolutions of 20 filters, 20 hidden units."""
    side = (image_size // 2 - 4) // 2 - 4
    localisation = nn.Sequential(
        nn.MaxPool2d(2),
        nn.Conv2d(in_chans, 20, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 5),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(20 * side * side, 20),
        nn.ReLU(inplace=True),
    )
    return SpatialTransformer(localisation, num_features=20)
