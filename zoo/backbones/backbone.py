"""What every backbone promises, whatever its family."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zoo.sources import Preprocess


def linear_classifier(num_features: int, num_classes: int) -> nn.Module:
    """The last layer: linear, or nothing where num_classes is 0."""
    return nn.Linear(num_features, num_classes) if num_classes else nn.Identity()


def check_count(name: str, value: object, *, least: int) -> None:
    """Raises ValueError, with the option's name, unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


class Backbone(nn.Module):
    """Images (N, in_chans, H, W), normalised as the weights expect → scores (N, num_classes), in every mode.

    A family sets `num_classes` (0: no classifier, `forward` gives pooled features), `num_features` (width of what the
    classifier reads), `in_chans` and `image_size` (the side that it was published for, or is bound to), and writes
    `forward_features` and `forward_head`. One with auxiliary heads also writes `forward_aux(x)` → scores and a list of
    auxiliary scores, each (N, num_classes).
    """

    taps: tuple[str, ...] = ()  # the modules worth looking at, from shallow to deep
    classifier_name = "fc"  # dotted name of the layer whose outputs are the classes
    class_axis = 0  # of its weights
    make_classifier = staticmethod(linear_classifier)
    smallest = 1  # side of the smallest image that gives a score
    any_size = True  # False: `image_size` is fixed when it is built
    scores_are = "logits"  # or "lengths", of capsules
    criterion = "supervised"  # what criterion=auto stands for
    stem = ""  # "large" or "small", of a family that has both

    auxiliary_heads: tuple[str, ...] = ()  # modules beside the classifier whose outputs are classes
    built_as: Mapping[str, Any] = {}  # name and options, of one that create_model made
    preprocess: Preprocess | None = None  # what its weights were trained to see, if it has any

    num_classes: int
    num_features: int
    in_chans: int
    image_size: int

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of all modules whose outputs are classes."""
        return self.classifier_name, *self.auxiliary_heads

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return self.in_chans, self.image_size, self.image_size

    @staticmethod
    def init(module: nn.Module) -> None:
        """One module's initial parameters, as published. Where a family says nothing, torch's own stand."""

    def forward(self, x: Tensor) -> Tensor:
        self.check_batch(x)
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → the last feature maps, not yet pooled."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps → scores (N, num_classes), or with `pre_logits` what the classifier reads (N, num_features)."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh classifier for another number of classes; 0 takes it away. ValueError for what is no such number."""
        check_count("num_classes", num_classes, least=0)
        self.replace(self.classifier_name, self.make_classifier(self.num_features, num_classes))
        self.num_classes = num_classes

    def replace(self, name: str, new: nn.Module) -> None:
        """Puts a fresh module, initialised as the family does, where another was, in its mode, on its device."""
        like = next(self.parameters())
        new.apply(self.init).to(like.device, like.dtype)
        self.set_submodule(name, new.train(self.training))

    def choose_stem(self, stem: str, *, smallest: tuple[int, int]) -> bool:
        """Whether the stem is the small one, for images of 28 to 64 pixels, and not the published one.

        The small stem drops the first stride and the first pooling, or the family's equivalent; kernels and parameter
        names stay. smallest: the smallest side of an image for the large and the small one. ValueError for other words.
        """
        if stem not in ("large", "small"):
            raise ValueError(f"stem={stem!r} is not known: large is as published, small is for images up to 64 pixels")
        self.stem, small = stem, stem == "small"
        self.smallest = smallest[small]
        if small:
            self.image_size = 32
        return small

    def check_batch(self, x: Tensor) -> None:
        """Raises ValueError unless x is a batch of images that can be scored."""
        if x.ndim != 4:
            raise ValueError(f"{type(self).__name__} takes images (N, C, H, W), not a tensor of shape {tuple(x.shape)}")
        self.check_images(*x.shape[1:])

    def check_images(self, channels: int, height: int, width: int) -> None:
        """Raises ValueError if images of this shape cannot be scored, and says which can."""
        name = type(self).__name__
        if channels != self.in_chans:
            raise ValueError(f"{name} was built for in_chans={self.in_chans}, the images have {channels} channels")
        if not self.any_size and (height, width) != (self.image_size, self.image_size):
            size = f"image_size={self.image_size}"
            raise ValueError(f"{name} was built for {size}, the images are {height}×{width}")
        if min(height, width) < self.smallest:
            hint = "; stem=small takes smaller ones" if self.stem == "large" else ""
            least = f"{self.smallest}×{self.smallest}"
            raise ValueError(f"{name} needs images of at least {least}, not {height}×{width}{hint}")
