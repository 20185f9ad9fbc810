"""The sets that torchvision knows, as its files have them."""

import string
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from test_data import draws
from torch import Tensor

from zoo.data import DATASETS, create_data

Make = Callable[..., Path]


def idx(array: Tensor) -> bytes:
    """A file in the form of MNIST's."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.byte().numpy().tobytes()


@pytest.fixture
def raw(tmp_path: Path) -> Make:
    """raw("MNIST") → the folder of its four files, with 100 random training and 30 test images in them."""

    def make(name: str) -> Path:
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for part, count in ("train", 100), ("t10k", 30):
            images = torch.randint(256, (count, 28, 28), generator=draws(count))
            (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(count) % 10))
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_files_in_the_form_of_mnist_are_read_from_the_folder_without_download(
    name: str, folder: str, raw: Make, tmp_path: Path
):
    raw(folder)
    data = create_data(name, root=str(tmp_path), download=False, batch_size=10)
    test = data.parts["test"]
    assert (data.in_chans, data.image_size, data.num_classes) == (1, 28, 10)
    assert torch.equal(test.images[:, 0], torch.randint(256, (30, 28, 28), generator=draws(30)).to(torch.uint8))
    assert torch.equal(test.labels, torch.arange(30) % 10)
    assert data.parts["train"].labels.bincount().tolist() == [9] * 10
    assert data.parts["val"].labels.bincount().tolist() == [1] * 10


def test_mnist_has_54000_6000_and_10000_images(shared: Path):
    data = create_data("mnist", root=str(shared / "data"), download=False)
    assert {part: len(source.labels) for part, source in data.parts.items()} == {
        "train": 54000,
        "val": 6000,
        "test": 10000,
    }
    assert (data.mean, data.std) == (pytest.approx([0.1307], abs=2e-4), pytest.approx([0.3081], abs=2e-4))


@pytest.mark.parametrize("root", [".", "nowhere"])
def test_a_folder_that_lacks_the_set_is_named_where_download_is_off(root: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=rf"data.root={tmp_path / root}\b.*data.download"):
        create_data("cifar10", root=str(tmp_path / root), download=False)


@pytest.mark.parametrize("left", [500, 2, 0])
@pytest.mark.parametrize("download", [False, True])
def test_a_raw_file_that_is_cut_off_is_damaged_and_not_absent(left: int, download: bool, raw: Make, tmp_path: Path):
    file = raw("MNIST") / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ValueError, match=f"^MNIST in {tmp_path} is damaged .*delete it and fetch it again$"):
        create_data("mnist", root=str(tmp_path), download=download)


def test_a_label_that_is_no_digit_is_told_with_its_image(raw: Make, tmp_path: Path):
    (raw("MNIST") / "t10k-labels-idx1-ubyte").write_bytes(idx(torch.arange(30) % 11))
    with pytest.raises(ValueError, match="test image 10 has label 10, the classes are 0 to 9"):
        create_data("mnist", root=str(tmp_path), download=False)


CLASSES = {  # of EMNIST; the number of the first in its files
    "balanced": (string.digits + string.ascii_uppercase + "abdefghnqrt", 0),
    "bymerge": (string.digits + string.ascii_uppercase + "abdefghnqrt", 0),
    "byclass": (string.digits + string.ascii_uppercase + string.ascii_lowercase, 0),
    "letters": (string.ascii_uppercase, 1),
    "digits": (string.digits, 0),
    "mnist": (string.digits, 0),
}


@pytest.mark.parametrize("split", CLASSES)
def test_emnist_is_upright_and_its_labels_count_its_classes_from_zero(split: str, tmp_path: Path):
    classes, first = CLASSES[split]
    upright = torch.randint(256, (len(classes), 28, 28), generator=draws()).byte()
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for part in "train", "test":  # the files hold images mirrored at the diagonal
        (folder / f"emnist-{split}-{part}-images-idx3-ubyte").write_bytes(idx(upright.mT.contiguous()))
        (folder / f"emnist-{split}-{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(len(classes)) + first))
    sets = DATASETS.build("emnist", root=str(tmp_path), split=split, download=False)
    assert "".join(sets.classes) == classes
    for part in sets.train, sets.test:
        assert torch.equal(part.images[:, 0], upright)
        assert torch.equal(part.labels, torch.arange(len(classes)))


def test_the_classes_of_emnist_are_torchvisions():
    known = torchvision.datasets.EMNIST.classes_split_dict
    assert known.keys() == CLASSES.keys()
    for split, (classes, first) in CLASSES.items():
        assert "".join(known[split][first:]).casefold() == classes.casefold()


def test_emnist_names_its_splits(tmp_path: Path):
    with pytest.raises(ValueError, match=r"data.split must be one of balanced, .*, mnist, not 'letter'"):
        DATASETS.build("emnist", root=str(tmp_path), split="letter")
