"""Where each pixel of an image is taken from: grids of source coordinates, and the sampler that reads them.

Coordinates (x, y) run from −1 to 1 between the centres of the outermost pixels (align_corners), as the equations of
Jaderberg et al. 2015, section 3.2 are usually read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(u: Tensor, grid: Tensor, *, outside: str = "zeros") -> Tensor:
    """Bilinear, Jaderberg et al. 2015, equation 5. u: (N, C, H, W); grid: (N, h, w, 2). Returns (N, C, h, w).

    outside: what lies beyond the image, "zeros", "border" or "reflection".
    """
    return F.grid_sample(u, grid, mode="bilinear", padding_mode=outside, align_corners=True)


def affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """theta: (N, 2, 3), target to source (equation 1). Returns (N, height, width, 2)."""
    return F.affine_grid(theta, [len(theta), 1, height, width], align_corners=True)


def target(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """The regular grid (height, width, 2)."""
    y, x = (torch.linspace(-1, 1, side, device=device) for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def projective_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """theta: (N, 3, 3), homographies from target to source. Returns (N, height, width, 2)."""
    regular = target(height, width, theta.device).to(theta.dtype)
    points = torch.cat([regular, torch.ones_like(regular[..., :1])], dim=-1)
    x, y, w = torch.einsum("nij,hwj->inhw", theta, points)
    return torch.stack([x / w, y / w], dim=-1)


def homography(source: Tensor) -> Tensor:
    """Four points (N, 4, 2) → theta (N, 3, 3) that maps the corners of the target to them.

    The corners are in the order (−1, −1), (1, −1), (−1, 1), (1, 1).
    """
    x, y = target(2, 2, source.device).to(source.dtype).view(4, 2).unbind(-1)
    u, v = source.unbind(-1)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    x, y = x.expand_as(u), y.expand_as(u)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    h = torch.linalg.solve(torch.cat([rows_u, rows_v], dim=1), torch.cat([u, v], dim=1))
    return torch.cat([h, one[:, :1]], dim=1).view(-1, 3, 3)


def thin_plate(control: Tensor, points: Tensor) -> Tensor:
    """Weights (P, K) with which a thin-plate spline through values at K control points gives its value at P points.

    Bookstein 1989: U(r) = r² log r², and an affine part. control: (K, 2), points: (P, 2).
    """
    k = len(control)
    system = torch.zeros(k + 3, k + 3, dtype=torch.float64, device=control.device)
    system[:k, :k] = bending(control, control)
    system[:k, k], system[:k, k + 1 :] = 1, control
    system[k, :k], system[k + 1 :, :k] = 1, control.T
    ones = torch.ones(len(points), 1, dtype=torch.float64, device=points.device)
    basis = torch.cat([bending(points, control), ones, points.double()], dim=1)
    return torch.linalg.solve(system, basis, left=False)[:, :k]


def bending(points: Tensor, control: Tensor) -> Tensor:
    square = (points.double()[:, None] - control.double()).square().sum(-1)
    return torch.where(square > 0, square * square.clamp_min(1e-300).log(), 0.0)


def thin_plate_grid(source: Tensor, height: int, width: int) -> Tensor:
    """source: (N, K, 2), where a regular k×k grid of control points is taken from. Returns (N, height, width, 2)."""
    k = round(source.shape[1] ** 0.5)
    if k * k != source.shape[1]:
        raise ValueError(f"{source.shape[1]} control points are no square grid")
    control, points = (target(*shape, source.device).view(-1, 2) for shape in ((k, k), (height, width)))
    weights = thin_plate(control, points).to(source.dtype)
    return torch.einsum("pk,nkc->npc", weights, source).view(-1, height, width, 2)
