"""The sets by name. Each is a function of its own options → Sets; a new one is a new registered function."""

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.images import Arrays, Images
from zoo.data.selection import stratified
from zoo.data.streams import Files
from zoo.registry import Registry

DATASETS = Registry("data set")

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
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
    return _torchvision("SVHN", DIGITS, root, download, train={"split": "train"}, test={"split": "test"})


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


@DATASETS.register
def image_folder(
    *,
    root: str,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    squash: bool | None = None,
    channels: int = 3,
    test_fraction: float | None = None,
    split_seed: int = 0,
    workers: int = 2,
    on_error: str = "error",
) -> Sets:
    """A folder of class folders of images; or train/ and test/ (and val/) that each hold the same class folders.

    Without a test/ of its own, `test_fraction` of each class is held out: a fifth, or all of it for released weights.
    Of an image the shorter side becomes `resize` pixels (with `squash` both do) by `interpolation`, bilinear or
    bicubic; the size×size pixels at its centre are kept. None: what the weights expect that training starts from, else
    64 pixels, the whole shorter side, bilinear.
    Raises FileNotFoundError, or ValueError for a folder that gives no two classes.
    """
    if on_error not in ("error", "skip"):
        raise ValueError(f"data.on_error must be error or skip, not {on_error!r}")
    if channels not in (1, 3):
        raise ValueError(f"data.channels must be 1 or 3, not {channels}")
    top = Path(root).expanduser()
    if not top.is_dir():
        raise FileNotFoundError(f"no such image folder: data.root={root}")
    size, interpolation = size or 64, interpolation or "bilinear"
    if (resize or size) < size or interpolation not in ("bilinear", "bicubic"):
        told = f"data.size={size}, data.resize={resize}, data.interpolation={interpolation}"
        raise ValueError(f"{told}: resize is at least size, interpolation is bilinear or bicubic")
    how = {"resize": resize, "interpolation": interpolation, "squash": bool(squash)}
    options = {"size": size, "channels": channels, "workers": workers, "on_error": on_error, **how}
    if (top / "train").is_dir():
        return _parts(top, **options)
    everything, classes = _folder(top, **options)
    if test_fraction == 1:
        return Sets(everything.subset(torch.arange(0)), None, everything, classes)
    train, test = stratified(everything.labels, 0.2 if test_fraction is None else test_fraction, split_seed)
    return Sets(everything.subset(train), None, everything.subset(test), classes)


def _parts(top: Path, **options: Any) -> Sets:
    """train/ with val/ or test/ or both."""
    train, classes = _folder(top / "train", **options)
    parts = {}
    for part in "val", "test":
        if (top / part).is_dir():
            parts[part], found = _folder(top / part, **options)
            if found != classes:
                odd = sorted(set(found) ^ set(classes))
                raise ValueError(f"{top}: train and {part} have different class folders: {', '.join(odd[:5])}")
    if "test" not in parts:  # ImageNet's layout: what is called val is what errors are reported on
        if "val" not in parts:
            raise ValueError(f"{top} has train/ but neither test/ nor val/")
        parts = {"test": parts["val"]}
    return Sets(train, parts.get("val"), parts["test"], classes)


def _folder(folder: Path, **options: Any) -> tuple[Files, tuple[str, ...]]:
    endings = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise ValueError(f"{folder} is empty of class folders: expected <class>/*.jpg in it")
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in endings)
        if not found:
            raise ValueError(f"class folder {folder / name} holds no images ({', '.join(endings)})")
        paths += found
        labels += [label] * len(found)
    if len(classes) < 2:
        raise ValueError(f"{folder} has the single class {classes[0]!r}: there is nothing to tell apart")
    return Files(paths, torch.tensor(labels), **options), classes


def _torchvision(
    name: str,
    classes: tuple[str, ...] | None,
    root: str,
    download: bool,
    train: dict[str, Any] | None = None,
    test: dict[str, Any] | None = None,
) -> Sets:
    import torchvision

    builder = getattr(torchvision.datasets, name)
    folder = Path(root).expanduser()
    if not download and not folder.is_dir():
        raise FileNotFoundError(f"no such folder: data.root={root}; data.download=true fetches {name} into it")
    try:
        parts = [
            builder(folder, download=download, **options)
            for options in (train or {"train": True}, test or {"train": False})
        ]
    except (AssertionError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{name} in {folder.resolve()} is damaged ({error}): delete it and fetch it again") from error
    except (RuntimeError, OSError) as error:  # torchvision's own word, and urllib's errors
        if download:
            raise OSError(f"{name} could not be downloaded into {folder.resolve()}: {error}") from error
        raise FileNotFoundError(f"{name} is not in data.root={root}, and data.download=false: {error}") from error
    return Sets(_arrays(parts[0]), None, _arrays(parts[1]), classes or tuple(parts[0].classes))


def _arrays(dataset: Any) -> Arrays:
    images = torch.as_tensor(np.asarray(dataset.data))
    labels = torch.as_tensor(np.asarray(getattr(dataset, "targets", getattr(dataset, "labels", None))))
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3 and images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    return Arrays(images.contiguous(), labels.long())
