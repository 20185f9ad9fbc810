"""Sets that are drawn from MNIST's images: where things land, what is said of them, and that tests stay the same."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

from zoo.data import DATASETS, Batches, create_data
from zoo.data.derived import Derived, fixed
from zoo.data.images import Arrays
from zoo.data.recipes import (
    DISTORTIONS,
    Added,
    Bent,
    Cluttered,
    Overlaid,
    Recipe,
    Shifted,
    Similar,
    Warped,
    affnist_file,
)
from zoo.data.sets import DIGITS, Sets

RECIPES: dict[str, Recipe] = {**DISTORTIONS, "added": Added(Similar(42, 45)), "affine": Warped(), "two": Overlaid()}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def blobs(count: int = 200, *, at: tuple[int, int] = (13, 13)) -> Arrays:
    """28×28, dark but for 2×2 pixels of full light, which lie at the centre; labels in turn."""
    images = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    images[:, :, at[0] : at[0] + 2, at[1] : at[1] + 2] = 255
    return Arrays(images, torch.arange(count) % 10)


def shades(count: int = 200) -> Arrays:
    """28×28 of one shade, which tells the label: 25 times it, and 10 more."""
    labels = torch.arange(count) % 10
    return Arrays((25 * labels + 10).to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 28, 28), labels)


def shown(images: Derived, seed: int = 0, count: int | None = None) -> tuple[Tensor, Tensor]:
    ((x, y),) = images.batches([(torch.arange(count or len(images.labels)), seed)])
    return x, y


def centres(x: Tensor) -> Tensor:
    """Centre of mass from the image's centre, in pixels: (N, 2), x first."""
    side = x.shape[-1]
    place = torch.arange(side) - (side - 1) / 2
    mass = x.sum((1, 2, 3))
    return torch.stack([(x.sum((1, 2)) * place).sum(1), (x.sum((1, 3)) * place).sum(1)], dim=1) / mass[:, None]


def even(values: Tensor, low: float, high: float) -> None:
    """Uniform between low and high: Kolmogorov and Smirnov's distance, at the chance of one in a thousand."""
    found = (values.double().sort().values - low) / (high - low)
    assert ((found >= -0.01) & (found <= 1.01)).all()
    steps = torch.arange(1, len(found) + 1) / len(found)
    assert (found - steps).abs().max() < 1.95 / len(found) ** 0.5


# --- the recipes ------------------------------------------------------------------------------------------------


@recipes
def test_pixels_are_in_0_to_1_and_of_the_shape_that_is_promised(recipe: Recipe):
    x, _ = shown(Derived(shades(), recipe))
    assert x.shape == (200, *recipe.shape)
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1
    assert x.flatten(1).amax(1).min() > 0.02


def test_rts_digits_lie_anywhere_on_the_canvas_and_nothing_else_moves_their_centre():
    x, y = shown(fixed(blobs(2000), Similar(42, rotate=45, scale=(0.7, 1.2))))
    for axis in centres(x).unbind(1):
        even(axis, -7, 7)
    assert torch.equal(y, torch.arange(2000) % 10)


def test_r_digits_turn_uniformly_by_up_to_90_degrees_each_way():
    right = blobs(2000, at=(13, 23))  # right of the centre by 10 pixels
    centre = centres(shown(fixed(right, DISTORTIONS["R"]))[0])
    even(torch.rad2deg(torch.atan2(-centre[:, 1], centre[:, 0])), -90, 90)
    torch.testing.assert_close(centre.norm(dim=1), torch.full((2000,), 10.0), atol=0.15, rtol=0)


def test_rts_digits_are_scaled_uniformly_by_07_to_12():
    right = blobs(2000, at=(13, 21))  # by 8 pixels
    moved = fixed(right, Similar(42, rotate=0, scale=(0.7, 1.2)))
    still = replace(moved, fixed={**moved.fixed, "shift": np.zeros((2000, 2))})
    even(centres(shown(still)[0])[:, 0].div(8).clamp(0.7, 1.2), 0.7, 1.2)


