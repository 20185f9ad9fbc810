"""smallNORB: the published binary files → stereo pairs, cut by toy or by viewpoint.

LeCun, Huang, Bottou 2004, Learning methods for generic object recognition with invariance to pose and lighting:
24,300 + 24,300 stereo pairs of 96×96 grey pixels. 50 toys of 5 classes, seen from 9 elevations (30° to 70°, every 5°)
and 18 azimuths (0° to 340°, every 20°) under 6 lightings; toys 4, 6, 7, 8 and 9 of each class are for training.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.images import Arrays
from zoo.data.sets import DATASETS, Sets

TOYS = ("animal", "human", "airplane", "truck", "car")
FILES = {"train": "5x46789x9x18x6x2x96x96-training", "test": "5x01235x9x18x6x2x96x96-testing"}
SOURCE = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
KINDS = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}  # magic number → what the matrix is made of
SIDE = 96
FAMILIAR = {  # split → column of the info file, and its values that are trained on
    "azimuth": (2, (30, 32, 34, 0, 2, 4)),  # in tens of degrees
    "elevation": (1, (0, 1, 2)),  # 30, 35 and 40 degrees
}


@DATASETS.register
def smallnorb(*, root: str, size: int = 48, split: str = "instances", familiar: bool = False) -> Sets:
    """LeCun et al. 2004: 24,300 + 24,300 stereo pairs of toys of 5 classes, 2×size×size: left and right eye.

    Layout: the six files smallnorb-5x46789x9x18x6x2x96x96-training-{dat,cat,info}.mat and
    smallnorb-5x01235x9x18x6x2x96x96-testing-{dat,cat,info}.mat in `root`, as published or still with .gz.
    size: 96, or a part of it, each pixel the mean of a square: 48 in Hinton et al. 2018, Matrix capsules with EM
    routing, who then train on random 32×32 pixels and test on the middle ones.
    split: "instances", toys that were not trained on, from all viewpoints; or, as in their section on novel viewpoints,
    "azimuth", trained on azimuths 300, 320, 340, 0, 20 and 40 and tested on 60 to 280, or "elevation", trained on the 3
    lowest and tested on the 6 others. They train on a third of the training files and test on two thirds of the test
    files, so that toys are new too. familiar: to test on the other third, those viewpoints that were trained on; there
    they stop both nets at the same error, before they compare them on new viewpoints.
    Raises FileNotFoundError or ValueError that names the file or the option.
    """
    if split not in ("instances", *FAMILIAR):
        raise ValueError(f"data.split must be instances, azimuth or elevation, not {split!r}")
    if familiar and split == "instances":
        raise ValueError("data.familiar=true needs data.split=azimuth or elevation: else all viewpoints are trained on")
    if size < 1 or SIDE % size:
        raise ValueError(f"data.size={size} must divide {SIDE}: 96, 48, 32, 24 …")
    folder = Path(root).expanduser()
    train = _part(folder, "train", size, split, familiar=True)
    return Sets(train, None, _part(folder, "test", size, split, familiar), TOYS)


def _part(folder: Path, part: str, size: int, split: str, familiar: bool) -> Arrays:
    """The part's images from those viewpoints that are trained on, or from the others; all of them for instances."""
    files = {kind: _file(folder, f"smallnorb-{FILES[part]}-{kind}.mat") for kind in ("cat", "info", "dat")}
    labels = matrix(files["cat"], (None,))
    info = matrix(files["info"], (len(labels), 4))
    pairs = matrix(files["dat"], (len(labels), 2, SIDE, SIDE))
    if split in FAMILIAR:
        column, trained_on = FAMILIAR[split]
        kept = np.isin(info[:, column], trained_on) == familiar
        labels, pairs = labels[kept], pairs[kept]
    return Arrays(smaller(torch.from_numpy(pairs), size), torch.from_numpy(labels).long())


def smaller(images: Tensor, size: int) -> Tensor:
    """Each pixel the mean of a square, rounded; uint8 (N, C, H, W), some at a time: floats would take four times it."""
    block = images.shape[-1] // size
    if block == 1:
        return images
    return torch.cat([F.avg_pool2d(some.float(), block).round().to(torch.uint8) for some in images.split(1024)])


def _file(folder: Path, name: str) -> Path:
    for path in folder / name, folder / f"{name}.gz":
        if path.is_file():
            return path
    raise FileNotFoundError(f"data.root={folder} lacks {name}, with or without .gz: get the six files from {SOURCE}")


def matrix(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
    """A file's matrix: magic number, number of dimensions, their sizes, at least three, then the values.

    All are little-endian. Raises ValueError unless it has this shape, None for any, and is whole.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): get it from {SOURCE}") from error
    head = np.frombuffer(content[: min(28, len(content) // 4 * 4)], "<u4").tolist()
    if len(head) < 5 or head[0] not in KINDS:
        raise ValueError(f"{path} is not a matrix of smallNORB's: it starts with {content[:4].hex(' ') or 'nothing'}")
    sizes, kind = head[2 : 2 + head[1]], KINDS[head[0]]
    if len(sizes) != len(shape) or any(want not in (None, size) for want, size in zip(shape, sizes, strict=True)):
        raise ValueError(f"{path} has {'×'.join(map(str, sizes))} values, not {_told(shape)}")
    start = 8 + 4 * max(3, head[1])
    if len(content) != start + math.prod(sizes) * kind.itemsize:
        told = f"{len(content)} bytes instead of {start + math.prod(sizes) * kind.itemsize}"
        raise ValueError(f"{path} is cut off or damaged ({told}): get it from {SOURCE}")
    return np.frombuffer(bytearray(content), kind, offset=start).reshape(sizes)


def _told(shape: tuple[int | None, ...]) -> str:
    return "×".join("N" if size is None else str(size) for size in shape)
