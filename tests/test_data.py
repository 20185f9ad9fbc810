"""Sets → parts, order, batches, augmentation; and what is said of data that cannot be used."""

import itertools
import logging
import math
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
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zoo.data import AUGMENTS, DATASETS, Batches, ImageData, create_data
from zoo.data.augment import crop, flip
from zoo.data.module import seed_of
from zoo.data.sets import Sets, stratified
from zoo.data.sources import Arrays, Source, decode

MOVES = {"crop": {"padding": 2, "fill": "reflect"}, "flip": {}}
COLOURS = {"cat": (200, 20, 10), "dog": (10, 200, 20), "fox": (20, 10, 200)}
DAMAGES = {"emptied": b"", "a web page": b"<html>404</html>", "cut in half": None}
Make = Callable[..., Path]


def numbered(count: int) -> Arrays:
    """Images filled with their own number, which is their label too."""
    labels = torch.arange(count)
    return Arrays(labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 8, 8), labels)


def textures(*, seed: int = 5, **options) -> ImageData:
    return create_data("textures", **{"count": 96, "size": 16, "batch_size": 32, "seed": seed, **options})


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(source: Source, **options) -> Batches:
    augment = [AUGMENTS.bind(name, **its) for name, its in MOVES.items()]
    return Batches(source, training=True, shuffle=True, augment=augment, **options)


def same(first: list[tuple[Tensor, Tensor]], second: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = zip(itertools.chain(*first), itertools.chain(*second), strict=True)
    return len(first) == len(second) and all(torch.equal(one, other) for one, other in pairs)


# --- parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.2, 0.37])
def test_a_split_takes_its_share_of_each_class_and_puts_every_image_in_one_part(share: float):
    labels = torch.multinomial(torch.tensor([0.5, 0.3, 0.15, 0.05]), 301, replacement=True, generator=draws())
    first, second = stratified(labels, share, seed=3)
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(301))
    assert len(second) == round(share * 301)
    assert ((labels[second].bincount() - share * labels.bincount()).abs() < 1).all()


def test_a_split_is_fixed_by_its_seed_and_differs_between_seeds():
    labels = torch.arange(200) % 5
    torch.manual_seed(1)
    _, held_out = stratified(labels, 0.2, seed=0)
    torch.manual_seed(2)
    assert torch.equal(held_out, stratified(labels, 0.2, seed=0)[1])
    assert not torch.equal(held_out, stratified(labels, 0.2, seed=1)[1])


def test_digits_has_the_same_360_test_images_for_every_seed_and_none_of_them_elsewhere():
    one, two = (
        {k: set(map(bytes, part.images.numpy())) for k, part in create_data("digits", seed=s).parts.items()}
        for s in (1, 2)
    )
    assert len(one["test"]) == 360
    assert one["test"] == two["test"]
    assert one["val"] != two["val"]
    for parts in one, two:
        assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 1797


# --- order and batches ------------------------------------------------------------------------------------------


def test_the_order_is_a_permutation_that_seed_and_epoch_alone_decide():
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        torch.rand(epoch + 1)
        batches = Batches(numbered(40), batch_size=8, seed=seed, training=True, shuffle=True)
        return tuple(batches.order(epoch).tolist())

    of_run = [order(0, epoch) for epoch in range(4)]
    assert all(sorted(indices) == list(range(40)) for indices in of_run)
    assert [order(0, epoch) for epoch in reversed(range(4))] == of_run[::-1]
    assert len({*of_run, order(1, 0)}) == 5


@pytest.mark.parametrize("augment", [None, MOVES], ids=["plain", "augmented"])
def test_a_batch_is_a_function_of_seed_epoch_and_step(augment: Mapping | None):
    epoch = 3
    batches = textures(augment=augment).training(epoch=lambda: epoch)
    first = list(batches)
    torch.rand(5)
    assert same(first, list(batches))
    assert same(first, list(textures(augment=augment).training(epoch=lambda: 3)))
    assert not same(first, list(textures(augment=augment, seed=6).training(epoch=lambda: 3)))
    epoch = 4
    assert not same(first, list(batches))