@pytest.mark.parametrize(("points", "sigma"), [(2, 5.0), (4, 1.5)])
def test_bent_digits_that_are_neither_bent_nor_scaled_stay_as_they_were(points: int, sigma: float):
    base = Arrays(
        torch.randint(256, (8, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte(), torch.arange(8)
    )
    still = fixed(base, Bent(points, sigma=0.0, scale=(1.0, 1.0)))
    torch.testing.assert_close(shown(still)[0], base.images / 255, atol=2e-4, rtol=0)
    bent = shown(fixed(base, Bent(points, sigma=sigma, scale=(1.0, 1.0))))[0]
    assert (bent - base.images / 255).abs().mean() > 0.1


def test_corners_of_p_and_points_of_e_move_by_a_normal_draw_of_5_and_15_pixels():
    for kind, sigma in ("P", 5.0), ("E", 1.5):
        moves = fixed(shades(2000), DISTORTIONS[kind]).fixed["moves"]
        assert moves.shape == (2000, 4 if kind == "P" else 16, 2)
        assert moves.std() == pytest.approx(sigma, rel=0.03)
        assert abs(moves.mean()) < 0.1


def test_a_cluttered_digit_is_whole_somewhere_and_six_patches_come_from_other_images():
    base = shades(20)
    base.images[0] = 255  # the digit is brighter than all others
    set_ = fixed(base, Cluttered())
    x, _ = shown(set_, count=1)
    digit = (x[0, 0] == 1).nonzero()
    assert len(digit) == 28 * 28
    assert (digit.amax(0) - digit.amin(0)).tolist() == [27, 27]
    drawn = set_.fixed
    assert (drawn["others"] != drawn["first"][:, None]).all()
    assert drawn["others"].shape == (20, 6)
    for i in range(20):
        around = x.new_zeros(1) if i else x[0, 0][x[0, 0] < 1]
        assert set((around * 255).round().int().tolist()) <= {0, *(25 * k + 10 for k in range(10))}
    assert 0 < (x[0, 0] > 0).sum() - 784 <= 6 * 36


def test_the_label_of_an_addition_is_the_sum_of_its_channels():
    x, y = shown(fixed(shades(), Added(Similar(42, rotate=0))))
    shade = (x.amax((2, 3)) * 255 - 10) / 25  # (N, 2)
    torch.testing.assert_close(shade.sum(1), y.float(), atol=0.2, rtol=0)
    assert set(y.tolist()) > set(range(2, 17))


def test_a_shifted_digit_lies_at_each_of_the_whole_places():
    x, _ = shown(fixed(blobs(3000), Shifted(32)))
    found = {tuple(place) for place in (centres(x) + 2).round().int().tolist()}
    assert found == {(i, j) for i in range(5) for j in range(5)}
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_two_digits_are_of_different_classes_and_each_is_known_alone():
    x, y = shown(fixed(shades(1000), Overlaid()))
    assert y.keys() == {"label", "digits", "images"}
    assert (y["digits"][:, 0] != y["digits"][:, 1]).all()
    assert torch.equal(y["digits"][:, 0], torch.arange(1000) % 10)
    assert torch.equal(y["label"].sum(1), torch.full((1000,), 2.0))
    assert y["label"].gather(1, y["digits"]).min() == 1
    assert torch.equal(x, y["images"].sum(1).clamp_max(1))
    alone = (y["images"].amax((2, 3, 4)) * 255).round()
    assert torch.equal(alone, 25.0 * y["digits"] + 10)
    assert y["digits"][:, 1].bincount(minlength=10).min() > 70  # any other class is as likely


def test_the_partner_is_any_image_of_another_class():
    base = Arrays(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 3, 3, 0, 7, 3]))
    drawn = Overlaid().draw(np.random.default_rng(0), np.arange(600) % 6, base.labels.numpy())
    partners = {i: {j for a, j in zip(drawn["first"], drawn["second"], strict=True) if a == i} for i in range(6)}
    assert partners == {0: {1, 2, 4, 5}, 1: {0, 3, 4}, 2: {0, 3, 4}, 3: {1, 2, 4, 5}, 4: {0, 1, 2, 3, 5}, 5: {0, 3, 4}}


# --- drawn and fixed --------------------------------------------------------------------------------------------


@recipes
def test_training_images_are_drawn_afresh_in_each_epoch_and_the_same_for_the_same_seed(recipe: Recipe):
    def epoch(number: int, seed: int = 1) -> Tensor:
        batches = Batches(Derived(shades(), recipe), batch_size=50, seed=seed, training=True, epoch=lambda: number)
        return torch.cat([x for x, _ in batches])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert not torch.equal(epoch(0), epoch(0, seed=2))


@recipes
def test_fixed_images_are_the_same_in_any_batch_and_part(recipe: Recipe):
    images = fixed(shades(), recipe)
    whole, _ = shown(images)
    part = torch.tensor([3, 150, 7])
    torch.testing.assert_close(shown(images.subset(part), seed=9)[0], whole[part], atol=1 / 255, rtol=0)


CHECKSUMS = {
    "R": "d65cd6fe8c99ae23",
    "RTS": "187926aa84c280f1",
    "P": "6133ec8513e82414",
    "E": "6ced52c344f58915",
    "TC": "b59b91252d19166c",
    "added": "ebee2e4624bd88cc",
    "affine": "4f169b8ee4b23d07",
    "two": "00be47a89818e7ed",
}


