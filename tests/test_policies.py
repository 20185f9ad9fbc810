"""What is done to one image after the other while it is decoded, and the augmentations that have a name."""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from zoo.config.nodes import register
from zoo.data import AUGMENTS, create_data
from zoo.data.decode import centred, pixels
from zoo.data.images import Arrays, Batch
from zoo.data.module import Augmentation, augmentation
from zoo.data.policies import color_jitter, rand_augment, random_resized_crop, random_scaled_crop
from zoo.data.streams import Files, streamed

CROPS: Mapping[str, Mapping[str, Any]] = {
    "random_resized_crop": {"interpolation": "bicubic"},
    "random_scaled_crop": {},
}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "color_jitter": {"hue": 0.1},
    "auto_augment": {},
    "rand_augment": {},
    "trivial_augment": {},
    "aug_mix": {},
}
POLICIES = sorted(path.stem for path in (ROOT / "configs" / "augment").glob("*.yaml"))
IMAGENET = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*_imagenet.yaml"))
Change = Callable[..., Image.Image]


def photo(mode: str = "RGB", width: int = 40, height: int = 30) -> Image.Image:
    """Blotches of all colours."""
    generator = np.random.default_rng(7)
    small = generator.integers(256, size=(5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def ramps(width: int, height: int) -> Image.Image:
    """The place of each pixel: red tells its column, green its row, counted from 0."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=2).astype(np.uint8))


def parts(crop: Change, image: Image.Image, size: int, count: int, **options: Any) -> Tensor:
    """Of `count` crops of `ramps`: left, top, width and height (count, 4) in its pixels, off by about one."""
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        shown = pixels(crop(image, size, **options)).double()
        assert shown.shape == (3, size, size)
        middle = size // 4, size - 1 - size // 4  # where no border is near, resized by any filter
        sides = []
        for ramp in shown[0].mean(0), shown[1].mean(1):
            step = (ramp[middle[1]] - ramp[middle[0]]) / (middle[1] - middle[0])
            sides.append((ramp[middle[0]] - step * (middle[0] + 0.5) + 0.5, step * size))
        (left, width), (top, height) = sides
        found.append([left, top, width, height])
    return torch.tensor(found)


def seeded(change: Change, seed: int) -> bytes:
    torch.manual_seed(seed)
    return change().tobytes()


# --- crops -------------------------------------------------------------------------------------------------------


def test_a_resized_crop_shows_any_part_of_8_to_100_percent_of_the_area_with_sides_from_3_to_4_to_4_to_3():
    left, top, width, height = parts(random_resized_crop, ramps(240, 200), 64, 500).unbind(1)
    area, ratio = width * height / 48_000, width / height
    assert area.min() > 0.07
    assert area.max() < 1.02
    assert area.min() < 0.1
    assert area.max() > 0.9
    assert ratio.min() > 0.72
    assert ratio.max() < 1.38
    assert (ratio < 0.8).any()
    assert (ratio > 1.25).any()
    assert min(left.min(), top.min()) > -2
    assert (left + width).max() < 242
    assert (top + height).max() < 202
    small = area < 0.5  # for which there is room everywhere: shape and area are as drawn
    drawn = stats.uniform(0.08, 0.42).cdf
    assert stats.kstest(area[small], drawn).pvalue > 0.01
    assert stats.kstest(left[small] / (240 - width[small]), stats.uniform(0, 1).cdf).pvalue > 0.01
    assert stats.kstest(ratio[small].log(), stats.uniform(np.log(3 / 4), np.log(16 / 9)).cdf).pvalue > 0.01


def test_a_scaled_crop_keeps_the_shape_and_takes_any_place_at_any_scale():
    left, top, width, height = parts(random_scaled_crop, ramps(240, 160), 64, 500, scale=(1, 2)).unbind(1)
    torch.testing.assert_close(width, height, rtol=0, atol=2.5)
    scale = 160 / height  # 1: the whole shorter side is shown
    assert stats.kstest(scale, stats.uniform(1, 1).cdf).pvalue > 0.01
    room = scale > 1.2
    for first, side, free in (left, width, 240), (top, height, 160):
        assert stats.kstest((first / (free - side))[room], stats.uniform(0, 1).cdf).pvalue > 0.01


def test_a_scaled_crop_of_256_pixels_of_which_224_are_shown_shows_seven_eighths_of_the_shorter_side():
    found = parts(random_scaled_crop, ramps(160, 240), 28, 50, scale=(256 / 224, 256 / 224))
    torch.testing.assert_close(found[:, 2:], torch.full((50, 2), 160 * 7 / 8).double(), rtol=0, atol=1.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_scaled_crop_with_no_room_is_the_square_at_the_centre(interpolation: str):
    shown = random_scaled_crop(photo(width=30), 16, scale=(1, 1), interpolation=interpolation)
    assert shown.tobytes() == centred(photo(width=30), 16, interpolation=interpolation).tobytes()


@pytest.mark.parametrize("sides", [(1, 1), (1, 50), (50, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", CROPS)
def test_a_crop_of_any_image_is_a_square_of_the_size_that_is_told(name: str, mode: str, sides: tuple[int, int]):
    for seed in range(5):
        torch.manual_seed(seed)
        shown = AUGMENTS.bind(name, **CROPS[name])(photo(mode, *sides), 24)
        assert (shown.size, shown.mode) == ((24, 24), mode)


# --- changes -----------------------------------------------------------------------------------------------------


def test_the_tables_of_these_tests_hold_every_augmentation_of_files():
    own = [name for name in AUGMENTS if AUGMENTS[name].builder.__module__.startswith("zoo.")]
    for each, table in ("file", CROPS), ("image", CHANGES):
        assert {name for name in own if AUGMENTS[name].facts.get("each") == each} == table.keys()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_size_and_channels_and_is_a_function_of_torchs_seed_alone(name: str, mode: str):
    image = photo(mode)
    before, change = image.tobytes(), AUGMENTS.bind(name, **CHANGES[name])
    shown = []
    for seed in range(12):
        random.seed(seed), np.random.seed(seed)
        shown.append(seeded(lambda: change(image), seed))
        random.seed(99), np.random.seed(99)
        assert shown[-1] == seeded(lambda: change(image), seed)
    assert (change(image).size, change(image).mode) == (image.size, mode)
    assert len(set(shown)) > 3
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("random_resized_crop", {"scale": [0.2, 0.5], "ratio": [1, 2]}, v2.RandomResizedCrop(16, (0.2, 0.5), (1, 2))),
        ("color_jitter", {"brightness": 0.3, "hue": 0.1}, v2.ColorJitter(0.3, 0.4, 0.4, 0.1)),
        ("auto_augment", {}, v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)),
        ("auto_augment", {"policy": "cifar10"}, v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
        ("auto_augment", {"policy": "svhn"}, v2.AutoAugment(v2.AutoAugmentPolicy.SVHN)),
        ("rand_augment", {"ops": 3, "magnitude": 15}, v2.RandAugment(3, 15)),
        ("trivial_augment", {}, v2.TrivialAugmentWide()),
        ("aug_mix", {"severity": 5, "width": 2, "depth": 2, "alpha": 0.5}, v2.AugMix(5, 2, 2, 0.5, all_ops=False)),
        ("aug_mix", {"all_ops": True}, v2.AugMix()),
    ],
)
def test_a_policy_is_torchvisions_with_the_options_that_are_told(name: str, options: Mapping[str, Any], theirs: Change):
    change = AUGMENTS.bind(name, **options)
    sized = (16,) if name in CROPS else ()
    for seed in range(10):
        assert seeded(lambda: change(photo(), *sized), seed) == seeded(lambda: theirs(photo()), seed)


def test_options_that_ask_for_nothing_change_nothing():
    image = photo()
    assert color_jitter(image, brightness=0, contrast=0, saturation=0).tobytes() == image.tobytes()
    assert rand_augment(image, ops=0).tobytes() == image.tobytes()


# --- options that are not possible -------------------------------------------------------------------------------

SHARES = "must be above 0 to 1, two rising numbers"
WRONG = [
    ({"random_resized_crop": {"scale": [0.5, 1.5]}}, f"random_resized_crop: scale=[0.5, 1.5] {SHARES}"),
    ({"random_resized_crop": {"scale": [0.5]}}, f"random_resized_crop: scale=[0.5] {SHARES}"),
    (
        {"random_resized_crop": {"ratio": [0, 1]}},
        "random_resized_crop: ratio=[0, 1] must be above 0, two rising numbers",
    ),
    (
        {"random_resized_crop": {"interpolation": "nearest"}},
        "random_resized_crop: interpolation must be bilinear or bicubic, not 'nearest'",
    ),
    (
        {"random_scaled_crop": {"scale": [0.9, 1]}},
        "random_scaled_crop: scale=[0.9, 1] must be 1 or above, two rising numbers",
    ),
    (
        {"random_scaled_crop": {"interpolation": 3}},
        "random_scaled_crop: interpolation must be bilinear or bicubic, not 3",
    ),
    ({"color_jitter": {"brightness": -1}}, "color_jitter: brightness=-1 must be 0 or above"),
    ({"color_jitter": {"hue": 0.6}}, "color_jitter: hue=0.6 must be from 0 to 0.5"),
    ({"auto_augment": {"policy": "mnist"}}, "auto_augment: policy must be imagenet, cifar10 or svhn, not 'mnist'"),
    ({"rand_augment": {"ops": -1}}, "rand_augment: ops=-1 must be 0 or above, whole"),
    ({"rand_augment": {"magnitude": 31}}, "rand_augment: magnitude=31 must be from 0 to 30, whole"),
    ({"rand_augment": {"magnitude": 2.5}}, "rand_augment: magnitude=2.5 must be from 0 to 30, whole"),
    ({"aug_mix": {"severity": 11}}, "aug_mix: severity=11 must be from 1 to 10, whole"),
    ({"aug_mix": {"width": 0}}, "aug_mix: width=0 must be 1 or above, whole"),
    ({"aug_mix": {"depth": -1}}, "aug_mix: depth=-1 must be 0 or above, whole"),
    ({"aug_mix": {"alpha": 0}}, "aug_mix: alpha=0 must be above 0"),
    ({"flip": 0.5}, "augment.flip=0.5 must be its options, such as {p: 0.5}, or null"),
    (
        {"random_resized_crop": {}, "random_scaled_crop": {}},
        "augment.random_resized_crop and random_scaled_crop each cut out of the file what is shown: leave one",
    ),
]


@pytest.mark.parametrize(("nodes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_cannot_be_done_to_a_file_is_told_in_one_line_before_one_is_read_whatever_is_drawn(nodes, said):
    for seed in range(20):
        torch.manual_seed(seed)
        with pytest.raises(ValueError) as error:
            augmentation(nodes)
        assert str(error.value) == said


def test_an_unknown_name_or_option_is_told_with_its_near_match_even_of_what_is_left_out():
    for options in {}, None:
        with pytest.raises(ValueError, match="no augmentation is named 'rand_aug'; did you mean rand_augment"):
            augmentation({"rand_aug": options})
    with pytest.raises(TypeError, match="rand_augment has no option 'magnitud'; did you mean magnitude"):
        augmentation({"rand_augment": {"magnitud": 3}})


def test_each_operation_goes_to_where_it_is_done_in_the_order_that_is_told_and_null_leaves_it_out():
    nodes = {"mixup": {}, "flip": {"p": 1.0}, "aug_mix": {}, "crop": {}, "color_jitter": None, "auto_augment": {}}
    found = augmentation({**nodes, "random_scaled_crop": {}, "cutmix": {}})
    assert found.crop.func is random_scaled_crop
    names = [[each.func.__name__ for each in part] for part in (found.transforms, found.batch, found.mix)]
    assert names == [["aug_mix", "auto_augment"], ["flip", "crop"], ["mixup", "cutmix"]]
    assert found.batch[0].keywords == {"p": 1.0}
    assert augmentation({}) == Augmentation(None, [], [], [])


# --- files -------------------------------------------------------------------------------------------------------

ALL = {**CROPS, **CHANGES}
DONE = [
    ("random_resized_crop",),
    ("random_scaled_crop",),
    *((name,) for name in CHANGES),
    ("random_resized_crop", "aug_mix"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six images of several sizes and kinds."""
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(6):
            photo("L" if i == 2 else "RGB", 30 + 5 * i, 50 - 4 * i).save(tmp_path / label / f"{i}.png")
    return tmp_path


def state() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def stream(images: Files | Tensor, *names: str, workers: int = 0) -> Files:
    files = streamed(Arrays(images, torch.arange(len(images)))) if isinstance(images, Tensor) else images
    change = augmentation({name: ALL[name] for name in names})
    return replace(files, workers=workers, crop=change.crop, transforms=change.transforms)


def batch(files: Files, indices: list[int], seed: int) -> Batch:
    ((x, y),) = files.batches([(torch.tensor(indices), seed)])
    return x, y


@pytest.mark.parametrize("names", DONE, ids="+".join)
def test_an_image_is_a_function_of_the_batchs_seed_and_its_place_in_it(names: tuple[str, ...]):
    one = pixels(photo(width=30))
    files = stream(one.expand(8, -1, -1, -1), *names)
    x, y = batch(files, list(range(8)), seed=3)
    before = state()
    again, _ = batch(files, [0, 0, 2, 7], seed=3)
    assert state() == before
    assert torch.equal(x[:4], again)  # the images are all the same: the place decides, and nothing else
    assert y.tolist() == list(range(8))
    assert len({bytes(each.numpy()) for each in x}) > 4
    assert not torch.equal(x, batch(files, list(range(8)), seed=4)[0])


@pytest.mark.parametrize("names", DONE[::3], ids="+".join)
def test_any_number_of_workers_shows_the_same(names: tuple[str, ...]):
    images = torch.stack([pixels(photo(width=30)).roll(i, 2) for i in range(6)])
    plan = [(torch.tensor([0, 1, 2, 3]), 11), (torch.tensor([5, 4]), 12)]
    before = state()
    shown = [list(stream(images, *names, workers=workers).batches(plan)) for workers in (0, 2)]
    assert state() == before
    for (x, y), (other, same) in zip(*shown, strict=True):
        assert torch.equal(x, other)
        assert torch.equal(y, same)


@pytest.mark.parametrize("names", [(), *DONE], ids="+".join)
@pytest.mark.parametrize("channels", [1, 3])
def test_files_of_any_size_and_kind_become_squares_beside_their_labels(names, channels: int, folder: Path):
    data = create_data(
        "image_folder",
        root=str(folder),
        size=16,
        channels=channels,
        workers=0,
        batch_size=4,
        test_fraction=0.25,
        augment={name: ALL[name] for name in names},
    )
    for x, y in data.training(epoch=int):
        assert x.shape == (4, channels, 16, 16)
        assert ((x >= 0) & (x <= 1)).all()
        assert set(y.tolist()) <= {0, 1}


def test_a_run_draws_the_same_whether_files_are_augmented_or_not():
    before = state()
    augmentation({**ALL, "random_scaled_crop": None})
    assert state() == before


def test_pixels_in_memory_are_augmented_as_files_are_and_keep_their_labels():
    labels = torch.arange(24) % 4
    images = (labels * 60 + 20).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 16, 16)  # the class is the brightness
    data = create_data("textures", size=16, count=32, batch_size=8, augment={"random_resized_crop": {}, "flip": {}})
    data.parts["train"] = Arrays(images, labels)
    for epoch in range(2):
        for x, y in data.training(epoch=lambda e=epoch: e):
            assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y * 60 + 20)


