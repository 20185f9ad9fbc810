"""Data in numbers: images of each class, mean and standard deviation, as numbers, tables and JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import create_data
from zoo.data.derived import Derived
from zoo.data.images import Arrays
from zoo.data.packing import pack
from zoo.data.statistics import Statistics, named, statistics
from zoo.report.statistics import SHOWN, as_json, tables

COUNTS = {"cat": 9, "dog": 6, "owl": 3}
Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Square PNGs of noise in train/ and test/."""
    rng = np.random.default_rng(0)
    for part in "train", "test":
        for name, count in COUNTS.items():
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers([256, 128, 64], size=(16, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i}.png")
    return tmp_path / "images"


def found(classes: int, *, few: int = 3) -> Statistics:
    """A set whose class k has few + k training images, and one for test."""
    names = tuple(f"class{k}" for k in range(classes))
    counts = {"train": [few + k for k in range(classes)], "test": [1] * classes}
    return Statistics("made_up", names, (1, 8, 8), counts, [0.5], [0.25], ([0.5], [0.25]))


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_mean_and_std_of_files_are_those_of_all_their_training_pixels(kind: str, folder: Path, tmp_path: Path):
    if kind == "shards":
        pack(folder, tmp_path / "shards", megabytes=0.005)
    root = folder if kind == "folder" else tmp_path / "shards"
    data = named(str(root), {"size": 16, "workers": 0, "val_fraction": 0.3})
    there = create_data("image_folder", root=str(folder), val_fraction=0.3, batch_size=1).parts["train"]
    assert 0 < len(there.paths) < 18
    pixels = np.concatenate([np.asarray(Image.open(path)).reshape(-1, 3) for path in there.paths]) / 255
    result = statistics(data)
    assert result.mean == pytest.approx(pixels.mean(0), abs=1e-12)
    assert result.std == pytest.approx(pixels.std(0), abs=1e-12)
    assert (result.name, result.shape) == ("image_folder" if kind == "folder" else "shards", (3, 16, 16))


def test_images_of_each_class_are_counted_in_each_part(folder: Path):
    result = statistics(named(str(folder), {"workers": 0, "size": 16, "val_fraction": 1 / 3}))
    assert result.classes == ("cat", "dog", "owl")
    assert result.counts == {"train": [6, 4, 2], "val": [3, 2, 1], "test": [9, 6, 3]}


def test_sets_in_memory_have_the_numbers_that_training_normalises_with():
    data = named("textures", {"count": 64, "size": 8, "noise": 0.3})
    result = statistics(data)
    assert result.mean == pytest.approx(data.mean, abs=1e-6)
    assert result.std == pytest.approx(data.std, abs=1e-6)
    assert "data.mean" not in tables(result)


def test_labels_that_come_with_the_images_are_counted_and_not_those_of_what_they_are_drawn_from():
    class Next:  # shows each image under the class that comes after its own
        shape = (1, 4, 4)

        def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> dict:
            return {"first": first, "label": (labels[first] + 1) % 3}

        def render(self, images: torch.Tensor, drawn: dict) -> tuple:
            return images[drawn["first"]] / 255, {"label": drawn["label"]}

    data = create_data("textures", classes=3, count=12, size=4, channels=1, batch_size=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    images = Derived(Arrays(torch.full((6, 1, 4, 4), 51, dtype=torch.uint8), labels), Next())
    data.parts = dict.fromkeys(("train", "val", "test"), images)
    result = statistics(data)
    assert list(result.counts.values()) == [[1, 3, 2]] * 3
    assert (result.mean, result.std) == (pytest.approx([0.2]), pytest.approx([0.0], abs=1e-7))


def test_images_that_cannot_be_read_are_told_or_not_counted(folder: Path):
    for file in (folder / "train" / "owl").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"unreadable image: .*owl/\d.png"):
        statistics(named(str(folder), {"workers": 0}))
    result = statistics(named(str(folder), {"workers": 0, "on_error": "skip", "val_fraction": 1 / 3}))
    assert result.counts["train"] == [6, 4, 0]


def test_a_set_without_training_images_is_counted_without_mean_and_std(folder: Path):
    result = statistics(named(str(folder / "train"), {"workers": 0, "test_fraction": 1}))
    assert result.counts == {"test": list(COUNTS.values())}
    assert (result.mean, result.std) == ([], [])
    assert "No training images" in tables(result)


def test_the_table_tells_smallest_and_largest_class_and_how_they_compare():
    lines = tables(found(3)).splitlines()
    assert lines[0] == "made_up: 3 classes, images of 1×8×8"
    assert [" ".join(line.split()) for line in lines[2:5]] == [
        "part images fewest of a class most of a class ratio",
        "train 12 3 (class0) 5 (class2) 1.67",
        "test 3 1 (class0) 1 (class0) 1.00",
    ]
    assert "class1      4     1" in lines
    empty = tables(found(2, few=0)).splitlines()[3]
    assert " ".join(empty.split()) == "train 1 0 (class0) 1 (class1) –"


@pytest.mark.parametrize("classes", [SHOWN, SHOWN + 1, 1000])
def test_of_many_classes_the_table_shows_both_ends_and_json_all(classes: int):
    result = found(classes)
    text = tables(result)
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("class") and "between" not in line][1:]
    if classes == SHOWN:
        assert rows == list(result.classes)
    else:
        half = SHOWN // 2
        assert rows == [*result.classes[:half], *result.classes[-half:]]
        assert f"{classes - SHOWN} classes between these: --json has them" in text
    assert len(text.splitlines()) < SHOWN + 15
    content = json.loads(as_json(result))
    assert content["parts"]["train"] == {
        "images": sum(result.counts["train"]),
        "smallest": 3,
        "largest": 2 + classes,
        "counts": result.counts["train"],
    }
    assert (content["classes"], content["shape"], content["mean"]) == (list(result.classes), [1, 8, 8], [0.5])


def test_where_a_training_would_take_other_numbers_the_table_says_what_to_type(folder: Path):
    result = statistics(named(str(folder), {"workers": 0, "size": 16}))
    mean = ",".join(f"{round(value, 4):g}" for value in result.mean)
    last = tables(result).splitlines()[-1]
    assert "A training uses [0.485,0.456,0.406]" in last
    assert f"'data.mean=[{mean}]'" in last


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ("textrues", {}, "textrues is neither a data set nor a folder; did you mean textures"),
        ("textures", {"nois": 1}, "textures has no option 'nois'; did you mean noise"),
        ("image_folder", {}, "data set image_folder needs root="),
        ("textures", {"augment": {"flip": {}}}, "augment is for training"),
    ],
    ids=["name", "option", "root", "augment"],
)
def test_what_is_unknown_or_missing_is_told(data: str, options: dict, told: str):
    with pytest.raises((ValueError, TypeError), match=told):
        named(data, options)