def test_each_step_of_each_epoch_and_process_draws_its_own_augmentation():
    source = Arrays(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(16, 1, 1, 1), torch.arange(16))
    shown = [
        x
        for rank, epoch in itertools.product(range(2), range(2))
        for x, _ in Batches(source, batch_size=4, augment=[crop], rank=rank, world=2, epoch=lambda e=epoch: e)
    ]
    assert len(shown) == 8
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(shown, 2))


def test_no_two_places_of_a_run_share_a_seed():
    orders = itertools.product(range(4), range(4))
    augmentations = itertools.product(range(4), range(4), range(4), range(2))
    places = [*orders, *augmentations]
    assert len({seed_of(*place) for place in places}) == len(places)


@pytest.mark.parametrize("workers", [None, 0, 2], ids=["resident", "streamed", "streamed by workers"])
def test_an_epoch_draws_nothing_from_the_generators_that_a_resumed_run_restores(workers: int | None, folder: Make):
    source = numbered(24) if workers is None else streamed(folder(), workers=workers)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert len(list(moved(source, batch_size=8))) == 3
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_processes_share_an_epoch_in_whole_batches_without_overlap(world: int, shuffle: bool):
    seen = []
    for rank in range(world):
        shard = Batches(numbered(90), batch_size=8, training=True, shuffle=shuffle, rank=rank, world=world)
        labels = [y for _, y in shard]
        assert [len(y) for y in labels] == [8] * len(shard) == [8] * (90 // (8 * world))
        seen += torch.cat(labels).tolist()
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluating_processes_see_every_image_once_between_them(world: int):
    seen = []
    for rank in range(world):
        shard = Batches(numbered(100), batch_size=8, rank=rank, world=world)
        labels = [y for _, y in shard]
        assert len(labels) == len(shard)
        seen += torch.cat(labels).tolist()
    assert sorted(seen) == list(range(100))


def test_evaluation_shows_the_set_in_its_own_order_and_not_augmented():
    data = textures(augment=MOVES)
    x, y = (torch.cat(each) for each in zip(*data.batches("test"), strict=True))
    assert torch.equal(x, data.parts["test"].images / 255)
    assert torch.equal(y, data.parts["test"].labels)


def test_pixels_are_float32_in_255ths_of_1_and_augmentation_keeps_them_so():
    source = Arrays(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(64, 1, 1, 1), torch.arange(64))
    ((plain, _),) = Batches(source, batch_size=64)
    torch.testing.assert_close(plain[0].flatten(), torch.linspace(0, 1, 256), rtol=0, atol=1e-7)
    ((shown, _),) = moved(source, batch_size=64)
    assert shown.dtype == torch.float32
    assert set(shown.unique().tolist()) <= set(plain.unique().tolist())


def test_labels_stay_with_their_images_when_shuffled_and_augmented():
    for x, y in moved(numbered(100), batch_size=16):
        assert torch.equal((x * 255).round(), y.view(-1, 1, 1, 1).expand_as(x).float())


# --- augmentation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [1, 3])
def test_crop_shifts_each_image_by_its_own_draw_of_up_to_padding_pixels_each_way(padding: int, fill: str, mode: str):
    place = torch.stack(torch.meshgrid(torch.arange(1.0, 13), torch.arange(1.0, 11), indexing="ij"))
    shown = crop(place.repeat(2000, 1, 1, 1), draws(), padding=padding, fill=fill)
    shifts = (shown[:, :, 6, 5] - place[:, 6, 5]).int().tolist()
    reach = range(-padding, padding + 1)
    assert set(map(tuple, shifts)) == set(itertools.product(reach, reach))
    around = F.pad(place[None], [padding] * 4, mode=mode)[0]
    for image, (down, right) in zip(shown, shifts, strict=True):
        assert torch.equal(image, around[:, padding + down :, padding + right :][:, :12, :10])


def test_crop_without_padding_changes_nothing():
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(crop(x, draws(), padding=0), x)


def test_crop_names_a_fill_that_it_does_not_know():
    with pytest.raises(ValueError, match="zero or reflect, not 'mirror'"):
        crop(torch.rand(1, 1, 8, 8), draws(), fill="mirror")


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_flip_mirrors_each_image_left_to_right_with_probability_p(p: float):
    x = torch.rand(2000, 1, 3, 4, generator=draws(1))
    shown = flip(x, draws(), p=p)
    turned = (shown == x.flip(3)).flatten(1).all(1)
    assert torch.equal(shown[~turned], x[~turned])
    assert turned.float().mean().item() == pytest.approx(p, abs=0.05 if 0 < p < 1 else 0)


# --- what a set knows of itself ---------------------------------------------------------------------------------


def test_mean_and_std_are_those_of_the_training_pixels():
    data = textures(noise=0.3)
    pixels = data.parts["train"].images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-6)
    given = textures(mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    assert (given.mean, given.std) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])


