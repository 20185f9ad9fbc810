"""Folders of class folders of images, one's own or ImageNet's."""

from collections.abc import Sequence
from pathlib import Path

import torch

from zoo.data.classes import wnids
from zoo.data.selection import stratified
from zoo.data.sets import DATASETS, Sets
from zoo.data.shown import How, image_files
from zoo.data.streams import Files

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@DATASETS.register
@image_files(size=64)
def image_folder(*, root: str, test_fraction: float | None = None, split_seed: int = 0, how: How) -> Sets:
    """A folder of class folders of images; or train/ and test/ (and val/) that each hold the same class folders.

    Without a test/ of its own, `test_fraction` of each class is held out: a fifth, or all of it for released weights.
    Of an image the shorter side becomes `resize` pixels (with `squash` both do) by `interpolation`, bilinear or
    bicubic; the size×size pixels at its centre are kept. None: what the weights expect that training starts from, else
    64 pixels, the whole shorter side, bilinear.
    Raises FileNotFoundError, or ValueError for a folder that gives no two classes.
    """
    top = there(root)
    if (top / "train").is_dir():
        return _parts(top, ("val", "test"), how)
    everything, classes = _folder(top, how)
    if test_fraction == 1:
        return Sets(everything.subset(torch.arange(0)), None, everything, classes)
    train, test = stratified(everything.labels, 0.2 if test_fraction is None else test_fraction, split_seed)
    return Sets(everything.subset(train), None, everything.subset(test), classes)


@DATASETS.register
@image_files(size=224, resize=256)
def imagenet(*, root: str, how: How) -> Sets:
    """Russakovsky et al. 2015, ILSVRC 2012: 1,281,167 + 50,000 photographs of 1000 classes; or of some of the classes.

    Layout: train/<WordNet id>/*.JPEG and val/<WordNet id>/*.JPEG in `root`. As papers have it, errors are reported on
    val/, and what is held out for validation is a share of train/. With val/ alone, weights can be measured.
    Options as image_folder has them; None: what the weights expect, else 224 pixels, of a shorter side of 256.
    Raises FileNotFoundError, or ValueError for class folders that are not those of ImageNet or differ between the two.
    """
    top = there(root)
    if (top / "train").is_dir():
        sets = _parts(top, ("val",), how)
    elif (top / "val").is_dir():
        everything, classes = _folder(top / "val", how)
        sets = Sets(everything.subset(torch.arange(0)), None, everything, classes)
    else:
        raise FileNotFoundError(f"data.root={root} has neither train/ nor val/, which hold <WordNet id>/*.JPEG")
    odd = sorted(set(sets.classes) - set(wnids()))
    if odd:
        raise ValueError(f"{top}: no class of ImageNet is {odd[0]!r}; data=image_folder takes folders of any name")
    return sets


def there(root: str) -> Path:
    """Raises FileNotFoundError."""
    top = Path(root).expanduser()
    if not top.is_dir():
        raise FileNotFoundError(f"no such image folder: data.root={root}")
    return top


def _parts(top: Path, names: Sequence[str], how: How) -> Sets:
    """train/ with val/ or test/ or both, whichever of `names` are there."""
    train, classes = _folder(top / "train", how)
    parts = {part: _folder(top / part, how, classes)[0] for part in names if (top / part).is_dir()}
    if "test" not in parts:  # ImageNet's layout: what is called val is what errors are reported on
        if "val" not in parts:
            raise ValueError(f"{top} has train/ but neither test/ nor val/")
        parts = {"test": parts["val"]}
    return Sets(train, parts.get("val"), parts["test"], classes)


def _folder(folder: Path, how: How, known: tuple[str, ...] = ()) -> tuple[Files, tuple[str, ...]]:
    """known: the classes of train/, if this is another part."""
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise ValueError(f"{folder} is empty of class folders: expected <class>/*.jpg in it")
    odd = sorted(set(classes) ^ set(known or classes))
    if odd:
        raise ValueError(f"{folder.parent}: train and {folder.name} have different class folders: {', '.join(odd[:5])}")
    if len(classes) < 2:
        raise ValueError(f"{folder} has the single class {classes[0]!r}: there is nothing to tell apart")
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in ENDINGS)
        if not found:
            raise ValueError(f"class folder {folder / name} holds no images ({', '.join(ENDINGS)})")
        paths += found
        labels += [label] * len(found)
    return Files(paths, torch.tensor(labels), **how), classes
