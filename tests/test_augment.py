"""What is done to whole batches: each image has its own draw, and the draws are those that are told."""

import itertools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvisions

from zoo.data import AUGMENTS, Batches
from zoo.data.augment import (
    EIGENVALUES,
    EIGENVECTORS,
    affine,
    color,
    crop,
    cutout,
    erase,
    flip,
    lighting,
    linear,
    warped,
)
from zoo.data.images import Arrays
from zoo.data.mixing import cutmix, mixup, mixup_or_cutmix
from zoo.losses import cross_entropy

TURNS = {"rotate": 30, "translate": 2, "scale": (0.8, 1.2), "shear": 10}
# every augmentation of batches, with options that change each image
BATCHED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "crop": ("crop", {"padding": 3}),
    "crop reflect": ("crop", {"padding": 3, "fill": "reflect"}),
    "flip": ("flip", {}),
    "affine": ("affine", TURNS),
    "affine reflect": ("affine", {**TURNS, "fill": "reflect"}),
    "color": ("color", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}),
    "lighting": ("lighting", {"std": 0.5}),
    "erase": ("erase", {"p": 1.0}),
    "erase noise": ("erase", {"p": 1.0, "fill": "noise"}),
    "cutout": ("cutout", {"size": 5}),
}
MIXED: Mapping[str, Mapping[str, Any]] = {"mixup": {"alpha": 0.4}, "cutmix": {"alpha": 1.0}, "mixup_or_cutmix": {}}
Change = Callable[..., Any]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bound(case: str) -> Change:
    name, options = BATCHED.get(case) or (case, MIXED[case])
    return AUGMENTS.bind(name, **options)


def noise(n: int, channels: int = 3, height: int = 12, width: int = 10) -> Tensor:
    return torch.rand(n, channels, height, width, generator=draws(9))


def uniform(values: Tensor, low: float, high: float) -> bool:
    """Whether the values may well be draws from [low, high], by Kolmogorov's test, and none lies outside."""
    inside = low - 1e-3 <= values.min() and values.max() <= high + 1e-3
    return inside and stats.kstest(values.double(), stats.uniform(low, high - low).cdf).pvalue > 0.01


def likely(counts: Tensor) -> bool:
    """Whether counts of cells may well be those of cells that are equally likely."""
    return stats.chisquare(counts.flatten()).pvalue > 0.01


# --- every augmentation of batches -------------------------------------------------------------------------------


def test_the_tables_of_these_tests_hold_every_augmentation_of_batches():
    own = [name for name in AUGMENTS if AUGMENTS[name].builder.__module__.startswith("zoo.")]
    each = {name: AUGMENTS[name].facts.get("each", "batch") for name in own}
    assert {name for name, _ in BATCHED.values()} == {name for name in own if each[name] == "batch"}
    assert MIXED.keys() == {name for name in own if each[name] == "label"}


