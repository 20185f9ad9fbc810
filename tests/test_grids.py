"""Where a grid takes pixels from: affine, projective, thin-plate."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.grids import affine_grid, homography, projective_grid, sample, target, thin_plate, thin_plate_grid

EXACT = torch.empty(0, dtype=torch.float64)
SIDES = [(5, 8), (6, 3), (7, 7), (2, 2)]


def matrices(n: int) -> Tensor:
    """Affine maps (n, 2, 3) that are not far from the identity."""
    return torch.eye(2, 3, dtype=torch.float64) + 0.3 * torch.randn(n, 2, 3, dtype=torch.float64)


def corners() -> Tensor:
    return target(2, 2, EXACT).view(4, 2)


def control(k: int) -> Tensor:
    return target(k, k, EXACT).view(-1, 2)


def mapped(theta: Tensor, points: Tensor) -> Tensor:
    """Points (…, 2) by affine maps (N, 2, 3)."""
    return points @ theta[:, :, :2].mT + theta[:, None, :, 2]


# --- the regular grid and the sampler ----------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_the_regular_grid_has_x_first_and_runs_from_minus_1_to_1_between_the_outermost_centres(height, width):
    grid = target(height, width, EXACT)
    assert grid.shape == (height, width, 2)
    for row in range(height):
        for column in range(width):
            expected = [2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1]
            assert grid[row, column].tolist() == pytest.approx(expected, abs=1e-15)


def test_a_side_of_one_pixel_lies_in_the_middle():
    assert target(1, 3, EXACT).tolist() == [[[-1, 0], [0, 0], [1, 0]]]
    assert target(1, 1, EXACT).tolist() == [[[0, 0]]]
    identity = torch.eye(2, 3)[None]
    assert affine_grid(identity, 3, 1).tolist() == [[[[0, -1]], [[0, 0]], [[0, 1]]]]


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_the_regular_grid_shows_the_image_as_it_is(height, width):
    u = torch.rand(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(sample(u, target(height, width, EXACT).expand(2, -1, -1, -1)), u)


def test_outside_of_the_image_is_zero_or_its_border_or_its_mirror_image():
    u = torch.tensor([[[[1.0, 2.0, 4.0]]]]).expand(1, 1, 3, 3)
    right = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2)  # a pixel beyond the last
    assert [sample(u, right, outside=how).item() for how in ("zeros", "border", "reflection")] == [0, 4, 2]


# --- affine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), SIDES)
def test_an_affine_grid_is_torchs_and_equation_1(height, width):
    theta = matrices(4)
    grid = affine_grid(theta, height, width)
    torch.testing.assert_close(grid, F.affine_grid(theta, [4, 1, height, width], align_corners=True))
    regular = target(height, width, EXACT).view(-1, 2)
    torch.testing.assert_close(grid.view(4, -1, 2), mapped(theta, regular))


def test_no_transform_gives_no_grid():
    assert affine_grid(torch.empty(0, 2, 3), 4, 5).shape == (0, 4, 5, 2)
    assert sample(torch.empty(0, 3, 6, 6), torch.empty(0, 4, 5, 2)).shape == (0, 3, 4, 5)


GRIDS = {
    "affine": lambda kind: affine_grid(torch.eye(2, 3, dtype=kind)[None], 224, 224),
    "projective": lambda kind: projective_grid(torch.eye(3, dtype=kind)[None], 224, 224),
    "thin plate": lambda kind: thin_plate_grid(target(4, 4, torch.empty(0, dtype=kind)).view(1, -1, 2), 224, 224),
}


@pytest.mark.parametrize("name", GRIDS)
def test_autocast_and_half_precision_do_not_move_pixels(name: str):
    regular = target(224, 224, torch.empty(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(GRIDS[name](torch.float32)[0], regular, rtol=0, atol=1e-6)
    if name != "thin plate":  # a third, the place of its points, is no number of bfloat16
        torch.testing.assert_close(GRIDS[name](torch.bfloat16)[0], regular, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_an_image_comes_back_in_the_type_that_it_has(kind: torch.dtype):
    u = torch.rand(1, 1, 4, 4).to(kind)
    shown = sample(u, affine_grid(torch.eye(2, 3)[None], 4, 4))
    assert shown.dtype == kind
    torch.testing.assert_close(shown, u, rtol=0, atol=1e-2)


# --- projective --------------------------------------------------------------------------------------------------


def test_the_identity_homography_gives_the_regular_grid_at_any_scale_of_its_matrix():
    for scale in 1.0, -3.0:
        grid = projective_grid(scale * torch.eye(3, dtype=torch.float64)[None], 5, 8)
        torch.testing.assert_close(grid[0], target(5, 8, EXACT))


def test_a_homography_without_perspective_is_an_affine_map():
    theta = matrices(5)
    whole = torch.cat([theta, torch.tensor([[[0.0, 0, 1]]], dtype=torch.float64).expand(5, -1, -1)], dim=1)
    torch.testing.assert_close(projective_grid(whole, 6, 9), affine_grid(theta, 6, 9))


def test_corners_land_where_a_homography_is_told_to_take_them_from():
    source = corners() + 0.3 * torch.randn(6, 4, 2, dtype=torch.float64)
    grid = projective_grid(homography(source), 5, 7)
    found = grid[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # upper left, upper right, lower left, lower right
    torch.testing.assert_close(found, source)


def test_a_homography_of_a_parallelogram_is_its_affine_map():
    theta = matrices(5)
    h = homography(mapped(theta, corners()))
    torch.testing.assert_close(h[:, :2], theta)
    torch.testing.assert_close(h[:, 2], torch.tensor([[0.0, 0, 1]], dtype=torch.float64).expand(5, -1))


def test_a_homography_keeps_lines_straight_and_puts_the_middle_where_the_diagonals_cross():
    top, bottom = 0.5, 1.0  # a trapezium: half as wide above as below
    source = torch.tensor([[-top, -1], [top, -1], [-bottom, 1], [bottom, 1]], dtype=torch.float64)[None]
    grid = projective_grid(homography(source), 3, 3)[0]
    torch.testing.assert_close(grid[1, 1], torch.tensor([0.0, -1 / 3], dtype=torch.float64))  # not 0
    for line in grid.unbind(0) + grid.unbind(1) + (grid[[0, 1, 2], [0, 1, 2]],):
        one, other = line[1] - line[0], line[2] - line[0]
        assert (one[0] * other[1] - one[1] * other[0]).abs() < 1e-12


# --- thin plate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4])
def test_control_points_that_stay_give_the_regular_grid(k: int):
    torch.testing.assert_close(thin_plate_grid(control(k)[None], 9, 6)[0], target(9, 6, EXACT), rtol=0, atol=1e-15)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_control_points_land_where_a_thin_plate_is_told_to_take_them_from(k: int):
    source = control(k) + 0.2 * torch.randn(3, k * k, 2, dtype=torch.float64)
    side = 2 * (k - 1) + 1  # every second pixel is a control point
    grid = thin_plate_grid(source, side, side)
    torch.testing.assert_close(grid[:, ::2, ::2].reshape(3, -1, 2), source)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_thin_plate_through_an_affine_map_is_that_map_everywhere(k: int):
    theta = matrices(4)
    torch.testing.assert_close(thin_plate_grid(mapped(theta, control(k)), 6, 9), affine_grid(theta, 6, 9))


def test_the_weights_of_a_thin_plate_sum_to_one_and_are_one_at_their_own_point():
    weights = thin_plate(control(4), torch.rand(20, 2, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(thin_plate(control(4), control(4)), torch.eye(16, dtype=torch.float64))


def test_a_thin_plate_over_a_square_whose_middle_is_raised_is_what_symmetry_says():
    """f = a + w (U(to the middle) − Σ U(to a corner) / 4): the weights add up to 0, and no side is above another."""
    square = torch.cat([corners(), torch.zeros(1, 2, dtype=torch.float64)])

    def bend(squared: float) -> float:
        return squared * math.log(squared) if squared else 0.0

    def bent(x: float, y: float) -> float:
        return bend(x**2 + y**2) - sum(bend((x - a) ** 2 + (y - b) ** 2) for a, b in corners().tolist()) / 4

    w = 1 / (bent(0, 0) - bent(1, 1))  # the middle is at 1, the corners at 0
    weights = thin_plate(square, torch.tensor([[0.5, 0.0], [0.3, -0.8]], dtype=torch.float64))
    expected = [w * (bent(0.5, 0) - bent(1, 1)), w * (bent(0.3, -0.8) - bent(1, 1))]
    assert weights[:, 4].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [0, 1, 3, 15])
def test_points_that_are_no_square_grid_are_refused(count: int):
    with pytest.raises(ValueError, match=f"^{count} control points are no square grid of 2×2 or more$"):
        thin_plate_grid(torch.zeros(1, count, 2), 4, 4)


@pytest.mark.parametrize("name", ["projective", "thin plate"])
def test_gradients_of_a_grid_are_those_of_finite_differences(name: str):
    start = 0.1 * torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    make = {
        "projective": lambda moves: projective_grid(homography(corners() + moves), 3, 4),
        "thin plate": lambda moves: thin_plate_grid(corners() + moves, 3, 4),
    }[name]
    assert torch.autograd.gradcheck(make, (start,))
