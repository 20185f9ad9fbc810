"""Sets that torchvision fetches are there whole or not at all, whatever fails on the way."""

import gzip
import hashlib
import io
import resource
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from test_sets import idx

from zoo.data import create_data
from zoo.data.fetched import ARCHIVES

OPTIONS = {"mnist": {}, "oxford_pets": {"size": 16, "workers": 0}}


def jpeg(side: int) -> bytes:
    """Noise: it takes more bytes than its neighbours where it has more pixels."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "jpeg")
    return file.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz of these."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, bytes]]:
    """Tiny archives of two sets, by their names as the servers have them. torchvision is told their checksums."""
    mnist = {}
    for part, count in ("train", 40), ("t10k", 20):  # labels are small, images are not
        mnist[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(torch.arange(count) % 10))
        mnist[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(torch.zeros(count, 28, 28)))
    names = [f"{breed}_{i}" for breed in ("Abyssinian", "pug") for i in range(8)]
    lists = "".join(f"{name} {1 + i // 8} 1 1\n" for i, name in enumerate(names)).encode()
    pets = {
        "images.tar.gz": packed({f"images/{name}.jpg": jpeg(20 + 20 * i) for i, name in enumerate(names)}),
        "annotations.tar.gz": packed({f"annotations/{part}.txt": lists for part in ("trainval", "test")}),
    }
    sums = {name: hashlib.md5(content).hexdigest() for name, content in {**mnist, **pets}.items()}
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", [(name, sums[name]) for name in mnist])
    told = tuple((f"https://example.com/{name}", sums[name]) for name in pets)
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", told)
    return {"mnist": mnist, "oxford_pets": pets}


class Answer(io.BytesIO):
    def __init__(self, url: str, content: bytes) -> None:
        super().__init__(content)
        self.url, self.length = url, len(content)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What a server has, by file name; anything else cannot be reached."""
    there: dict[str, bytes] = {}

    def urlopen(request: urllib.request.Request, *_, **__) -> Answer:
        name = request.full_url.rpartition("/")[2]
        if name not in there:
            raise urllib.error.URLError("no route to host")
        return Answer(request.full_url, there[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return there


@contextmanager
def room(size: int) -> Iterator[None]:
    """Writing fails in a file that has `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lying(folder: Path) -> set[str]:
    """The names of the files in it; a lock is none."""
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("name", ["mnist", "emnist", "cifar10", "svhn", "oxford_pets", "flowers102"])
def test_without_a_network_a_download_fails_with_the_folder_that_it_was_for(name: str, tmp_path: Path, served: dict):
    with pytest.raises(OSError, match=f"could not be downloaded into {tmp_path}: .*no route to host.*") as caught:
        create_data(name, root=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert lying(tmp_path) == set()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_set_is_fetched_once_and_then_read_where_it_is(name: str, tmp_path: Path, published: dict, served: dict):
    served |= published[name]
    first = create_data(name, root=str(tmp_path), batch_size=4, **OPTIONS[name])
    served.clear()
    again = create_data(name, root=str(tmp_path), batch_size=4, download=False, **OPTIONS[name])
    for data in first, again:
        batches = [batch for part in data.parts for batch in data.batches(part)]
        assert sum(len(y) for _, y in batches) == {"mnist": 60, "oxford_pets": 32}[name]
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_disk_that_fills_while_extracting_leaves_the_archives_and_nothing_of_what_is_in_them(
    name: str, tmp_path: Path, published: dict, served: dict
):
    place = tmp_path / {"mnist": "MNIST/raw", "oxford_pets": "oxford-iiit-pet"}[name]
    place.mkdir(parents=True)
    for file, content in published[name].items():  # put there by hand
        (place / file).write_bytes(content)
    with room(15_000), pytest.raises(OSError, match=f"into {tmp_path}: .*File too large.*nothing half extracted"):
        create_data(name, root=str(tmp_path), batch_size=4, **OPTIONS[name])
    assert lying(tmp_path) == set(published[name])
    data = create_data(name, root=str(tmp_path), batch_size=4, **OPTIONS[name])  # with what is there, and more room
    assert len(data.parts["test"].labels) == {"mnist": 20, "oxford_pets": 16}[name]


def test_what_a_killed_process_left_half_extracted_is_not_taken_for_the_set(
    tmp_path: Path, published: dict, served: dict
):
    left = tmp_path / ".MNIST.part" / "MNIST" / "raw"
    left.mkdir(parents=True)
    for file, content in published["mnist"].items():
        (left / file).write_bytes(content)
        (left / file.removesuffix(".gz")).write_bytes(gzip.decompress(content)[:20])
    with pytest.raises(FileNotFoundError, match=f"MNIST is not all in the folder: data.root={tmp_path}"):
        create_data("mnist", root=str(tmp_path), download=False)
    assert len(create_data("mnist", root=str(tmp_path), batch_size=4).parts["test"].labels) == 20
    assert not (tmp_path / ".MNIST.part").exists()


def test_an_archive_with_another_checksum_is_refused_and_then_fetched_anew(
    tmp_path: Path, published: dict, served: dict
):
    served |= published["oxford_pets"]
    served["images.tar.gz"] = packed({"images/other.jpg": jpeg(20)})
    with pytest.raises(OSError, match=r"OxfordIIITPet could not be downloaded .*corrupted"):
        create_data("oxford_pets", root=str(tmp_path), batch_size=4, **OPTIONS["oxford_pets"])
    assert not list(tmp_path.rglob("*.jpg"))
    served |= published["oxford_pets"]
    data = create_data("oxford_pets", root=str(tmp_path), batch_size=4, **OPTIONS["oxford_pets"])
    assert len(data.parts["test"].labels) == 16


def test_every_archive_is_looked_for_where_torchvision_puts_it():
    sets = torchvision.datasets
    for name in "CIFAR10", "CIFAR100":
        assert ARCHIVES[name] == getattr(sets, name).filename
    for name in "MNIST", "FashionMNIST", "KMNIST":
        assert all(Path(name, "raw", file).match(ARCHIVES[name]) for file, _ in getattr(sets, name).resources)
    assert Path("EMNIST", "raw", sets.EMNIST.url.rpartition("/")[2]).match(ARCHIVES["EMNIST"])
    assert all(Path(file).match(ARCHIVES["SVHN"]) for _, file, _ in sets.SVHN.split_list.values())
    files = [Path("oxford-iiit-pet", url.rpartition("/")[2]) for url, _ in sets.OxfordIIITPet._RESOURCES]
    assert all(file.match(ARCHIVES["OxfordIIITPet"]) for file in files)
    files = [Path("flowers-102", file) for file, _ in sets.Flowers102._file_dict.values()]
    assert all(file.match(ARCHIVES["Flowers102"]) for file in files)