def once(case: str, x: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
    if case in BATCHED:
        return (bound(case)(x, draws(seed)),)
    return bound(case)(x, torch.eye(len(x), dtype=x.dtype), draws(seed))


@pytest.mark.parametrize("case", [*BATCHED, *MIXED])
def test_a_batch_is_a_function_of_its_generators_seed_and_of_nothing_else(case: str):
    x = noise(16)
    before = x.clone()
    first = once(case, x)
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert all(map(torch.equal, first, once(case, x)))
    assert not torch.equal(first[0], once(case, x, seed=1)[0])
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert torch.equal(x, before)  # and is not written over


@pytest.mark.parametrize("case", [*BATCHED, *MIXED])
def test_a_generator_that_goes_on_gives_another_draw(case: str):
    x, generator = noise(16), draws()
    labels = () if case in BATCHED else (torch.eye(16),)
    one, other = (bound(case)(x, *labels, generator) for _ in range(2))
    assert not (torch.equal(one, other) if case in BATCHED else torch.equal(one[1], other[1]))


@pytest.mark.parametrize("case", BATCHED)
def test_each_image_has_its_own_draw(case: str):
    shown = bound(case)(noise(1).repeat(64, 1, 1, 1), draws())
    different = len(set(map(bytes, shown.numpy())))
    assert different == 2 if case == "flip" else different > 30


@pytest.mark.parametrize("case", BATCHED)
def test_an_image_comes_from_the_one_in_its_place_alone_so_that_labels_stay_right(case: str):
    x = noise(16)
    other = x.clone()
    other[5] = 1 - x[5]
    same = [torch.equal(*pair) for pair in zip(bound(case)(x, draws()), bound(case)(other, draws()), strict=True)]
    assert same == [i != 5 for i in range(16)]


@pytest.mark.parametrize("shape", [(1, 3, 12, 10), (0, 3, 12, 10), (4, 3, 9, 16), (4, 1, 8, 8), (4, 2, 8, 8)], ids=str)
@pytest.mark.parametrize("case", [*BATCHED, *MIXED])
def test_shape_and_range_stay_for_any_number_of_images_and_channels(case: str, shape: tuple[int, ...]):
    if case == "lighting":  # of RGB alone
        shape = (shape[0], 3, *shape[2:])
    for x in torch.rand(shape), torch.ones(shape):
        shown, *labels = once(case, x)
        assert shown.shape == shape
        assert shown.dtype == torch.float32
        assert ((shown >= 0) & (shown <= 1 + 1e-6)).all()
        assert all(y.shape == (shape[0], shape[0]) for y in labels)


@pytest.mark.parametrize("sides", [(1, 1), (1, 6), (6, 1)], ids=str)
@pytest.mark.parametrize("case", [*BATCHED, *MIXED])
def test_images_of_a_single_row_or_column_are_possible(case: str, sides: tuple[int, int]):
    if case == "crop reflect":
        with pytest.raises(ValueError, match="crop: padding=3 is more than images of"):
            once(case, torch.rand(4, 3, *sides))
    else:
        shown, *_ = once(case, torch.rand(4, 3, *sides))
        assert shown.shape == (4, 3, *sides)
        assert shown.isfinite().all()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", [*BATCHED, *MIXED])
def test_images_keep_the_type_that_they_have(case: str, kind: torch.dtype):
    shown, *labels = once(case, noise(4).to(kind))
    assert {each.dtype for each in (shown, *labels)} == {kind}
    assert torch.allclose(shown.float(), once(case, noise(4))[0], atol=0.05) or case == "erase noise"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: crop(x, draws(), padding=0),
        lambda x: flip(x, draws(), p=0),
        lambda x: affine(x, draws()),
        lambda x: affine(x, draws(), fill="reflect"),
        lambda x: color(x, draws()),
        lambda x: lighting(x, draws(), std=0),
        lambda x: erase(x, draws(), p=0),
        lambda x: cutmix(x, torch.eye(len(x)), draws(), p=0)[0],
    ],
)
@pytest.mark.parametrize("side", [1, 2, 28, 33])
def test_options_that_ask_for_nothing_change_nothing(change: Change, side: int):
    x = noise(4, height=side, width=side + 1)
    torch.testing.assert_close(change(x), x, rtol=0, atol=1e-5)


# --- crop and flip -----------------------------------------------------------------------------------------------


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


