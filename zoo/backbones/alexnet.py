"""Krizhevsky, Sutskever, Hinton 2012, ImageNet classification with deep convolutional neural networks (alexnet_2012).
Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, footnote 1 (alexnet).

Differs: alexnet_2012 has two groups on one device where the paper has two GPUs, and takes the 227 pixels that its
arithmetic asks for where the text has 224. alexnet pools to 6×6 whatever the image's size and starts from torch's own
initialisation: it is torchvision's net, whose parameter names it has.
"""

from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES


@BACKBONES.variants(alexnet={})
class AlexNet(Backbone):
    """The small stem has no stride and no first pooling, and pools globally before the fully connected layers."""

    taps = ("features.2", "features.5", "features.12")
    classifier_name = "classifier.6"
    image_size = 224
    num_features = 4096

    def __init__(
        self, *, dropout: float = 0.5, num_classes: int = 1000, in_chans: int = 3, stem: str = "large"
    ) -> None:
        super().__init__()
        small = self.choose_stem(stem, smallest=(63, 13))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.features = nn.Sequential(
            nn.Conv2d(in_chans, 64, 11, 1 if small else 4, padding=2),  # (N, 64, 55, 55)
            nn.ReLU(inplace=True),
            nn.Identity() if small else nn.MaxPool2d(3, 2),  # (N, 64, 27, 27)
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),  # (N, 192, 13, 13)
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),  # (N, 256, 6, 6)
        )
        side = 1 if small else 6
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * side * side, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            linear_classifier(4096, num_classes),
        )

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 224, 224)
        return self.features(x)  # (N, 256, 6, 6)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        *hidden, last = self.classifier
        x = self.avgpool(features).flatten(1)
        for layer in hidden:
            x = layer(x)
        return x if pre_logits else last(x)


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: x / (2 + 1e-4 · the sum of squares over 5 channels)^0.75. Torch averages them: hence 5 times α."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


@BACKBONES.variants(alexnet_2012={})
class AlexNet2012(Backbone):
    """The small stem has no stride and no first pooling, and pools globally before the fully connected layers."""

    taps = ("pool1", "pool2", "pool5")
    classifier_name = "fc8"
    image_size = 227
    num_features = 4096

    def __init__(
        self, *, dropout: float = 0.5, num_classes: int = 1000, in_chans: int = 3, stem: str = "large"
    ) -> None:
        super().__init__()
        small = self.choose_stem(stem, smallest=(67, 17))
        self.num_classes, self.in_chans = num_classes, in_chans
        self.conv1 = nn.Conv2d(in_chans, 96, 11, 1 if small else 4)
        self.relu1 = nn.ReLU(inplace=True)
        self.norm1 = response_norm()
        self.pool1 = nn.Identity() if small else nn.MaxPool2d(3, 2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.relu2 = nn.ReLU(inplace=True)
        self.norm2 = response_norm()
        self.pool2 = nn.MaxPool2d(3, 2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.relu3 = nn.ReLU(inplace=True)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.relu4 = nn.ReLU(inplace=True)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.relu5 = nn.ReLU(inplace=True)
        self.pool5 = nn.MaxPool2d(3, 2)
        side = 1 if small else 6
        self.pool = nn.AdaptiveAvgPool2d(side)  # nothing to do at 227 pixels
        self.fc6 = nn.Linear(256 * side * side, 4096)
        self.relu6 = nn.ReLU(inplace=True)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.relu7 = nn.ReLU(inplace=True)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = linear_classifier(4096, num_classes)
        self.apply(self.init)
        for layer in self.conv2, self.conv4, self.conv5, self.fc6, self.fc7:
            nn.init.ones_(layer.bias)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):  # section 5
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 227, 227)
        x = self.pool1(self.norm1(self.relu1(self.conv1(x))))  # (N, 96, 27, 27)
        x = self.pool2(self.norm2(self.relu2(self.conv2(x))))  # (N, 256, 13, 13)
        x = self.relu3(self.conv3(x))  # (N, 384, 13, 13)
        x = self.relu4(self.conv4(x))
        return self.pool5(self.relu5(self.conv5(x)))  # (N, 256, 6, 6)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop6(self.relu6(self.fc6(self.pool(features).flatten(1))))
        x = self.drop7(self.relu7(self.fc7(x)))
        return x if pre_logits else self.fc8(x)
