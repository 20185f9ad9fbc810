"""Springenberg, Dosovitskiy, Brox, Riedmiller 2014, Striving for simplicity: the all convolutional net, Tables 1 and 2.

Differs: the published tables do not say how the last 3×3 convolution is padded; it is not, as in public
re-implementations, which leaves 6×6 maps of 32×32 images. The biases of the class maps start at one.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.layers.class_maps import ClassMaps, class_maps

# One tuple a convolution: kernel, filters, stride. Where the stride is 2 a convolution stands for a pooling.
A = ((5, 96, 1), (3, 96, 2), (5, 192, 1), (3, 192, 2))
B = ((5, 96, 1), (1, 96, 1), (3, 96, 2), (5, 192, 1), (1, 192, 1), (3, 192, 2))
C = ((3, 96, 1), (3, 96, 1), (3, 96, 2), (3, 192, 1), (3, 192, 1), (3, 192, 2))


@BACKBONES.variants(all_cnn_a=dict(layers=A), all_cnn_b=dict(layers=B), all_cnn_c=dict(layers=C))
class AllCNN(Backbone):
    """No pooling: convolutions of stride 2 do its work, and the scores are the means of the class maps."""

    classifier_name = "classifier"
    make_classifier = staticmethod(class_maps)
    smallest = 9
    image_size = 32
    num_features = 192

    def __init__(self, *, layers: tuple[tuple[int, int, int], ...], num_classes: int = 10, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.features, taps = nn.Sequential(nn.Dropout(0.2)), []
        for kernel, width, stride in layers:
            self.features.append(nn.Conv2d(in_chans, width, kernel, stride, padding=kernel // 2))
            self.features.append(nn.ReLU(inplace=True))
            in_chans = width
            if stride == 2:
                taps.append(f"features.{len(self.features) - 1}")
                self.features.append(nn.Dropout(0.5))
        self.features.extend([nn.Conv2d(192, 192, 3), nn.ReLU(inplace=True)])
        self.features.extend([nn.Conv2d(192, 192, 1), nn.ReLU(inplace=True)])
        self.taps = (*taps, f"features.{len(self.features) - 1}")
        self.classifier = class_maps(192, num_classes)
        self.relu = nn.ReLU(inplace=True)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.constant_(module.bias, 1.0 if isinstance(module, ClassMaps) else 0.0)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        return self.features(x)  # (N, 192, 6, 6)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return features.mean((2, 3))
        return self.relu(self.classifier(features)).mean((2, 3))