def test_a_crop_of_2_moves_by_each_of_its_25_shifts_equally_often():
    x = torch.zeros(4000, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    counts = crop(x, draws(), padding=2).sum((0, 1))
    assert counts.sum() == counts[2:7, 2:7].sum() == 4000
    assert likely(counts[2:7, 2:7])


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_flip_mirrors_each_image_left_to_right_with_probability_p(p: float):
    x = torch.rand(2000, 1, 3, 4, generator=draws(1))
    shown = flip(x, draws(), p=p)
    turned = (shown == x.flip(3)).flatten(1).all(1)
    assert torch.equal(shown[~turned], x[~turned])
    assert turned.float().mean().item() == pytest.approx(p, abs=0.05 if 0 < p < 1 else 0)


# --- affine ------------------------------------------------------------------------------------------------------


def blob(n: int, *, right: float = 0, down: float = 0, side: int = 41) -> Tensor:
    """A soft spot, in pixels from the centre."""
    at = torch.arange(side) - (side - 1) / 2
    spot = torch.exp(-((at - right).square() + (at[:, None] - down).square()) / 4)
    return spot.expand(n, 1, side, side)


def places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's centre of mass, pixels to the right and down of its middle."""
    at = (torch.arange(x.shape[2]) - (x.shape[2] - 1) / 2).double()
    mass = x[:, 0].double() / x[:, 0].double().sum((1, 2), keepdim=True)
    return (mass.sum(1) * at).sum(1), (mass.sum(2) * at).sum(1)


def angles(*values: float) -> Tensor:
    return torch.deg2rad(torch.tensor(values))


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, -1)])
def test_a_turn_by_a_quarter_is_rot90_counter_clockwise(degrees: float, quarters: int, side: int):
    x = noise(3, height=side, width=side)
    matrix = linear(angles(degrees, degrees, degrees), torch.zeros(3), torch.ones(3))
    shown = warped(x, matrix, torch.zeros(3, 2), outside="reflection")  # at the border a digit of float32 is outside
    torch.testing.assert_close(shown, x.rot90(quarters, (2, 3)), rtol=0, atol=1e-5)


def test_a_turn_by_a_half_of_images_that_are_not_square_turns_them_about_their_centre():
    x = noise(1, height=6, width=11)
    shown = warped(x, linear(angles(180), torch.zeros(1), torch.ones(1)), torch.zeros(1, 2), outside="reflection")
    torch.testing.assert_close(shown, x.flip(2, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-1, -2), (4, -3)])
@pytest.mark.parametrize("outside", ["zeros", "reflection"])
def test_whole_pixels_move_to_the_right_and_down_and_zeros_or_the_mirror_image_come_in(right, down, outside):
    x = noise(2)
    shown = warped(x, torch.eye(2).repeat(2, 1, 1), torch.tensor([[right, down]] * 2).float(), outside=outside)
    around = F.pad(x, [4] * 4, mode="reflect" if outside == "reflection" else "constant")
    expected = around[:, :, 4 - down : 16 - down, 4 - right : 14 - right]
    torch.testing.assert_close(shown, expected, rtol=0, atol=1e-5)


def test_a_larger_canvas_has_the_image_in_its_middle():
    x = noise(2, height=6, width=6)
    shown = warped(x, torch.eye(2).repeat(2, 1, 1), torch.zeros(2, 2), size=10)
    torch.testing.assert_close(shown, F.pad(x, [2] * 4), rtol=0, atol=1e-5)


def test_slant_scale_turn_and_shift_are_done_in_this_order():
    turn, slant, zoom, shift = (
        angles(20, -35),
        angles(10, -15),
        torch.tensor([0.8, 1.3]),
        torch.tensor([[2.0, -3], [1, 4]]),
    )
    x, y = places(warped(blob(2, right=6, down=-5), linear(turn, slant, zoom), shift))
    for i, (down_by, right_by) in enumerate(((-3, 2), (4, 1))):
        right, down = 6 - 5 * math.tan(slant[i]), -5  # rows move along themselves
        right, down = zoom[i].item() * right, zoom[i].item() * down
        cos, sin = math.cos(turn[i]), math.sin(turn[i])
        right, down = cos * right + sin * down, cos * down - sin * right  # what is on the right goes up
        assert (x[i].item(), y[i].item()) == pytest.approx((right + right_by, down + down_by), abs=0.03)


def test_a_rotation_is_uniform_over_its_range():
    x, y = places(affine(blob(4000, right=12), draws(), rotate=45))
    assert uniform(torch.rad2deg(torch.atan2(-y, x)), -45, 45)
    torch.testing.assert_close(torch.hypot(x, y), torch.full_like(x, 12), rtol=0, atol=0.05)


