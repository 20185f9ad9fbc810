"""The sets by name. Each is a function of its own options → Sets; a new one is a new registered function."""

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.fetched import fetched
from zoo.data.images import Arrays, Images
from zoo.data.selection import stratified
from zoo.registry import Registry

DATASETS = Registry("data set")

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MERGED = (*DIGITS, *string.ascii_uppercase, *"abdefghnqrt")
EMNIST = {
    "balanced": MERGED,
    "byclass": (*DIGITS, *string.ascii_uppercase, *string.ascii_lowercase),
    "bymerge": MERGED,
    "letters": tuple(string.ascii_uppercase),
    "digits": DIGITS,
    "mnist": DIGITS,
}
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass(frozen=True)
class Sets:
    """A named set's parts. `val` is None where the set has none of its own: then a share of `train` is held out."""

    train: Images
    val: Images | None
    test: Images
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, images in ("training", self.train), ("validation", self.val), ("test", self.test):
            if images is not None:
                check_labels(images.labels, len(self.classes), part)


def check_labels(labels: Tensor, num_classes: int, part: str) -> None:
    """ValueError that names the first image whose label is no class."""
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        i = wrong[0].item()
        raise ValueError(f"{part} image {i} has label {labels[i].item()}, the classes are 0 to {num_classes - 1}")


@DATASETS.register
def digits(*, size: int = 32) -> Sets:
    """UCI handwritten digits, as scikit-learn carries them: 1797 of 8×8, shown at size×size, 360 of them for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images[:, None], dtype=torch.float32) / 16
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    everything = Arrays((images * 255).round().to(torch.uint8), torch.tensor(bunch.target, dtype=torch.long))
    train, test = stratified(everything.labels, 360 / 1797, seed=0)  # the test set is the same for every seed
    return Sets(everything.subset(train), None, everything.subset(test), DIGITS)


@DATASETS.register
def mnist(*, root: str = "data", download: bool = True) -> Sets:
    """LeCun et al. 1998: 60,000 + 10,000 handwritten digits, 1×28×28."""
    return _torchvision("MNIST", DIGITS, root, download)


@DATASETS.register
def fashion_mnist(*, root: str = "data", download: bool = True) -> Sets:
    """Xiao et al. 2017: 60,000 + 10,000 articles of clothing, 1×28×28."""
    return _torchvision("FashionMNIST", CLOTHES, root, download)


@DATASETS.register
def kmnist(*, root: str = "data", download: bool = True) -> Sets:
    """Clanuwat et al. 2018: 60,000 + 10,000 cursive hiragana, 1×28×28."""
    return _torchvision("KMNIST", KUZUSHIJI, root, download)


@DATASETS.register
def emnist(*, root: str = "data", download: bool = True, split: str = "balanced") -> Sets:
    """Cohen et al. 2017: handwritten digits and letters as MNIST has them, 1×28×28, upright.

    split: "balanced" (47 classes; 112,800 + 18,800), "byclass" (62; 697,932 + 116,323) or "bymerge" (47, as many), of
    which the last two follow how often people write what; "letters" (26; 124,800 + 20,800), "digits" (10; 240,000 +
    40,000), "mnist" (10; 60,000 + 10,000). Where there are 47 or 26 classes, capitals and small letters that look
    alike, or all of them, are one class.
    """
    if split not in EMNIST:
        raise ValueError(f"data.split must be one of {', '.join(EMNIST)}, not {split!r}")
    chosen = [{"split": split, "train": train} for train in (True, False)]
    train, test = (_arrays(part) for part in fetched("EMNIST", root, download, chosen))
    first = 1 if split == "letters" else 0  # the file's number of the first class
    upright = [Arrays(part.images.mT.contiguous(), part.labels - first) for part in (train, test)]
    return Sets(upright[0], None, upright[1], EMNIST[split])


@DATASETS.register
def cifar10(*, root: str = "data", download: bool = True) -> Sets:
    """Krizhevsky 2009: 50,000 + 10,000 photographs of 10 classes, 3×32×32."""
    return _torchvision("CIFAR10", None, root, download)


@DATASETS.register
def cifar100(*, root: str = "data", download: bool = True) -> Sets:
    """Krizhevsky 2009: 50,000 + 10,000 photographs of 100 classes, 3×32×32."""
    return _torchvision("CIFAR100", None, root, download)


@DATASETS.register
def svhn(*, root: str = "data", download: bool = True) -> Sets:
    """Netzer et al. 2011, cropped digits: 73,257 + 26,032 house numbers, 3×32×32."""
    return _torchvision("SVHN", DIGITS, root, download, ({"split": "train"}, {"split": "test"}))


@DATASETS.register
def textures(*, size: int = 32, channels: int = 3, classes: int = 4, count: int = 512, noise: float = 0.1) -> Sets:
    """Synthetic and learnable: stripes, a class for each direction, with random phase, width and noise.

    `count` training images and a quarter as many test images, in equal shares, always the same.
    """
    if classes < 2 or count < 4 * classes:
        raise ValueError(f"textures need two classes and four images of each, not classes={classes}, count={count}")
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> Arrays:
        labels = torch.arange(n) % classes
        angle = labels * math.pi / classes
        period = size * (0.15 + 0.15 * torch.rand(n, generator=generator))
        phase = 2 * math.pi * torch.rand(n, generator=generator)
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        across = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
        wave = 0.5 + 0.4 * (2 * math.pi * across / period[:, None, None] + phase[:, None, None]).sin()
        images = wave[:, None] + noise * torch.randn(n, channels, size, size, generator=generator)
        return Arrays((images.clamp(0, 1) * 255).round().to(torch.uint8), labels)

    return Sets(draw(count), None, draw(count // 4), tuple(f"{180 * k / classes:g}°" for k in range(classes)))


def _torchvision(
    name: str,
    classes: tuple[str, ...] | None,
    root: str,
    download: bool,
    parts: tuple[Mapping[str, Any], Mapping[str, Any]] = ({"train": True}, {"train": False}),
) -> Sets:
    train, test = fetched(name, root, download, parts)
    return Sets(_arrays(train), None, _arrays(test), classes or tuple(train.classes))


def _arrays(dataset: Any) -> Arrays:
    images = torch.as_tensor(np.asarray(dataset.data))
    labels = torch.as_tensor(np.asarray(getattr(dataset, "targets", getattr(dataset, "labels", None))))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3 and images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    return Arrays(images.contiguous(), labels.long())
