"""Sets of photographs whose publishers list which file is of which class and part."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from zoo.data.fetched import fetched
from zoo.data.sets import DATASETS, Sets
from zoo.data.shown import How, image_files
from zoo.data.streams import Files

Row = tuple[Path, str, int]  # an image file, its class, the class's number from 1


@DATASETS.register
@image_files(size=224, resize=256)
def oxford_pets(*, root: str = "data", download: bool = True, how: How) -> Sets:
    """Parkhi et al. 2012, Oxford-IIIT Pet: 3680 + 3669 photographs of 37 breeds of cats and dogs.

    Layout: oxford-iiit-pet/images/*.jpg and annotations/{trainval,test}.txt, as torchvision fetches it into `root`.
    How photographs are shown: as imagenet has it.
    """
    fetched("OxfordIIITPet", root, download, [{"split": "trainval"}, {"split": "test"}])
    top = Path(root).expanduser() / "oxford-iiit-pet"

    def rows(part: str) -> list[Row]:
        return [
            (top / "images" / f"{image}.jpg", image.rpartition("_")[0].replace("_", " ").title(), int(number))
            for image, number, *_ in _table(top / "annotations" / f"{part}.txt", r"(\S+_\d+) (\d+)( \d+)*")
        ]

    return listed(top, {"train": rows("trainval"), "test": rows("test")}, how)


@DATASETS.register
@image_files(size=224, resize=256)
def flowers102(*, root: str = "data", download: bool = True, how: How) -> Sets:
    """Nilsback, Zisserman 2008, Oxford 102 flowers: 1020 training, 1020 validation and 6149 test photographs.

    Layout: flowers-102/jpg/*.jpg, setid.mat and imagelabels.mat, as torchvision fetches it into `root`. Results on it
    are often those of nets trained on both training and validation part. How photographs are shown: as imagenet has it.
    """
    names = fetched("Flowers102", root, download, [{"split": "train"}])[0].classes
    top = Path(root).expanduser() / "flowers-102"
    (numbers,) = _mat(top / "imagelabels.mat", "labels")

    def rows(part: str) -> list[Row]:
        (images,) = _mat(top / "setid.mat", part)
        return [(top / "jpg" / f"image_{i:05d}.jpg", names[numbers[i - 1] - 1], int(numbers[i - 1])) for i in images]

    return listed(top, {"train": rows("trnid"), "val": rows("valid"), "test": rows("tstid")}, how)


@DATASETS.register
@image_files(size=224, resize=256)
def stanford_dogs(*, root: str, how: How) -> Sets:
    """Khosla et al. 2011, Stanford Dogs: 12,000 + 8580 photographs of 120 breeds.

    Layout: Images/<n02085620-Chihuahua>/*.jpg, and train_list.mat and test_list.mat in `root` or its lists/. They come
    from ImageNet: weights that were trained there may have seen the test images. MobileNet (Howard et al. 2017,
    Table 10) was trained on pictures from the web first. How photographs are shown: as imagenet has it.
    """
    top = Path(root).expanduser()
    lists = top / "lists" if (top / "lists").is_dir() else top
    _all_there(
        (top / "Images", lists / "train_list.mat", lists / "test_list.mat"),
        "unpack images.tar and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ into data.root",
    )

    def rows(part: str) -> list[Row]:
        return [
            (top / "Images" / file, file.partition("/")[0].partition("-")[2].replace("_", " "), int(number))
            for file, number in zip(*_mat(lists / f"{part}_list.mat", "file_list", "labels"), strict=True)
        ]

    return listed(lists, {"train": rows("train"), "test": rows("test")}, how)


@DATASETS.register
@image_files(size=224, resize=256)
def cub200(*, root: str, how: How) -> Sets:
    """Wah et al. 2011, Caltech-UCSD Birds-200-2011: 5994 + 5794 photographs of 200 kinds of birds, not cut to the bird.

    Layout: images/<001.Black_footed_Albatross>/*.jpg, images.txt and train_test_split.txt, in `root` or its
    CUB_200_2011/. Weights that were trained on ImageNet may have seen some of the test images. How photographs are
    shown: as imagenet has it.
    """
    top = Path(root).expanduser()
    top = top / "CUB_200_2011" if (top / "CUB_200_2011").is_dir() else top
    _all_there(
        (top / "images", top / "images.txt", top / "train_test_split.txt"),
        "unpack CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ into data.root",
    )
    trains = dict(_table(top / "train_test_split.txt", r"(\d+) ([01])"))
    parts: dict[str, list[Row]] = {"train": [], "test": []}
    for image, file, number, name in _table(top / "images.txt", r"(\d+) ((\d+)\.([^/]+)/.+)"):
        if image not in trains:
            raise ValueError(f"{top / 'train_test_split.txt'} lacks image {image} of images.txt")
        row = (top / "images" / file, name.replace("_", " "), int(number))
        parts["train" if trains[image] == "1" else "test"].append(row)
    return listed(top, parts, how)


def listed(source: Path, parts: Mapping[str, Sequence[Row]], how: How) -> Sets:
    """Raises ValueError if the classes' numbers are not 1…K, or an image is missing, unless on_error is "skip"."""
    named = sorted({(number, name) for rows in parts.values() for _, name, number in rows})
    if [number for number, _ in named] != list(range(1, len(named) + 1)):
        told = ", ".join(f"{number} {name}" for number, name in named[:3])
        raise ValueError(f"{source} numbers its classes {told} …; they must be 1 to K, each with one name")
    paths = [path for rows in parts.values() for path, _, _ in rows]
    lost = [path for path in paths if not path.is_file()] if how["on_error"] == "error" else []
    if lost:
        told = f"{len(lost)} of {len(paths)} images are not there, such as {lost[0]}"
        raise ValueError(f"{told}; data.on_error=skip leaves such files out")
    files = {
        part: Files(
            [path for path, _, _ in rows], torch.tensor([number - 1 for *_, number in rows], dtype=torch.long), **how
        )
        for part, rows in parts.items()
    }
    return Sets(files["train"], files.get("val"), files["test"], tuple(name for _, name in named))


def _all_there(paths: Sequence[Path], advice: str) -> None:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: {advice}")


def _table(path: Path, line: str) -> list[tuple[str, ...]]:
    """What the groups of a regular expression find in each line. ValueError names the first line that is otherwise."""
    found = []
    for i, text in enumerate(path.read_text().splitlines(), 1):
        match = re.fullmatch(line, text.strip())
        if not match:
            raise ValueError(f"{path} is damaged or not the published file: line {i} is {text[:80]!r}")
        found.append(match.groups())
    return found


def _mat(path: Path, *keys: str) -> list[np.ndarray]:
    """Vectors of one length from a MATLAB file. ValueError if it is not one, or has not the keys."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True)
        vectors = [np.atleast_1d(content[key]) for key in keys]
    except Exception as error:  # a reader of arbitrary bytes fails in arbitrary ways
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{path} is damaged or not the published file ({told})") from error
    if len({vector.shape for vector in vectors}) > 1:
        raise ValueError(f"{path} is damaged: {' and '.join(keys)} are not of one length")
    return vectors