def test_a_shift_of_2_pixels_is_uniform_from_minus_2_to_2_each_way_by_itself():
    x, y = places(affine(blob(4000), draws(), translate=2))
    assert uniform(x, -2, 2)
    assert uniform(y, -2, 2)
    assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 0.05


def test_a_scale_is_uniform_over_its_range_and_2_is_twice_as_large():
    x, y = places(affine(blob(4000, right=8, down=-6), draws(), scale=(0.5, 1.5)))
    assert uniform(x / 8, 0.5, 1.5)
    torch.testing.assert_close(y, x * -6 / 8, rtol=0, atol=0.05)
    x, _ = places(affine(blob(8, right=5), draws(), scale=(2, 2)))
    torch.testing.assert_close(x, torch.full_like(x, 10), rtol=0, atol=0.02)


def test_a_shear_slants_the_vertical_by_angles_uniform_over_its_range():
    x, y = places(affine(blob(4000, down=-12), draws(), shear=25))
    assert uniform(torch.rad2deg(torch.atan2(-x, -y)), -25, 25)
    torch.testing.assert_close(y, torch.full_like(y, -12), rtol=0, atol=0.02)
    x, y = places(affine(blob(100, right=12), draws(), shear=25))
    torch.testing.assert_close(
        torch.stack([x, y]), torch.tensor([[12.0], [0]]).double().expand(2, 100), rtol=0, atol=0.05
    )


def test_what_is_shifted_together_is_drawn_for_each_by_itself():
    """A turn is not the larger the farther an image is shifted: five draws, none a copy of another."""
    x, y = places(affine(blob(4000), draws(), rotate=30, translate=3, scale=(0.8, 1.2), shear=10))
    far, _ = places(affine(blob(4000, right=10), draws(), rotate=30, translate=3, scale=(0.8, 1.2), shear=10))
    moved = torch.stack([x, y, far - x])
    assert (torch.corrcoef(moved) - torch.eye(3)).abs().max() < 0.05


# --- colours -----------------------------------------------------------------------------------------------------


def dull(n: int) -> Tensor:
    """Images that no factor up to 1.5 takes out of [0, 1]."""
    return 0.4 + 0.2 * noise(n, height=4, width=4)


def spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(1)


def vivid(x: Tensor) -> Tensor:
    """How far colours are from grey."""
    return x.std(1).mean((1, 2))


@pytest.mark.parametrize(
    ("option", "adjust", "factor"),
    [
        ("brightness", torchvisions.adjust_brightness, lambda x, shown: shown.mean((1, 2, 3)) / x.mean((1, 2, 3))),
        ("contrast", torchvisions.adjust_contrast, lambda x, shown: spread(shown) / spread(x)),
        ("saturation", torchvisions.adjust_saturation, lambda x, shown: vivid(shown) / vivid(x)),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_a_colour_changes_as_torchvision_changes_it_by_factors_uniform_in_1_plus_minus_what_is_told(
    option: str, adjust: Change, factor: Change
):
    x = dull(2000)
    shown = color(x, draws(), **{option: 0.4})
    factors = factor(x, shown)
    assert uniform(factors, 0.6, 1.4)
    for i in range(40):
        torch.testing.assert_close(
            shown[i], adjust(x[i], factors[i].item()), rtol=0, atol=2e-4
        )  # luma of 3 or 4 digits


def test_no_factor_is_below_0_and_all_above_are_equally_likely():
    assert uniform(color(torch.full((4000, 1, 1, 1), 0.1), draws(), brightness=3)[:, 0, 0, 0] / 0.1, 0, 4)


def test_brightness_comes_first_then_contrast_then_saturation_each_cut_off_at_black_and_white():
    x, options = noise(64), {"brightness": 0.8, "contrast": 0.9, "saturation": 0.7}  # uncut, the order would not matter
    factors = 1 + (2 * torch.rand(3, 64, generator=draws()) - 1) * torch.tensor([[0.8], [0.9], [0.7]])
    for image, shown, (by, apart, most) in zip(x, color(x, draws(), **options), factors.T.tolist(), strict=True):
        expected = torchvisions.adjust_contrast(torchvisions.adjust_brightness(image, by), apart)
        torch.testing.assert_close(shown, torchvisions.adjust_saturation(expected, most), rtol=0, atol=5e-4)


def test_grey_images_have_no_saturation_to_change():
    x = noise(8, channels=1)
    torch.testing.assert_close(color(x, draws(), saturation=0.9), x)
    three = x.expand(-1, 3, -1, -1)
    torch.testing.assert_close(color(three, draws(), saturation=0.9), three)


def test_lighting_adds_one_colour_to_all_pixels_of_an_image():
    x = 0.5 + 0.1 * noise(16)
    added = lighting(x, draws(), std=0.1) - x
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(x), rtol=0, atol=1e-6)
    assert added.abs().amax((1, 2, 3)).min() > 1e-4


def test_the_colours_of_lighting_have_the_covariance_of_imagenets_principal_components():
    vectors, values = torch.tensor(EIGENVECTORS), torch.tensor(EIGENVALUES)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3), rtol=0, atol=1e-3)
    added = (lighting(torch.full((20_000, 3, 1, 1), 0.5), draws(), std=0.2) - 0.5)[:, :, 0, 0]
    along = added @ vectors  # each component's factor times its value
    assert along.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(along.std(0), 0.2 * values, rtol=0.02, atol=0)
    assert (torch.corrcoef(along.T) - torch.eye(3)).abs().max() < 0.03
    assert stats.kstest(along[:, 0] / (0.2 * values[0]), "norm").pvalue > 0.01


