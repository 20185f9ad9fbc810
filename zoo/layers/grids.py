"""Where each pixel of an image is taken from: grids of source coordinates, and the sampler that reads them.

Coordinates (x, y) run from −1 to 1 between the centres of the outermost pixels (align_corners), as the equations of
Jaderberg et al. 2015, section 3.2 are usually read; a side of one pixel has it at 0. Grids have the digits of float32
at least: those of bfloat16 would be off by half a pixel of 224. For the same reason they are sums, not matrix
products, which autocast and TF32 would round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(u: Tensor, grid: Tensor, *, outside: str = "zeros") -> Tensor:
    """Bilinear, Jaderberg et al. 2015, equation 5. u: (N, C, H, W); grid: (N, h, w, 2). Returns (N, C, h, w), as u.

    outside: what lies beyond the image, "zeros", "border" or "reflection".
    """
    kind = torch.promote_types(u.dtype, grid.dtype)
    v = F.grid_sample(u.to(kind), grid.to(kind), mode="bilinear", padding_mode=outside, align_corners=True)
    return v.to(u.dtype)


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """theta: (N, 2, 3), target to source (equation 1). Returns (N, height, width, 2)."""
    theta = precise(theta)
    x, y = (axis(side, theta) for side in (width, height))
    across = theta[:, None, :, 0] * x[:, None]  # (N, w, 2)
    down = theta[:, None, :, 1] * y[:, None] + theta[:, None, :, 2]  # (N, h, 2)
    return across[:, None] + down[:, :, None]


def target(height: int, width: int, like: Tensor) -> Tensor:
    """The regular grid (height, width, 2), on the device and of the type of another tensor."""
    y, x = (axis(side, like) for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def axis(side: int, like: Tensor) -> Tensor:
    if side == 1:
        return like.new_zeros(1)
    return torch.linspace(-1, 1, side, dtype=like.dtype, device=like.device)


def precise(theta: Tensor) -> Tensor:
    return theta.to(torch.promote_types(theta.dtype, torch.float32))


def projective_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """theta: (N, 3, 3), homographies from target to source. Returns (N, height, width, 2)."""
    theta = precise(theta)
    x, y = target(height, width, theta).unbind(-1)
    column = theta[..., None, None]  # (N, 3, 3, 1, 1)
    u, v, w = (column[:, :, 0] * x + column[:, :, 1] * y + column[:, :, 2]).unbind(1)
    return torch.stack([u / w, v / w], dim=-1)


def homography(source: Tensor) -> Tensor:
    """Four points (N, 4, 2) → theta (N, 3, 3) that maps the corners of the target to them.

    The corners are in the order (−1, −1), (1, −1), (−1, 1), (1, 1).
    """
    source = precise(source)
    x, y = target(2, 2, source).view(4, 2).unbind(-1)
    u, v = source.unbind(-1)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    x, y = x.expand_as(u), y.expand_as(u)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    h = torch.linalg.solve(torch.cat([rows_u, rows_v], dim=1), torch.cat([u, v], dim=1))
    return torch.cat([h, one[:, :1]], dim=1).view(-1, 3, 3)


def thin_plate(control: Tensor, points: Tensor) -> Tensor:
    """Weights (P, K) with which a thin-plate spline through values at K control points gives its value at P points.

    Bookstein 1989: U(r) = r² log r², and an affine part. control: (K, 2), not on one line, points: (P, 2); float64.
    """
    k = len(control)
    system = control.new_zeros(k + 3, k + 3)
    system[:k, :k] = bending(control, control)
    system[:k, k], system[:k, k + 1 :] = 1, control
    system[k, :k], system[k + 1 :, :k] = 1, control.T
    basis = torch.cat([bending(points, control), points.new_ones(len(points), 1), points], dim=1)
    return torch.linalg.solve(system, basis, left=False)[:, :k]


def bending(points: Tensor, control: Tensor) -> Tensor:
    square = (points[:, None] - control).square().sum(-1)
    return torch.where(square > 0, square * square.clamp_min(1e-300).log(), 0.0)


def thin_plate_grid(source: Tensor, height: int, width: int) -> Tensor:
    """source: (N, K, 2), where a regular k×k grid of control points is taken from. Returns (N, height, width, 2)."""
    k = round(source.shape[1] ** 0.5)
    if k < 2 or k * k != source.shape[1]:
        raise ValueError(f"{source.shape[1]} control points are no square grid of 2×2 or more")
    source = precise(source)
    exact = torch.empty(0, dtype=torch.float64)  # on the CPU: not every device has float64
    control, points = (target(*shape, exact).view(-1, 2) for shape in ((k, k), (height, width)))
    weights = thin_plate(control, points).to(source)
    # The spline of what the points are moved by, which is small: a product that is rounded leaves the identity exact.
    moved = torch.einsum("pk,nkc->npc", weights, source - control.to(source))
    return (points.to(source) + moved).view(-1, height, width, 2)
