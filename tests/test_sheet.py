"""The sheet of pictures shows everything there is to see."""

import pytest
import torch

from zoo.__main__ import main
from zoo.data import AUGMENTS, DATASETS
from zoo.report import sheet


def test_every_augmentation_of_the_package_is_on_the_sheet():
    ours = {name for name in AUGMENTS if AUGMENTS[name].builder.__module__.startswith("zoo.")}
    assert {name for name, _ in sheet.AUGMENTATIONS} == ours


def test_every_set_that_is_drawn_from_mnist_is_on_the_sheet():
    drawn = {name for name in DATASETS if DATASETS[name].builder.__module__ == "zoo.data.recipes"}
    assert {name for name, *_ in sheet.SETS} >= drawn | {"textures", "faces"}


def test_an_augmentation_is_shown_as_training_applies_it():
    plain, flipped = (sheet.augmented("flip", {"p": p}) for p in (0.0, 1.0))
    assert torch.equal(plain, sheet.photographs() / 255)
    assert torch.equal(flipped, plain.flip(3))


def test_a_sheet_has_a_row_for_each_title_and_two_channels_are_red_and_green():
    image = sheet.pasted([("one", torch.ones(10, 1, 8, 8)), ("two", torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))])
    assert image.size == (sheet.MARGIN + 10 * (sheet.TILE + sheet.GAP), 2 * (sheet.TILE + sheet.GAP))
    assert image.getpixel((sheet.MARGIN + 5, 5)) == (255, 255, 255)
    assert image.getpixel((sheet.MARGIN + 5, sheet.TILE + sheet.GAP + 5)) == (255, 0, 0)


@pytest.mark.slow
def test_the_command_draws_it(tmp_path, shared):
    assert main(["sheet", str(tmp_path / "sheet.png"), "--root", str(shared / "data")]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 100_000