def test_a_channel_that_never_changes_is_divided_by_one():
    assert Arrays(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.arange(4)).statistics() == ([0.2], [1.0])


@pytest.mark.parametrize(("classes", "channels"), [(2, 1), (4, 3), (6, 3)])
def test_the_direction_of_a_textures_strongest_wave_is_its_class(classes: int, channels: int):
    sets = DATASETS.build("textures", classes=classes, channels=channels, count=240)
    for source in sets.train, sets.test:
        images = source.images.float().mean(1)
        peak = torch.fft.fft2(images - images.mean((1, 2), keepdim=True)).abs().flatten(1).argmax(1)
        cycles = torch.fft.fftfreq(32)
        angle = torch.atan2(cycles[peak // 32], cycles[peak % 32])
        found = (angle * classes / math.pi).round().long() % classes
        assert (found == source.labels).float().mean() > 0.98
        assert source.labels.bincount().unique().numel() == 1
    assert sets.classes == tuple(f"{180 // classes * k}°" for k in range(classes))


def test_textures_are_always_the_same_and_their_test_images_are_not_training_images():
    one, again = (DATASETS.build("textures", size=8, count=64) for _ in range(2))
    assert torch.equal(one.train.images, again.train.images)
    assert not torch.equal(one.train.images[: len(one.test.images)], one.test.images)


# --- data that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize(("part", "word"), [("train", "training"), ("val", "validation"), ("test", "test")])
def test_a_label_out_of_range_is_told_with_its_image(part: str, word: str, wrong: int):
    parts = {name: numbered(3) for name in ("train", "val", "test")}
    parts[part] = Arrays(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2, wrong]))
    with pytest.raises(ValueError, match=f"{word} image 2 has label {wrong}, the classes are 0 to 2"):
        Sets(**parts, classes=("a", "b", "c"))


def test_a_batch_larger_than_the_training_part_is_refused_by_name():
    with pytest.raises(ValueError, match=r"86 training images, fewer than a batch \(data.batch_size=87\)"):
        textures(batch_size=87)
    with pytest.raises(ValueError, match=r"86 training .* batch in each of 2 processes \(data.batch_size=44\)"):
        textures(batch_size=44).training(epoch=int, world=2)


def test_a_validation_part_without_an_image_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no val images \(data.val_fraction=0.001\)"):
        textures(val_fraction=0.001)


def test_an_unknown_set_or_option_is_told_with_its_near_match():
    with pytest.raises(ValueError, match="no data set is named 'cifar1O'; did you mean cifar10"):
        create_data("cifar1O")
    with pytest.raises(TypeError, match="textures has no option 'nois'; did you mean noise"):
        textures(nois=1)


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


def streamed(root: Path, **options) -> Source:
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


def test_a_batch_of_which_no_image_can_be_read_is_left_out(folder: Make):
    root = folder()
    for i in range(8):
        damage(root / "dog" / f"{i}.png", b"")
    shown = list(Batches(streamed(root, on_error="skip"), batch_size=8))
    assert [y.tolist() for _, y in shown] == [[0] * 8, [2] * 8]
    assert colours_are_labels(shown)


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
