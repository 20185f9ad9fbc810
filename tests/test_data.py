"""Sets → parts, order, batches, augmentation; and what is said of data that cannot be used."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zoo.data import AUGMENTS, DATASETS, Batches, ImageData, create_data
from zoo.data.augment import crop
from zoo.data.batches import seed_of
from zoo.data.images import Arrays, Images
from zoo.data.selection import stratified
from zoo.data.sets import Sets

MOVES = {"crop": {"padding": 2, "fill": "reflect"}, "flip": {}}
Make = Callable[..., Path]


def numbered(count: int) -> Arrays:
    """Images filled with their own number, which is their label too."""
    labels = torch.arange(count)
    return Arrays(labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 8, 8), labels)


def textures(*, seed: int = 5, **options) -> ImageData:
    return create_data("textures", **{"count": 96, "size": 16, "batch_size": 32, "seed": seed, **options})


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(source: Images, **options) -> Batches:
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