# --- erase and cutout --------------------------------------------------------------------------------------------


def boxes(lost: Tensor) -> Tensor:
    """Top, left, height and width (n, 4) of what is lost of each image (N, H, W) that lost some: a rectangle."""
    found = []
    for each in lost:
        rows, columns = each.any(1).nonzero().flatten(), each.any(0).nonzero().flatten()
        assert each.sum() == len(rows) * len(columns)
        if len(rows):
            assert (len(rows), len(columns)) == (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
            found.append([rows[0].item(), columns[0].item(), len(rows), len(columns)])
    return torch.tensor(found)


def test_erase_takes_a_rectangle_of_uniform_area_and_log_uniform_shape_out_of_all_channels():
    x = torch.ones(1500, 2, 100, 120)
    shown = erase(x, draws(), p=1, scale=(0.02, 0.2), ratio=(0.5, 2.0))
    lost = shown == 0
    assert torch.equal(lost[:, 0], lost[:, 1])
    assert torch.equal(shown, (~lost).float())
    top, left, height, width = boxes(lost[:, 0]).unbind(1)
    jitter = torch.rand(2, 1500, generator=draws(3)) - 0.5  # sides are whole: without it values are tied
    tall, wide = height + jitter[0], width + jitter[1]
    assert stats.kstest(tall * wide / 12_000, stats.uniform(0.02, 0.18).cdf).pvalue > 0.01
    assert stats.kstest((tall / wide).log(), stats.uniform(math.log(0.5), math.log(4)).cdf).pvalue > 0.01
    for first, free in (top, 100 - height + 1), (left, 120 - width + 1):
        assert uniform((first + torch.rand(1500, generator=draws(4))) / free, 0, 1)


def test_a_rectangle_of_one_pixel_is_erased_at_each_pixel_equally_often():
    lost = erase(torch.ones(6000, 1, 6, 5), draws(), p=1, scale=(0.01, 0.01)) == 0
    assert torch.equal(lost.sum((1, 2, 3)), torch.ones(6000, dtype=torch.long))
    assert likely(lost.sum((0, 1)))


@pytest.mark.parametrize("p", [0, 0.25, 1])
def test_erase_leaves_an_image_whole_with_probability_1_minus_p(p: float):
    whole = (erase(torch.ones(2000, 1, 8, 8), draws(), p=p) == 1).flatten(1).all(1)
    assert whole.float().mean().item() == pytest.approx(1 - p, abs=0.03 if 0 < p < 1 else 0)


def test_noise_is_uniform_where_something_was_erased_and_nowhere_else():
    x = torch.full((200, 3, 16, 16), 2.0)
    shown = erase(x, draws(), p=1, fill="noise")
    new = shown != 2
    boxes(new[:, 0])
    assert uniform(shown[new], 0, 1)


def test_a_rectangle_longer_than_a_side_ends_at_it():
    lost = erase(torch.ones(200, 1, 6, 30), draws(), p=1, scale=(0.5, 0.5), ratio=(1.0, 1.0)) == 0
    assert {tuple(box) for box in boxes(lost[:, 0])[:, [0, 2, 3]].tolist()} == {(0, 6, 9)}


def test_cutout_of_one_pixel_takes_each_pixel_equally_often():
    lost = cutout(torch.ones(6000, 3, 6, 5), draws(), size=1, value=0.25) == 0.25
    assert torch.equal(lost.sum((1, 2, 3)), torch.full((6000,), 3))
    assert likely(lost[:, 0].sum(0))


@pytest.mark.parametrize("size", [4, 5])
def test_cutout_takes_a_square_around_any_pixel_that_is_cut_off_at_the_border(size: int):
    lost = cutout(torch.ones(4000, 1, 12, 10), draws(), size=size) == 0
    found = boxes(lost[:, 0])
    centred = {
        (
            max(row - size // 2, 0),
            max(column - size // 2, 0),
            min(row - size // 2 + size, 12),
            min(column - size // 2 + size, 10),
        )
        for row, column in itertools.product(range(12), range(10))
    }
    assert {(top, left, top + height, left + width) for top, left, height, width in found.tolist()} == centred


# --- mixing ------------------------------------------------------------------------------------------------------


def own_channels(n: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Images of which each is 1 in a channel of its own, so that pixels tell whose they are; and its label."""
    return torch.eye(n)[:, :, None, None].expand(n, n, side, side), torch.eye(n)


@pytest.mark.parametrize("case", MIXED)
def test_labels_are_the_shares_that_pixels_come_from_each_image_and_sum_to_one(case: str):
    x, y = own_channels(24)
    shown, labels = bound(case)(x, y, draws())
    torch.testing.assert_close(shown.mean((2, 3)), labels)
    torch.testing.assert_close(labels.sum(1), torch.ones(24))
    assert (labels >= 0).all()
    assert ((labels > 0).sum(1) <= 2).all()  # itself and a partner
    often = 2 if case == "mixup_or_cutmix" else 1
    assert ((labels - y * labels > 0).sum(0) <= often).all()  # and each is the partner of one, in either
    assert (labels.diagonal() < 1).sum() > 12


def test_mixup_mixes_every_pixel_alike():
    x, y = own_channels(24)
    shown, labels = mixup(x, y, draws(), alpha=1)
    torch.testing.assert_close(shown, labels[:, :, None, None].expand_as(shown))


def test_a_generator_that_goes_on_gives_other_shares():
    generator = draws()
    one, other = (mixup(torch.zeros(64, 1, 1, 1), torch.eye(64), generator)[1].diagonal() for _ in range(2))
    assert (one == other).sum() < 5


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_share_of_mixup_is_from_beta_for_each_image(alpha: float):
    n, shares = 100, []
    for seed in range(40):
        _, y = mixup(torch.zeros(n, 1, 1, 1).double(), torch.eye(n).double(), draws(seed), alpha=alpha)
        mixed = (y > 0).sum(1) == 2
        shares.append(y.diagonal()[mixed])
    shares = torch.cat(shares)
    assert len(shares) > 3000
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_shows_a_rectangle_of_the_partner_in_its_own_place_and_the_image_around_it():
    x = noise(32, channels=1, height=20, width=40)
    shown, y = cutmix(x, torch.eye(32), draws())
    partner = (y - torch.diag(y.diagonal())).argmax(1)
    taken = (shown != x)[:, 0]
    assert torch.equal(shown, torch.where(taken[:, None], x[partner], x))
    found = boxes(taken)
    assert len(found) > 25
    free = (found[:, :2] > 0).all(1) & (found[:, 0] + found[:, 2] < 20) & (found[:, 1] + found[:, 3] < 40)
    assert free.any()
    assert ((found[free, 3] - 2 * found[free, 2]).abs() <= 2).all()  # of the image's shape, where no border cuts it


def test_the_area_that_cutmix_takes_is_that_of_uniform_shares_around_uniform_centres():
    """Of a side s of 1, centred anywhere, s − s²/4 lies inside. The mean of its square, with s² uniform, is 77/240."""
    areas = []
    for seed in range(40):
        _, y = cutmix(torch.zeros(100, 1, 64, 64), torch.eye(100), draws(seed))
        own = y.diagonal()
        areas.append(1 - own[(y > 0).sum(1) == 2])  # without a partner, or a pixel of it, nothing is told
    assert torch.cat(areas).mean().item() == pytest.approx(77 / 240, abs=0.015)


def test_the_rectangles_of_cutmix_lie_as_often_on_one_side_as_on_the_other():
    x = torch.arange(6000.0).view(-1, 1, 1, 1).expand(-1, 1, 5, 5)
    often = (cutmix(x, torch.zeros(6000, 1), draws())[0] != x).float().mean((0, 1))
    assert (often - often.flip(0)).abs().max() < 0.03
    assert (often - often.flip(1)).abs().max() < 0.03


def test_cutmix_leaves_an_image_and_its_label_alone_with_probability_1_minus_p():
    x, y = own_channels(200, side=8)
    shown, labels = cutmix(x, y, draws(), p=0.5)
    assert 0.35 < (labels.diagonal() < 1).float().mean() < 0.6
    whole = labels.diagonal() == 1
    assert torch.equal(shown[whole], x[whole])


def test_either_is_mixed_or_cut_half_of_the_time():
    x, y = own_channels(200, side=8)
    shown, labels = mixup_or_cutmix(x, y, draws(), mixup_alpha=1.0)
    torch.testing.assert_close(shown.mean((2, 3)), labels)
    blended = ((shown > 0) & (shown < 1)).flatten(1).any(1)
    assert 0.4 < blended.float().mean() < 0.6


@pytest.mark.parametrize("case", MIXED)
def test_a_batch_of_one_has_no_partner_but_itself(case: str):
    x, y = noise(1), torch.ones(1, 1)
    shown, labels = bound(case)(x, y, draws())
    torch.testing.assert_close(shown, x)
    torch.testing.assert_close(labels, y)


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("case", MIXED)
def test_label_smoothing_of_mixed_labels_is_the_mixture_of_the_smoothed_losses(case: str, eps: float):
    scores = torch.randn(12, 4, dtype=torch.float64)
    one_hot = F.one_hot(torch.arange(12) % 4, 4).double()
    _, y = bound(case)(torch.rand(12, 1, 8, 8, dtype=torch.float64), one_hot, draws())
    parts = [
        y[i, k] * cross_entropy(scores[i : i + 1], torch.tensor([k]), eps=eps) for i in range(12) for k in range(4)
    ]
    torch.testing.assert_close(cross_entropy(scores, y, eps=eps), torch.stack(parts).sum() / 12)


def test_mixing_is_last_and_makes_probabilities_of_labels():
    labels = torch.arange(16) % 4
    pixels = (labels * 60).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 8, 8)
    mix = [AUGMENTS.bind("mixup", alpha=1.0), AUGMENTS.bind("cutmix")]
    batches = Batches(Arrays(pixels, labels), batch_size=16, augment=[flip], mix=mix, num_classes=4)
    ((x, y),) = batches
    assert y.shape == (16, 4)
    torch.testing.assert_close(y.sum(1), torch.ones(16))
    torch.testing.assert_close(x.mean((1, 2, 3)) * 255, y @ torch.tensor([0.0, 60, 120, 180]), rtol=1e-4, atol=1e-3)


# --- options that are not possible -------------------------------------------------------------------------------

PAIR = "must be above 0, two rising numbers"
SHARES = "must be above 0 to 1, two rising numbers"
# name, options, what the one line says
WRONG = [
    ("crop", {"padding": -1}, "crop: padding=-1 must be 0 or above, whole"),
    ("crop", {"padding": 1.5}, "crop: padding=1.5 must be 0 or above, whole"),
    ("crop", {"padding": True}, "crop: padding=True must be 0 or above, whole"),
    ("crop", {"fill": "mirror"}, "crop: fill must be zero or reflect, not 'mirror'"),
    ("crop", {"fill": ["zero"]}, "crop: fill must be zero or reflect, not ['zero']"),
    ("crop", {"padding": 8, "fill": "reflect"}, "crop: padding=8 is more than images of 8×8 have to reflect"),
    ("flip", {"p": 1.1}, "flip: p=1.1 must be from 0 to 1"),
    ("flip", {"p": "often"}, "flip: p=often must be from 0 to 1"),
    ("flip", {"p": math.nan}, "flip: p=nan must be from 0 to 1"),
    ("affine", {"rotate": -1}, "affine: rotate=-1 must be 0 or above"),
    ("affine", {"rotate": math.nan}, "affine: rotate=nan must be 0 or above"),
    ("affine", {"translate": math.inf}, "affine: translate=inf must be 0 or above"),
    ("affine", {"shear": 90}, "affine: shear=90 must be from 0 to 89"),
    ("affine", {"scale": [1.2, 0.8]}, f"affine: scale=[1.2, 0.8] {PAIR}"),
    ("affine", {"scale": [0, 1]}, f"affine: scale=[0, 1] {PAIR}"),
    ("affine", {"scale": [1, 1, 1]}, f"affine: scale=[1, 1, 1] {PAIR}"),
    ("affine", {"scale": 1.5}, f"affine: scale=1.5 {PAIR}"),
    ("affine", {"scale": "ab"}, f"affine: scale=ab {PAIR}"),
    ("affine", {"fill": "noise"}, "affine: fill must be zero or reflect, not 'noise'"),
    ("color", {"contrast": -0.1}, "color: contrast=-0.1 must be 0 or above"),
    ("lighting", {"std": -1}, "lighting: std=-1 must be 0 or above"),
    ("erase", {"p": -1}, "erase: p=-1 must be from 0 to 1"),
    ("erase", {"scale": [0.5, 1.5]}, f"erase: scale=[0.5, 1.5] {SHARES}"),
    ("erase", {"ratio": [2, 1]}, f"erase: ratio=[2, 1] {PAIR}"),
    ("erase", {"fill": "reflect"}, "erase: fill must be zero or noise, not 'reflect'"),
    ("cutout", {"size": 0}, "cutout: size=0 must be 1 or above, whole"),
    ("cutout", {"value": 2}, "cutout: value=2 must be from 0 to 1"),
    ("mixup", {"alpha": 0}, "mixup: alpha=0 must be above 0"),
    ("cutmix", {"alpha": -1}, "cutmix: alpha=-1 must be above 0"),
    ("cutmix", {"p": 2}, "cutmix: p=2 must be from 0 to 1"),
    ("mixup_or_cutmix", {"mixup_alpha": 0}, "mixup: alpha=0 must be above 0"),
]


@pytest.mark.parametrize(("name", "options", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_an_option_that_is_not_possible_is_told_in_one_line(name: str, options: Mapping[str, Any], said: str):
    x = torch.rand(2, 3, 8, 8)
    labels = (torch.eye(2),) if name in MIXED else ()
    with pytest.raises(ValueError) as error:
        AUGMENTS.bind(name, **options)(x, *labels, draws())
    assert str(error.value) == said


def test_lighting_is_of_colour_images_alone():
    with pytest.raises(ValueError, match=r"^lighting: it changes the colours of RGB images, these have 1 channels$"):
        lighting(torch.rand(1, 1, 8, 8), draws())