def checksum(images: Derived) -> str:
    """Of all parameters; real numbers to a millionth, as a last bit may differ between processors."""
    found = hashlib.sha256()
    for name, values in sorted(images.fixed.items()):
        found.update(name.encode())
        whole = np.round(values * 1e6) if values.dtype.kind == "f" else values
        found.update(np.ascontiguousarray(whole.astype("<i8")).tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", RECIPES)
def test_the_parameters_of_a_test_set_have_the_checksum_that_they_have_everywhere(name: str):
    assert checksum(fixed(shades(500), RECIPES[name])) == CHECKSUMS[name]


def test_held_out_images_are_not_drawn_from_when_training():
    images = Derived(shades(), Overlaid()).subset(torch.arange(100))
    drawn = images.recipe.draw(np.random.default_rng(0), np.arange(100), images.base.labels.numpy())
    assert len(images.labels) == 100
    assert drawn["second"].max() < 100


def test_mean_and_std_are_about_those_of_the_images_that_are_drawn():
    images = Derived(shades(1000), Shifted(32))
    x, _ = shown(images, seed=5)
    mean, std = images.statistics()
    assert mean[0] == pytest.approx(x.mean().item(), abs=0.01)
    assert std[0] == pytest.approx(x.std().item(), abs=0.01)


# --- by name ----------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST of few images, whatever lies in data.root."""
    entry = DATASETS["mnist"]
    few = replace(entry, builder=lambda *, root, download: Sets(shades(400), None, shades(100), DIGITS))
    monkeypatch.setitem(DATASETS._entries, "mnist", few)


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize(
    ("name", "options", "shape", "classes"),
    [
        *(("distorted_mnist", {"kind": kind}, (1, 28, 28), 10) for kind in ("R", "P", "E")),
        ("distorted_mnist", {"kind": "RTS"}, (1, 42, 42), 10),
        ("distorted_mnist", {"kind": "TC"}, (1, 60, 60), 10),
        ("mnist_addition", {}, (2, 42, 42), 19),
        ("affnist", {}, (1, 40, 40), 10),
        ("multi_mnist", {"test_count": 250}, (1, 36, 36), 10),
    ],
)
def test_a_derived_set_has_its_papers_size_and_classes_and_a_fixed_test_part(name, options, shape, classes):
    data = create_data(name, batch_size=32, **options)
    assert (data.in_chans, data.image_size) == (shape[0], shape[1])
    assert data.num_classes == classes
    assert len(data.parts["test"].labels) == options.get("test_count", 100)
    assert len(data.parts["train"].labels) == 360
    test = [torch.cat([x for x, _ in data.batches("test")]) for _ in range(2)]
    assert torch.equal(*test)


@pytest.mark.usefixtures("mnist")
def test_what_cannot_be_derived_is_told_in_one_line():
    with pytest.raises(ValueError, match=r"data\.kind must be one of R, RTS, P, E, TC, not 'rts'"):
        create_data("distorted_mnist", kind="rts")
    with pytest.raises(ValueError, match=r"data\.test_count=0 must be 1 or above"):
        create_data("multi_mnist", test_count=0)
    with pytest.raises(FileNotFoundError, match=r"data\.test_file=nowhere\.mat"):
        create_data("affnist", test_file="nowhere.mat")


def test_a_file_of_affnist_gives_its_images_row_by_row_and_another_is_refused(tmp_path):
    images = torch.randint(256, (5, 40, 40), generator=torch.Generator().manual_seed(0)).byte().numpy()
    content = {"image": images.reshape(5, 1600).T, "label_int": np.arange(5, dtype=np.uint8)}
    scipy.io.savemat(tmp_path / "test.mat", {"affNISTdata": content})
    read = affnist_file(tmp_path / "test.mat")
    assert np.array_equal(read.images[:, 0].numpy(), images)
    assert read.labels.tolist() == [0, 1, 2, 3, 4]
    (tmp_path / "other.mat").write_bytes(b"MATLAB?")
    with pytest.raises(ValueError, match=r"other\.mat is no file of affNIST"):
        affnist_file(tmp_path / "other.mat")


@pytest.mark.usefixtures("mnist")
def test_images_of_which_more_than_a_label_is_known_are_not_mixed():
    assert create_data("multi_mnist", batch_size=8).targets == ("label", "digits", "images")
    with pytest.raises(ValueError, match=r"data multi_mnist has more than a label of each image .*: no mixing"):
        create_data("multi_mnist", batch_size=8, augment={"mixup": {}})
