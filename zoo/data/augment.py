"""Augmentation of whole batches, each image with its own draw: (x, generator) → x, for x (N, C, H, W) in [0, 1].

They run where the batch is and draw from the generator alone, so that a batch is a function of its seed.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from zoo.layers.grids import affine_grid, sample
from zoo.registry import Registry

AUGMENTS = Registry("augmentation")

FILLS = {"zero": ("constant", "zeros"), "reflect": ("reflect", "reflection")}  # for F.pad and the sampler
# Of the colours of ImageNet's pixels in [0, 1] (fb.resnet.torch, after Krizhevsky et al. 2012, section 4.1).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))  # columns


@AUGMENTS.register
def crop(x: Tensor, generator: Generator, *, padding: int = 4, fill: str = "zero") -> Tensor:
    """Pads all sides and cuts the old size out at random: a shift by −padding to padding pixels each way.

    fill: "zero", or "reflect" for the image's own border.
    """
    if padding < 0:
        raise ValueError(f"crop: padding={padding} must be 0 or above")
    n, _, height, width = x.shape
    windows = F.pad(x, [padding] * 4, mode=filled("crop", fill)[0]).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator, device=x.device)
    return windows[torch.arange(n, device=x.device), :, top, left]


@AUGMENTS.register
def flip(x: Tensor, generator: Generator, *, p: float = 0.5) -> Tensor:
    """Mirrors left and right with probability p."""
    return torch.where(chosen("flip", p, x, generator), x.flip(3), x)


@AUGMENTS.register
def affine(
    x: Tensor,
    generator: Generator,
    *,
    rotate: float = 0.0,
    translate: float = 0.0,
    scale: Sequence[float] = (1.0, 1.0),
    shear: float = 0.0,
    fill: str = "zero",
) -> Tensor:
    """Turns by ±`rotate` degrees, shifts by ±`translate` pixels each way, scales, and slants by ±`shear` degrees.

    All are uniform, and done at once: the image is resampled only once. scale: the least and the most, 2 is twice as
    large. fill: as in `crop`.
    """
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"affine: scale={list(scale)} must be two rising numbers above 0")
    if min(rotate, translate, shear) < 0 or shear >= 90:
        raise ValueError(
            f"affine: rotate={rotate}, translate={translate}, shear={shear} must be 0 or above, shear < 90"
        )
    turn, slant, across, down, size = 2 * torch.rand(5, len(x), generator=generator, device=x.device) - 1
    turn, slant = (torch.deg2rad(angle * most) for angle, most in ((turn, rotate), (slant, shear)))
    zoom = low + (high - low) * (size + 1) / 2
    matrix = linear(turn, slant, zoom)
    return warped(x, matrix, translate * torch.stack([across, down], dim=-1), outside=filled("affine", fill)[1])


def linear(turn: Tensor, slant: Tensor, zoom: Tensor) -> Tensor:
    """(N, 2, 2): slanted, scaled, then turned counter-clockwise as seen, with y downwards; angles in radians."""
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack([cos, sin, -sin, cos], dim=-1).view(-1, 2, 2)
    one, zero = torch.ones_like(slant), torch.zeros_like(slant)
    shear = torch.stack([one, slant.tan(), zero, one], dim=-1).view(-1, 2, 2)
    return zoom[:, None, None] * rotation @ shear


def warped(x: Tensor, matrix: Tensor, shift: Tensor, *, outside: str = "zeros", size: int | None = None) -> Tensor:
    """Images whose pixel at p from the centre goes to `matrix` p + `shift`, in pixels; (N, 2, 2) and (N, 2), x first.

    size: of the square that they are shown on, their own if None.
    """
    height, width = x.shape[2:]
    tall, wide = (height, width) if size is None else (size, size)
    back = torch.linalg.inv(matrix)
    theta = torch.cat([back, -back @ shift[:, :, None]], dim=2)
    # from units of half the target to pixels, and from pixels to units of half the source
    enters = torch.tensor([(wide - 1) / 2, (tall - 1) / 2, 1.0], device=x.device)
    leaves = torch.tensor([2 / (width - 1), 2 / (height - 1)], device=x.device)
    return sample(x, affine_grid(leaves[:, None] * theta * enters, tall, wide), outside=outside)


@AUGMENTS.register
def color(
    x: Tensor, generator: Generator, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
) -> Tensor:
    """Factors uniform in 1 ± each, never below 0: brightness, then contrast (to the mean grey), then saturation."""
    if min(brightness, contrast, saturation) < 0:
        told = f"brightness={brightness}, contrast={contrast}, saturation={saturation}"
        raise ValueError(f"color: {told} must be 0 or above")
    draws = 2 * torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device) - 1
    most = draws.new_tensor((brightness, contrast, saturation)).view(3, 1, 1, 1, 1)
    by, apart, vivid = (1 + most * draws).clamp_min(0)
    x = (x * by).clamp(0, 1)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + apart * (x - mean)).clamp(0, 1)
    without = grey(x)
    return (without + vivid * (x - without)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """(N, 1, H, W): luma of RGB (ITU-R BT.601), the mean of other channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return torch.einsum("nchw,c->nhw", x, x.new_tensor((0.299, 0.587, 0.114)))[:, None]


