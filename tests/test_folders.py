"""Folders of images: how they are cut into parts, what is said of those that cannot be used, how they are streamed."""

import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import moved, numbered, same
from torch import Tensor

from zoo.data import DATASETS, Batches, create_data
from zoo.data.classes import wnids
from zoo.data.decode import decode
from zoo.data.images import Arrays, Images
from zoo.data.sets import Sets

COLOURS = {"cat": (200, 20, 10), "dog": (10, 200, 20), "fox": (20, 10, 200)}
DAMAGES = {"emptied": b"", "a web page": b"<html>404</html>", "cut in half": None}
Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Make:
    """folder({"cat": 3}) → a folder with three noisy images of the cat's colour; names may hold slashes."""

    def make(counts: Mapping[str, int] | None = None) -> Path:
        rng = np.random.default_rng(0)
        for name, count in (counts or dict.fromkeys(COLOURS, 8)).items():
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                colour = np.array(COLOURS.get(Path(name).name, (90, 90, 90))) + rng.integers(-9, 10, (20, 20, 3))
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


# --- ImageNet ---------------------------------------------------------------------------------------------------


def imagenet(root: Path, **options) -> Sets:
    return DATASETS.build("imagenet", root=str(root), workers=0, **options)


def test_imagenet_takes_any_of_its_classes_reports_on_val_and_shows_224_of_256_pixels(folder: Make):
    first, second, *_ = wnids()
    root = folder({f"{part}/{name}": 5 for part in ("train", "val") for name in (second, first)})
    (root / "test").mkdir()  # as published: images without labels
    sets = imagenet(root)
    assert sets.classes == (first, second)
    assert sets.val is None
    assert {path.relative_to(root).parts[0] for path in sets.train.paths} == {"train"}
    assert {path.relative_to(root).parts[0] for path in sets.test.paths} == {"val"}
    assert (sets.test.size, sets.test.resize) == (224, 256)
    assert (imagenet(root, size=112).test.resize, imagenet(root, size=112, resize=200).test.resize) == (128, 200)


def test_imagenet_with_val_alone_can_be_measured_on(folder: Make):
    root = folder({f"val/{name}": 2 for name in wnids()[:3]})
    data = create_data("imagenet", root=str(root), size=16, workers=0)
    assert [len(data.parts[part].labels) for part in ("train", "test")] == [0, 6]


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (("train/n01440764", "train/n01443537", "val/n01440764"), "train and val have different .*: n01443537"),
        (("train/n01440764", "train/n00000001", "val/n01440764", "val/n00000001"), "no class .* is 'n00000001'"),
        (("train/n01440764", "train/n01443537"), "neither test/ nor val/"),
        (("n01440764",), "images has neither train/ nor val/"),
    ],
    ids=["classes differ", "another id", "train alone", "no parts"],
)
def test_folders_that_are_not_imagenets_are_told_with_what_is_wrong(counts: tuple[str, ...], told: str, folder: Make):
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        imagenet(folder(dict.fromkeys(counts, 2)))
