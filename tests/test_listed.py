"""Sets of photographs in the layouts that they are published in, with a few tiny images."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from zoo.data import DATASETS, create_data
from zoo.data.sets import Sets

Layout = Callable[[Path], None]


def photograph(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (shade, shade, shade)).save(path, "jpeg")


def cells(words: list[str]) -> np.ndarray:
    """A column of strings, as MATLAB's cell arrays are."""
    return np.array([[np.array([word])] for word in words], dtype=object)


def pets(top: Path) -> None:
    breeds = ("Abyssinian", "american_bulldog", "Egyptian_Mau")
    for part, numbers in ("trainval", (1, 2, 3)), ("test", (101, 102)):
        lines = []
        for label, breed in enumerate(breeds, 1):
            for i in numbers:
                photograph(top / "oxford-iiit-pet" / "images" / f"{breed}_{i}.jpg", 40 * label)
                lines.append(f"{breed}_{i} {label} {1 + (label == 2)} 1")
        lists = top / "oxford-iiit-pet" / "annotations"
        lists.mkdir(exist_ok=True)
        (lists / f"{part}.txt").write_text("\n".join(lines) + "\n")


def flowers(top: Path) -> None:
    labels = [1, 2, 3, 3, 1, 2, 2, 3, 1]
    for i, label in enumerate(labels, 1):
        photograph(top / "flowers-102" / "jpg" / f"image_{i:05d}.jpg", 40 * label)
    savemat(top / "flowers-102" / "imagelabels.mat", {"labels": [labels]})
    savemat(top / "flowers-102" / "setid.mat", {"trnid": [[2, 1, 3]], "valid": [[9]], "tstid": [[4, 5, 6, 7, 8]]})


def dogs(top: Path) -> None:
    breeds = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02098105-soft-coated_wheaten_terrier")
    lists = top / "lists"
    lists.mkdir(exist_ok=True)
    for part, numbers in ("train", (7, 8)), ("test", (9,)):
        files = [f"{breed}/{breed.partition('-')[0]}_{i}.jpg" for breed in breeds for i in numbers]
        labels = np.repeat([1, 2, 3], len(numbers))
        for file, label in zip(files, labels, strict=True):
            photograph(top / "Images" / file, 40 * int(label))
        savemat(lists / f"{part}_list.mat", {"file_list": cells(files), "labels": labels[:, None]})


def birds(top: Path) -> None:
    kinds = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    files = [f"{kind}/{kind[4:]}_{i:04d}_{i}.jpg" for kind in kinds for i in range(3)]
    for file in files:
        photograph(top / "CUB_200_2011" / "images" / file, 40 * int(file[:3]))
    for name, values in ("images", files), ("train_test_split", [int(i % 3 > 0) for i in range(9)]):
        lines = "".join(f"{i} {value}\n" for i, value in enumerate(values, 1))
        (top / "CUB_200_2011" / f"{name}.txt").write_text(lines)