@AUGMENTS.register
def lighting(x: Tensor, generator: Generator, *, std: float = 0.1) -> Tensor:
    """Krizhevsky et al. 2012, section 4.1: adds multiples of the principal components of ImageNet's colours.

    std: of the normal factor of each component. ValueError unless the images have three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(f"lighting: it changes the colours of RGB images, these have {x.shape[1]} channels")
    if std < 0:
        raise ValueError(f"lighting: std={std} must be 0 or above")
    alpha = std * torch.randn(len(x), 3, generator=generator, device=x.device)
    shift = (alpha * x.new_tensor(EIGENVALUES)) @ x.new_tensor(EIGENVECTORS).T
    return (x + shift[:, :, None, None]).clamp(0, 1)


@AUGMENTS.register
def erase(
    x: Tensor,
    generator: Generator,
    *,
    p: float = 0.5,
    scale: Sequence[float] = (0.02, 0.33),
    ratio: Sequence[float] = (0.3, 3.3),
    fill: str = "zero",
) -> Tensor:
    """Zhong et al. 2017, Random erasing: with probability p a rectangle, a share in `scale` of the area, is lost.

    ratio: height over width, log-uniform. fill: "zero", or "noise" for pixels uniform in [0, 1]. Rectangles that
    would be longer than a side end at it.
    """
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]) or fill not in ("zero", "noise"):
        raise ValueError(f"erase: scale={list(scale)}, ratio={list(ratio)}, fill={fill!r} are not possible")
    n, _, height, width = x.shape
    area, aspect, down, across = torch.rand(4, n, generator=generator, device=x.device)
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    aspect = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)
    tall, wide = (area * aspect).sqrt().round().clamp(1, height), (area / aspect).sqrt().round().clamp(1, width)
    top, left = (down * (height - tall + 1)).floor(), (across * (width - wide + 1)).floor()
    lost = inside(x, top, left, tall, wide) & chosen("erase", p, x, generator)
    new = torch.rand(x.shape, generator=generator, device=x.device) if fill == "noise" else torch.zeros_like(x)
    return torch.where(lost, new, x)


@AUGMENTS.register
def cutout(x: Tensor, generator: Generator, *, size: int = 16) -> Tensor:
    """DeVries, Taylor 2017, Cutout: a square of `size` pixels around any pixel becomes zero; it may reach outside."""
    if size < 1:
        raise ValueError(f"cutout: size={size} must be 1 or above")
    n, _, height, width = x.shape
    row, column = (torch.randint(side, (n,), generator=generator, device=x.device) for side in (height, width))
    side = torch.full_like(row, size)
    return torch.where(inside(x, row - size // 2, column - size // 2, side, side), 0.0, x)


def inside(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(N, 1, H, W): whether a pixel lies in its image's rectangle; each (N,), in pixels."""
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    vertical = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    horizontal = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None]


def chosen(name: str, p: float, x: Tensor, generator: Generator) -> Tensor:
    """(N, 1, 1, 1): True with probability p."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p={p} must be from 0 to 1")
    return (torch.rand(len(x), generator=generator, device=x.device) < p)[:, None, None, None]


def filled(name: str, fill: str) -> tuple[str, str]:
    """The words of F.pad and of the sampler for a fill."""
    if fill not in FILLS:
        raise ValueError(f"{name}: fill must be zero or reflect, not {fill!r}")
    return FILLS[fill]