# --- augmentations that have a name ------------------------------------------------------------------------------


def composed(*overrides: str) -> dict[str, Any]:
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return OmegaConf.to_container(compose("train", overrides=list(overrides)).augment)


@pytest.mark.parametrize("name", POLICIES)
def test_a_named_augmentation_says_which_paper_and_where_and_gives_batches(name: str):
    first = (ROOT / "configs" / "augment" / f"{name}.yaml").read_text().splitlines()[0]
    assert name in ("none", "flip") or re.match(r"# .+ (19|20)\d\d\)?, .*(section|appendix|Table|datasets/)", first)
    nodes = composed(f"augment={name}")
    data = create_data("textures", size=16, count=32, batch_size=8, augment=nodes)
    data.parts["train"] = data.parts["train"].subset(torch.arange(16))
    (x, y), (other, _) = list(data.training(epoch=int))
    assert x.shape == other.shape == (8, 3, 16, 16)
    assert x.isfinite().all()
    assert ((x >= 0) & (x <= 1 + 1e-6)).all()
    assert y.shape == ((8, 4) if augmentation(nodes).mix else (8,))


@pytest.mark.parametrize("name", IMAGENET)
def test_an_experiment_on_imagenet_shows_random_parts_of_its_images(name: str):
    found = augmentation(composed(f"experiment={name}"))
    assert found.crop is not None
    assert "flip" in [each.func.__name__ for each in found.batch]


# experiment → the shares of the area, or the pixels of the shorter side around those that are shown
SHOWN = {
    "googlenet": (0.08, 1),
    "mobilenet_v1": (0.2, 1),
    "resnet50": (256, 480),
    "vgg16": (256, 512),
    "squeezenet": (256, 256),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_experiments_crops_are_those_of_its_paper(name: str):
    crop = augmentation(composed(f"experiment={name}_imagenet")).crop
    sizes = {"random_resized_crop": 1, "random_scaled_crop": 227 if name == "squeezenet" else 224}
    size = sizes[crop.func.__name__]
    assert [round(size * share, 2) for share in crop.keywords["scale"]] == pytest.approx(SHOWN[name], abs=0.01)