LAYOUTS: Mapping[str, tuple[Layout, tuple[str, ...], dict[str, list[int]]]] = {
    "oxford_pets": (
        pets,
        ("Abyssinian", "American Bulldog", "Egyptian Mau"),
        {"train": [0, 0, 0, 1, 1, 1, 2, 2, 2], "test": [0, 0, 1, 1, 2, 2]},
    ),
    "flowers102": (
        flowers,
        ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
        {"train": [1, 0, 2], "val": [0], "test": [2, 0, 1, 1, 2]},
    ),
    "stanford_dogs": (
        dogs,
        ("Chihuahua", "Japanese spaniel", "soft-coated wheaten terrier"),
        {"train": [0, 0, 1, 1, 2, 2], "test": [0, 1, 2]},
    ),
    "cub200": (
        birds,
        ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross"),
        {"train": [0, 0, 1, 1, 2, 2], "test": [0, 1, 2]},
    ),
}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sets]:
    """built("cub200") → the set, of tiny files. change: what is done to these before, (folder) → None."""

    def build(name: str, change: Layout = lambda top: None, **options) -> Sets:
        LAYOUTS[name][0](tmp_path)
        change(tmp_path)
        if name == "flowers102":  # torchvision knows the checksums of the real lists
            known = torchvision.datasets.Flowers102._file_dict
            for key in "label", "setid":
                content = (tmp_path / "flowers-102" / known[key][0]).read_bytes()
                monkeypatch.setitem(known, key, (known[key][0], hashlib.md5(content).hexdigest()))
        if name in ("oxford_pets", "flowers102"):
            options["download"] = False
        return DATASETS.build(name, **{"root": str(tmp_path), "workers": 0, **options})

    return build


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_lists_say_which_image_is_of_which_class_and_part(name: str, built: Callable[..., Sets]):
    sets = built(name, size=16)
    _, classes, labels = LAYOUTS[name]
    assert sets.classes == classes
    found = {part: getattr(sets, part) for part in ("train", "val", "test")}
    assert {part: images.labels.tolist() for part, images in found.items() if images is not None} == labels
    for images in filter(None, found.values()):  # each image is as bright as its class's number
        ((shown, y),) = images.batches([(torch.arange(len(images.labels)), 0)])
        torch.testing.assert_close(shown.float().mean((1, 2, 3)), 40.0 * (y + 1), rtol=0, atol=2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_photograph_is_in_two_parts_and_all_are_shown_at_224_of_256_pixels(name: str, built: Callable[..., Sets]):
    sets = built(name)
    parts = [images for images in (sets.train, sets.val, sets.test) if images is not None]
    paths = [path for images in parts for path in images.paths]
    assert len(set(paths)) == len(paths) == sum(map(len, LAYOUTS[name][2].values()))
    assert {(images.size, images.resize, images.channels) for images in parts} == {(224, 256, 3)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_listed_image_that_is_missing_is_named_or_skipped(name: str, built: Callable[..., Sets], tmp_path: Path):
    (lost, *_) = sorted(built(name).test.paths)
    with pytest.raises(ValueError, match=f"1 of .* images are not there, such as {lost}; data.on_error=skip"):
        built(name, lambda top: lost.unlink())
    images = built(name, lambda top: lost.unlink(), on_error="skip", size=16).test
    ((shown, y),) = images.batches([(torch.arange(len(images.labels)), 0)])
    assert len(shown) == len(images.labels) - 1
    torch.testing.assert_close(shown.float().mean((1, 2, 3)), 40.0 * (y + 1), rtol=0, atol=2)


def written(name: str, content: str) -> Layout:
    def change(top: Path) -> None:
        (top / name).write_text(content)

    return change


def removed(name: str) -> Layout:
    def change(top: Path) -> None:
        (top / name).rename(top / "elsewhere")

    return change


LIST = "lists/train_list.mat"
DAMAGES = {
    "dogs without lists": ("stanford_dogs", removed(LIST), f"{LIST} is missing: unpack .* lists.tar from http"),
    "dogs without images": ("stanford_dogs", removed("Images"), "Images is missing: unpack images.tar"),
    "a list that is none": ("stanford_dogs", written(LIST, "<html>"), f"{LIST} is damaged or not the published"),
    "an empty list": ("stanford_dogs", written(LIST, ""), f"{LIST} is damaged or not the published"),
    "birds without a split": (
        "cub200",
        removed("CUB_200_2011/train_test_split.txt"),
        "train_test_split.txt is missing: unpack CUB_200_2011.tgz from http",
    ),
    "a split cut off": (
        "cub200",
        written("CUB_200_2011/train_test_split.txt", "1 1\n2 0\n"),
        "train_test_split.txt lacks image 3",
    ),
    "a line cut off": (
        "cub200",
        written("CUB_200_2011/images.txt", "1 001.A/a.jpg\n2 002.B"),
        "images.txt is damaged or not the published file: line 2 is '2 002.B'",
    ),
    "a class left out": (
        "oxford_pets",
        written("oxford-iiit-pet/annotations/trainval.txt", "Abyssinian_1 1 1 1\npug_1 37 2 1\n"),
        "numbers its classes 1 Abyssinian, 2 American Bulldog, 3 Egyptian Mau …; they must be 1 to K",
    ),
    "a number with two names": (
        "oxford_pets",
        written("oxford-iiit-pet/annotations/trainval.txt", "Abyssinian_1 1 1 1\npug_1 1 2 1\n"),
        "numbers its classes 1 Abyssinian, 1 Pug, 2 American Bulldog …; .* each with one name",
    ),
    "a list of pets cut off": (
        "oxford_pets",
        written("oxford-iiit-pet/annotations/trainval.txt", "Abyssinian_1 1 1 1\nAbyss"),
        "OxfordIIITPet in .* is damaged",
    ),
}


@pytest.mark.parametrize(("name", "change", "told"), DAMAGES.values(), ids=DAMAGES)
def test_lists_that_cannot_be_used_are_named_with_what_is_wrong(
    name: str, change: Layout, told: str, built: Callable[..., Sets]
):
    with pytest.raises((FileNotFoundError, ValueError), match=told) as caught:
        built(name, change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["stanford_dogs", "cub200"])
def test_where_to_get_what_cannot_be_fetched_is_told(name: str):
    with pytest.raises(FileNotFoundError, match=r"nowhere/.* is missing: unpack .* from https?://.* into data.root"):
        DATASETS.build(name, root="nowhere")


def test_lists_of_dogs_beside_the_images_and_the_folder_of_birds_itself_are_found_too(
    built: Callable[..., Sets], tmp_path: Path
):
    def beside(top: Path) -> None:
        for file in (top / "lists").iterdir():
            file.rename(top / file.name)
        (top / "lists").rmdir()

    assert len(built("stanford_dogs", beside).train.labels) == 6
    built("cub200")
    assert len(DATASETS.build("cub200", root=str(tmp_path / "CUB_200_2011")).train.labels) == 6


def test_flowers_bring_their_own_validation_part_and_pets_get_one(built: Callable[..., Sets], tmp_path: Path):
    built("flowers102")
    data = create_data("flowers102", root=str(tmp_path), batch_size=1, workers=0)
    assert [len(data.parts[part].labels) for part in ("train", "val", "test")] == [3, 1, 5]
    built("oxford_pets")
    data = create_data("oxford_pets", root=str(tmp_path), batch_size=1, workers=0, val_fraction=1 / 3)
    assert [len(data.parts[part].labels) for part in ("train", "val", "test")] == [6, 3, 6]
