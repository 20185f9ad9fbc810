"""The sets by name: what torchvision fetches, and folders of images."""

import logging
import random
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import draws, moved, numbered, same
from torch import Tensor

from zoo.data import DATASETS, Batches, create_data
from zoo.data.decode import decode
from zoo.data.images import Arrays, Images

COLOURS = {"cat": (200, 20, 10), "dog": (10, 200, 20), "fox": (20, 10, 200)}
DAMAGES = {"emptied": b"", "a web page": b"<html>404</html>", "cut in half": None}
Make = Callable[..., Path]


# --- the sets that torchvision knows ----------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Make:
    """raw("MNIST") → the folder of its four files, with 100 random training and 30 test images in them."""

    def write(path: Path, array: Tensor) -> None:
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        path.write_bytes(header + array.to(torch.uint8).numpy().tobytes())

    def make(name: str) -> Path:
        folder = tmp_path / name / "raw"
        folder.mkdir(parents=True)
        for part, count in ("train", 100), ("t10k", 30):
            write(folder / f"{part}-images-idx3-ubyte", torch.randint(256, (count, 28, 28), generator=draws(count)))
            write(folder / f"{part}-labels-idx1-ubyte", torch.arange(count) % 10)
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


@pytest.mark.parametrize("left", [500, 2])
def test_a_raw_file_that_is_cut_off_is_told_with_its_folder(left: int, raw: Make, tmp_path: Path):
    file = raw("MNIST") / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        create_data("mnist", root=str(tmp_path), download=False)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_without_a_network_a_download_fails_with_the_folder_that_it_was_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(OSError, match=f"(?s)could not be downloaded into {tmp_path}.*no route to host"):
        create_data(name, root=str(tmp_path))


# --- folders of images ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Make:
    """folder({"cat": 3}) → a folder with three noisy images of the cat's colour; names may hold slashes."""

    def make(counts: Mapping[str, int] | None = None) -> Path:
        rng = np.random.default_rng(0)
        for name, count in (counts or dict.fromkeys(COLOURS, 8)).items():
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                colour = np.array(COLOURS[Path(name).name]) + rng.integers(-9, 10, (20, 20, 3))
                Image.fromarray(colour.astype(np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
        return tmp_path / "images"

    return make


def streamed(root: Path, **options) -> Images:
    """All images of a folder as one source."""
    options = {"root": str(root), "size": 16, "workers": 0, "test_fraction": 0, **options}
    return DATASETS.build("image_folder", **options).train


def damage(file: Path, content: bytes | None) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)


def colours_are_labels(batches: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(x.mean((2, 3)).argmax(1), y) for x, y in batches)


def test_class_folders_are_cut_into_parts_by_class_and_labelled_in_the_order_of_their_names(folder: Make):
    root = folder({"fox": 20, "cat": 10, "dog": 30})
    data = create_data("image_folder", root=str(root), size=16, workers=0, val_fraction=0.25, batch_size=4)
    assert data.classes == ("cat", "dog", "fox")
    counts = {part: source.labels.bincount().tolist() for part, source in data.parts.items()}
    assert counts == {"train": [6, 18, 12], "val": [2, 6, 4], "test": [2, 6, 4]}
    paths = [path for source in data.parts.values() for path in source.paths]
    assert sorted(paths) == sorted(root.rglob("*.png"))
    assert colours_are_labels([batch for part in data.parts for batch in data.batches(part)])


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (("train", "test"), {"train": "train", "val": "train", "test": "test"}),
        (("train", "val"), {"train": "train", "val": "train", "test": "val"}),
        (("train", "val", "test"), {"train": "train", "val": "val", "test": "test"}),
    ],
    ids="/".join,
)
def test_parts_that_a_folder_brings_along_are_kept(layout: tuple[str, ...], expected: dict[str, str], folder: Make):
    root = folder({f"{part}/{name}": 5 for part in layout for name in COLOURS})
    data = create_data("image_folder", root=str(root), size=16, val_fraction=0.2, batch_size=4)
    taken = {part: {path.relative_to(root).parts[0] for path in source.paths} for part, source in data.parts.items()}
    assert taken == {part: {source} for part, source in expected.items()}
    everything = [path for source in data.parts.values() for path in source.paths]
    assert sorted(everything) == sorted(root.rglob("*.png"))


