"""smallNORB's binary files, written here as they are published, but with few toys."""

import gzip
import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data import DATASETS, create_data
from zoo.data.norb import matrix

NAMES = {"train": "smallnorb-5x46789x9x18x6x2x96x96-training", "test": "smallnorb-5x01235x9x18x6x2x96x96-testing"}
BYTES, INTEGERS, FLOATS = 0x1E3D4C55, 0x1E3D4C54, 0x1E3D4C51  # magic numbers
VIEWS = list(itertools.product(range(9), range(0, 36, 2)))  # elevation, azimuth


def written(path: Path, magic: int, array: np.ndarray) -> None:
    """A matrix: magic number, number of dimensions, at least three sizes, values; all little-endian."""
    sizes = [*array.shape, *[1] * (3 - array.ndim)]
    head = struct.pack(f"<II{len(sizes)}I", magic, array.ndim, *sizes)
    path.write_bytes(head + array.astype("u1" if magic == BYTES else "<i4").tobytes())


@pytest.fixture(scope="module")
def norb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six files with one toy and lighting, from each viewpoint; classes take turns.

    A pair's left image has the elevation's number plus 100 for pixels, the right image the azimuth's; test images 10
    more.
    """
    folder = tmp_path_factory.mktemp("norb")
    for more, name in enumerate(NAMES.values()):
        info = np.array([(4 - 4 * more, elevation, azimuth, 0) for elevation, azimuth in VIEWS])
        pairs = (info[:, 1:3] + [100, 0] + 10 * more)[:, :, None, None].repeat(96, 2).repeat(96, 3)
        written(folder / f"{name}-dat.mat", BYTES, pairs)
        written(folder / f"{name}-cat.mat", INTEGERS, np.arange(len(VIEWS)) % 5)
        written(folder / f"{name}-info.mat", INTEGERS, info)
    return folder


@pytest.fixture
def copied(norb: Path, tmp_path: Path) -> Path:
    """The files, to be damaged: links to those, which are replaced and not written to."""
    for file in norb.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def views(images: torch.Tensor, more: int) -> list[tuple[int, int]]:
    """Elevation and azimuth in tens of degrees, as the pixels have them."""
    assert (images == images[:, :, :1, :1]).all()
    return [(left - 100 - more, right - more) for left, right in images[:, :, 0, 0].tolist()]


def test_the_published_parts_are_stereo_pairs_with_their_classes(norb: Path):
    sets = DATASETS.build("smallnorb", root=str(norb))
    assert sets.classes == ("animal", "human", "airplane", "truck", "car")
    assert sets.train.shape == sets.test.shape == (2, 48, 48)
    assert views(sets.train.images, 0) == views(sets.test.images, 10) == VIEWS
    assert torch.equal(sets.train.labels, torch.arange(162) % 5)
    data = create_data("smallnorb", root=str(norb), batch_size=16)
    assert (data.in_chans, data.image_size, data.num_classes) == (2, 48, 5)


NEAR = {  # what is trained on
    "azimuth": lambda elevation, azimuth: azimuth * 10 in (300, 320, 340, 0, 20, 40),
    "elevation": lambda elevation, azimuth: 30 + 5 * elevation in (30, 35, 40),
}


@pytest.mark.parametrize("split", NEAR)
@pytest.mark.parametrize("familiar", [False, True])
def test_new_viewpoints_are_those_that_were_not_trained_on_of_toys_that_were_not_either(
    split: str, familiar: bool, norb: Path
):
    sets = DATASETS.build("smallnorb", root=str(norb), split=split, familiar=familiar)
    assert views(sets.train.images, 0) == [view for view in VIEWS if NEAR[split](*view)]
    assert views(sets.test.images, 10) == [view for view in VIEWS if NEAR[split](*view) == familiar]
    assert len(sets.train.labels) == 162 // 3
    kept = torch.tensor([NEAR[split](*view) == familiar for view in VIEWS])
    assert torch.equal(sets.test.labels, (torch.arange(162) % 5)[kept])


@pytest.mark.parametrize("size", [96, 48, 32])
def test_a_pixel_of_a_smaller_image_is_the_mean_of_its_square(size: int, copied: Path):
    pairs = np.random.default_rng(0).integers(0, 256, (162, 2, 96, 96))
    path = copied / f"{NAMES['test']}-dat.mat"
    path.unlink()
    written(path, BYTES, pairs)
    block = 96 // size
    means = pairs.reshape(162, 2, size, block, size, block).mean((3, 5))
    shown = DATASETS.build("smallnorb", root=str(copied), size=size).test.images
    assert shown.dtype == torch.uint8
    torch.testing.assert_close(shown.double(), torch.from_numpy(means), rtol=0, atol=0.501)


def test_files_that_are_still_packed_are_the_same(norb: Path, tmp_path: Path):
    for file in norb.iterdir():
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    packed, plain = (DATASETS.build("smallnorb", root=str(root), size=24) for root in (tmp_path, norb))
    assert torch.equal(packed.train.images, plain.train.images)
    assert torch.equal(packed.test.labels, plain.test.labels)


WRONG = {
    "absent": (None, "lacks smallnorb-.*-training-{kind}.mat, with or without .gz: get the six files from https"),
    "empty": (lambda content: b"", "{kind}.mat is not a matrix .* it starts with nothing"),
    "a web page": (lambda content: b"<html>" + bytes(99), "{kind}.mat is not a matrix .* it starts with 3c 68 74 6d"),
    "in the other byte order": (lambda content: content[3::-1] + content[4:], "{kind}.mat is not a matrix"),
    "the header alone": (lambda content: content[:20], "training-{kind}.mat (is|has) "),
    "one byte short": (lambda content: content[:-1], "{kind}.mat is cut off or damaged .* bytes instead of"),
    "one byte too long": (lambda content: content + b"0", "{kind}.mat is cut off or damaged"),
}


@pytest.mark.parametrize("kind", ["dat", "cat", "info"])
@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_not_whole_is_named(kind: str, change: Callable[[bytes], bytes] | None, told: str, copied: Path):
    path = copied / f"{NAMES['train']}-{kind}.mat"
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    with pytest.raises((FileNotFoundError, ValueError), match=told.format(kind=kind)) as caught:
        DATASETS.build("smallnorb", root=str(copied))
    assert "\n" not in str(caught.value)


def test_a_packed_file_that_is_cut_off_is_named(copied: Path):
    path = copied / f"{NAMES['train']}-cat.mat"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    for damaged in packed[:-20], packed[:40] + bytes(8) + packed[48:], b"<html>":
        (copied / f"{path.name}.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"training-cat.mat.gz is damaged .*: get it from https"):
            DATASETS.build("smallnorb", root=str(copied))


@pytest.mark.parametrize(
    ("kind", "magic", "array", "told"),
    [
        ("dat", BYTES, np.zeros((161, 2, 96, 96)), "dat.mat has 161×2×96×96 values, not 162×2×96×96"),
        ("dat", BYTES, np.zeros((162, 96, 96)), "dat.mat has 162×96×96 values, not 162×2×96×96"),
        ("info", INTEGERS, np.zeros((162, 10)), "info.mat has 162×10 values, not 162×4"),
        ("cat", INTEGERS, np.zeros((162, 2)), "cat.mat has 162×2 values, not N"),
        ("cat", FLOATS, np.zeros(162), "cat.mat is not a matrix of smallNORB's: it starts with 51 4c 3d 1e"),
        ("cat", INTEGERS, np.full(162, 5), "training image 0 has label 5, the classes are 0 to 4"),
    ],
)
def test_a_file_of_something_else_is_named(kind: str, magic: int, array: np.ndarray, told: str, copied: Path):
    path = copied / f"{NAMES['train']}-{kind}.mat"
    path.unlink()
    written(path, magic, array)
    with pytest.raises(ValueError, match=told):
        DATASETS.build("smallnorb", root=str(copied))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split": "azimut"}, "data.split must be instances, azimuth or elevation, not 'azimut'"),
        ({"familiar": True}, "data.familiar=true needs data.split=azimuth or elevation"),
        ({"size": 28}, "data.size=28 must divide 96"),
    ],
)
def test_an_option_that_is_not_possible_is_named(options: dict, told: str, norb: Path):
    with pytest.raises(ValueError, match=told):
        DATASETS.build("smallnorb", root=str(norb), **options)


def test_values_are_read_in_the_order_and_byte_order_of_the_file(tmp_path: Path):
    values = np.array([[1, 2], [-3, 70_000], [5, 6]])
    written(tmp_path / "it.mat", INTEGERS, values)
    assert np.array_equal(matrix(tmp_path / "it.mat", (None, 2)), values)
