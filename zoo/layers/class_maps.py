"""Lin, Chen, Yan 2013, Network in network, section 3.2: a map for each class, whose mean is its score."""

from torch import nn


class ClassMaps(nn.Conv2d):
    """A 1×1 convolution that a ReLU follows, a type of its own because it starts otherwise than the rest.

    A family's `init` gives it biases of one where the papers have zero: a class whose map is negative everywhere has no
    gradient to come back by, and with few images to a step several classes end so before the others have learnt.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__(num_features, num_classes, 1)


def class_maps(num_features: int, num_classes: int) -> nn.Module:
    """The last layer: class maps, or nothing where num_classes is 0."""
    return ClassMaps(num_features, num_classes) if num_classes else nn.Identity()