@pytest.mark.parametrize(
    ("counts", "options", "told"),
    [
        ({"train/cat": 1, "train/dog": 1, "test/cat": 1, "test/fox": 1}, {}, "different class folders: dog, fox"),
        ({"train/cat": 1, "train/dog": 1}, {}, "train/ but neither test/ nor val/"),
        ({".": 0}, {}, "images is empty of class folders"),
        ({"cat": 3}, {}, "the single class 'cat'"),
        ({"cat": 3, "dog": 0}, {}, "images/dog holds no images"),
        ({"cat": 1, "dog": 1}, {"root": "nowhere"}, "data.root=nowhere"),
        ({"cat": 1, "dog": 1}, {"on_error": "ignore"}, "data.on_error must be error or skip, not 'ignore'"),
        ({"cat": 1, "dog": 1}, {"channels": 2}, "data.channels must be 1 or 3, not 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_that_cannot_be_used_is_told_with_what_is_wrong(counts: dict, options: dict, told: str, folder: Make):
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        DATASETS.build("image_folder", **{"root": str(folder(counts)), **options})


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_by_its_path(content: bytes | None, workers: int, folder: Make):
    root = folder()
    damage(root / "dog" / "3.png", content)
    with pytest.raises(ValueError, match=rf"unreadable image: {root}/dog/3.png .*data.on_error=skip"):
        list(Batches(streamed(root, workers=workers), batch_size=8))


@pytest.mark.parametrize("content", DAMAGES.values(), ids=DAMAGES)
def test_a_skipped_image_is_counted_once_and_the_rest_keep_their_labels(content: bytes | None, folder: Make, caplog):
    root = folder()
    damage(root / "dog" / "3.png", content)
    damage(root / "fox" / "0.png", content)
    batches = Batches(streamed(root, on_error="skip"), batch_size=6, shuffle=True)
    with caplog.at_level(logging.WARNING, logger="zoo"):
        for _ in range(2):
            shown = list(batches)
            assert torch.cat([y for _, y in shown]).bincount().tolist() == [8, 7, 7]
            assert colours_are_labels(shown)
    told = [record.getMessage() for record in caplog.records]
    assert [f"number {i + 1}:" in text for i, text in enumerate(told)] == [True, True]
    assert all(sum(str(root / name) in text for text in told) == 1 for name in ("dog/3.png", "fox/0.png"))


def test_a_batch_of_which_no_image_can_be_read_is_empty_so_that_their_number_stays(folder: Make):
    root = folder()
    for i in range(8):
        damage(root / "dog" / f"{i}.png", b"")
    shown = list(Batches(streamed(root, on_error="skip"), batch_size=8))
    assert [y.tolist() for _, y in shown] == [[0] * 8, [], [2] * 8]
    assert [len(x) for x, _ in shown] == [8, 0, 8]
    assert colours_are_labels([shown[0], shown[2]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_of_any_mode_is_decoded_to_its_colours(mode: str, tmp_path: Path):
    colours = [(255, 255, 255), (0, 0, 0)] if mode in ("1", "L", "LA") else [(250, 30, 60), (20, 200, 100)]
    picture = Image.new("RGB", (16, 16), colours[0])
    picture.paste(colours[1], (8, 0, 16, 16))
    picture.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "it.tif")
    shown = decode(tmp_path / "it.tif", 16, 3)
    assert shown[:, 5, [3, 12]].T.tolist() == [list(colour) for colour in colours]
    grey = decode(tmp_path / "it.tif", 16, 1)
    weights = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close(grey[0].float(), torch.einsum("chw,c->hw", shown.float(), weights), rtol=0, atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_16_bits_keeps_its_shades(channels: int, tmp_path: Path):
    shades = np.linspace(0, 65535, 16).astype(np.uint16)
    Image.fromarray(shades[None].repeat(16, 0)).save(tmp_path / "it.png")
    expected = torch.from_numpy(shades / 257).float().expand(channels, 16, 16)
    torch.testing.assert_close(decode(tmp_path / "it.png", 16, channels).float(), expected, rtol=0, atol=1)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("scale", [1, 3])
def test_what_is_not_square_is_cut_to_its_centre(upright: bool, scale: int, tmp_path: Path):
    band = 16 * scale
    picture = Image.new("RGB", (3 * band, band), (255, 0, 0))
    picture.paste((0, 255, 0), (band, 0, 2 * band, band))
    (picture.rotate(90, expand=True) if upright else picture).save(tmp_path / "it.png")
    inner = decode(tmp_path / "it.png", 16, 3)[:, 1:-1, 1:-1]
    assert torch.equal(inner, torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 14, 14))


def test_a_sliver_costs_no_more_than_the_square_that_is_cut_from_it(tmp_path: Path):
    Image.new("L", (1, 20000), 77).save(tmp_path / "it.png")
    started = time.process_time()
    shown = decode(tmp_path / "it.png", 64, 3)
    assert time.process_time() - started < 0.2
    assert shown.unique().tolist() == [77]


def test_images_are_the_same_streamed_by_any_number_of_workers_and_resident(folder: Make):
    root = folder()
    here, by_workers = (streamed(root, workers=workers) for workers in (0, 2))
    resident = Arrays(torch.stack([decode(path, 16, 3) for path in here.paths]), here.labels)
    epochs = [
        [list(moved(source, batch_size=5, seed=7, epoch=lambda e=epoch: e)) for source in (here, by_workers, resident)]
        for epoch in range(2)
    ]
    for first, second, third in epochs:
        assert len(first) == 4
        assert same(first, second)
        assert same(first, third)
    assert not same(epochs[0][0], epochs[1][0])


@pytest.mark.parametrize("workers", [None, 0, 2], ids=["resident", "streamed", "streamed by workers"])
def test_an_epoch_draws_nothing_from_the_generators_that_a_resumed_run_restores(workers: int | None, folder: Make):
    source = numbered(24) if workers is None else streamed(folder(), workers=workers)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert len(list(moved(source, batch_size=8))) == 3
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
