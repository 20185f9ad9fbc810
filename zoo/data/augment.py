"""Augmentation of whole batches, each image with its own draw: (x, generator) → x, for x (N, C, H, W) in [0, 1].

They run where the batch is, never wait for it, and draw from the generator alone, so that a batch is a function of its
seed. A ValueError tells which option is not possible.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

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
    check("crop", whole=True, padding=padding)
    check_word("crop", FILLS, fill=fill)
    n, _, height, width = x.shape
    if fill == "reflect" and padding >= min(height, width):
        raise ValueError(f"crop: padding={padding} is more than images of {height}×{width} have to reflect")
    windows = F.pad(x, [padding] * 4, mode=FILLS[fill][0]).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator, device=x.device)
    return windows[torch.arange(n, device=x.device), :, top, left]


@AUGMENTS.register
def flip(x: Tensor, generator: Generator, *, p: float = 0.5) -> Tensor:
    """Mirrors left and right with probability p."""
    columns = torch.arange(x.shape[3], device=x.device)
    columns = torch.where(chosen("flip", p, x, generator), columns.flip(0), columns)  # (N, 1, 1, W)
    return x.gather(3, columns.expand(x.shape))


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

    All are uniform, and done at once about the centre: the image is resampled only once. scale: the least and the
    most, 2 is twice as large. shear: of the vertical, rows move along themselves. fill: as in `crop`.
    """
    check("affine", rotate=rotate, translate=translate)
    check("affine", most=89, shear=shear)
    check("affine", strict=True, pair=True, scale=scale)
    check_word("affine", FILLS, fill=fill)
    turn, slant, across, down, size = 2 * torch.rand(5, len(x), generator=generator, device=x.device) - 1
    zoom = scale[0] + (scale[1] - scale[0]) * (size + 1) / 2
    matrix = linear(torch.deg2rad(turn * rotate), torch.deg2rad(slant * shear), zoom)
    return warped(x, matrix, translate * torch.stack([across, down], dim=-1), outside=FILLS[fill][1])


def linear(turn: Tensor, slant: Tensor, zoom: Tensor) -> Tensor:
    """(N, 2, 2): slanted, scaled, then turned counter-clockwise as seen, with y downwards; angles in radians, (N,)."""
    cos, sin, tan = turn.cos(), turn.sin(), slant.tan()
    rows = torch.stack([cos, cos * tan + sin, -sin, cos - sin * tan], dim=-1).view(-1, 2, 2)
    return zoom[:, None, None] * rows


def inverse(matrix: Tensor) -> Tensor:
    """(N, 2, 2); torch's own would wait for a GPU, to see whether there is one."""
    a, b, c, d = matrix.flatten(1).unbind(1)
    return torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]


def warped(x: Tensor, matrix: Tensor, shift: Tensor, *, outside: str = "zeros", size: int | None = None) -> Tensor:
    """Images whose pixel at p from the centre goes to `matrix` p + `shift`, in pixels; (N, 2, 2) and (N, 2), x first.

    size: of the square that they are shown on, their own if None. Along a side of one pixel nothing moves.
    """
    height, width = x.shape[2:]
    tall, wide = (height, width) if size is None else (size, size)
    back = inverse(matrix)
    theta = torch.cat([back, -(back * shift[:, None]).sum(2, keepdim=True)], dim=2)
    # from units of half the target to pixels, and from pixels to units of half the source
    enters = constant([(wide - 1) / 2, (tall - 1) / 2, 1.0], theta)
    leaves = constant([2 / max(width - 1, 1), 2 / max(height - 1, 1)], theta)
    return sample(x, affine_grid(leaves[:, None] * theta * enters, tall, wide), outside=outside)


@AUGMENTS.register
def color(
    x: Tensor, generator: Generator, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0
) -> Tensor:
    """Brightness, then contrast (from the mean grey), then saturation: factors uniform in 1 ± each, from 0 at least."""
    check("color", brightness=brightness, contrast=contrast, saturation=saturation)
    draws = torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device)
    most = constant((brightness, contrast, saturation), draws).view(3, 1, 1, 1, 1)
    least = (1 - most).clamp_min(0)
    by, apart, vivid = (least + (1 + most - least) * draws).to(x.dtype)
    x = (x * by).clamp(0, 1)
    mean = grey(x).mean((1, 2, 3), keepdim=True)
    x = (mean + apart * (x - mean)).clamp(0, 1)
    without = grey(x)
    return (without + vivid * (x - without)).clamp(0, 1)


def grey(x: Tensor) -> Tensor:
    """(N, 1, H, W): luma of RGB (ITU-R BT.601), the mean of other channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * constant((0.299, 0.587, 0.114), x).view(3, 1, 1)).sum(1, keepdim=True)


@AUGMENTS.register
def lighting(x: Tensor, generator: Generator, *, std: float = 0.1) -> Tensor:
    """Krizhevsky et al. 2012, section 4.1: adds multiples of the principal components of ImageNet's colours.

    std: of the normal factor of each component. ValueError unless the images have three channels.
    """
    if x.shape[1] != 3:
        raise ValueError(f"lighting: it changes the colours of RGB images, these have {x.shape[1]} channels")
    check("lighting", std=std)
    alpha = std * torch.randn(len(x), 3, generator=generator, device=x.device)
    shift = (alpha * constant(EIGENVALUES, alpha)) @ constant(EIGENVECTORS, alpha).T
    return (x + shift[:, :, None, None].to(x.dtype)).clamp(0, 1)


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
    check("erase", strict=True, most=1, pair=True, scale=scale)
    check("erase", strict=True, pair=True, ratio=ratio)
    check_word("erase", ("zero", "noise"), fill=fill)
    n, _, height, width = x.shape
    area, aspect, down, across = torch.rand(4, n, generator=generator, device=x.device)
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    aspect = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)
    tall, wide = (area * aspect).sqrt().round().clamp(1, height), (area / aspect).sqrt().round().clamp(1, width)
    top, left = (down * (height - tall + 1)).floor(), (across * (width - wide + 1)).floor()
    lost = inside(x, top, left, tall, wide) & chosen("erase", p, x, generator)
    if fill == "zero":
        return torch.where(lost, 0.0, x)
    return torch.where(lost, torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device), x)


@AUGMENTS.register
def cutout(x: Tensor, generator: Generator, *, size: int = 16, value: float = 0.0) -> Tensor:
    """DeVries, Taylor 2017, Cutout: a square of `size` pixels around any pixel gets one value; it may reach outside.

    value: the paper's zero is that of normalised images, which is their mean colour here.
    """
    check("cutout", least=1, whole=True, size=size)
    check("cutout", most=1, value=value)
    n, _, height, width = x.shape
    row, column = (torch.randint(side, (n,), generator=generator, device=x.device) for side in (height, width))
    side = torch.full_like(row, size)
    return torch.where(inside(x, row - size // 2, column - size // 2, side, side), value, x)


def inside(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(N, 1, H, W): whether a pixel lies in its image's rectangle; each (N,), in pixels."""
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    vertical = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    horizontal = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None]


def chosen(name: str, p: float, x: Tensor, generator: Generator) -> Tensor:
    """(N, 1, 1, 1): True with probability p."""
    check(name, most=1, p=p)
    return (torch.rand(len(x), generator=generator, device=x.device) < p)[:, None, None, None]


def constant(values: Sequence, like: Tensor) -> Tensor:
    """As like.new_tensor, which waits for a GPU."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def check(
    name: str,
    *,
    least: float = 0,
    most: float = math.inf,
    strict: bool = False,
    whole: bool = False,
    pair: bool = False,
    **options: Any,
) -> None:
    """ValueError unless each option is a number from `least` (above it if `strict`) to `most`, or a rising pair."""
    kind = int if whole else int | float
    words = f"above {least:g}" if strict else f"{least:g} or above" if most == math.inf else f"from {least:g}"
    words += f" to {most:g}" * (most < math.inf) + ", whole" * whole + ", two rising numbers" * pair
    for option, given in options.items():
        numbers = list(given) if pair and isinstance(given, Sequence) else [given]
        fits = len(numbers) == 1 + pair and all(isinstance(n, kind) and not isinstance(n, bool) for n in numbers)
        fits = fits and least <= numbers[0] <= numbers[-1] <= most and math.isfinite(numbers[-1])
        if not fits or (strict and numbers[0] == least):
            raise ValueError(f"{name}: {option}={given} must be {words}")


def check_word(name: str, known: Collection[str], **options: Any) -> None:
    """ValueError unless each option is one of the known words."""
    for option, given in options.items():
        if given not in list(known):
            *others, last = known
            raise ValueError(f"{name}: {option} must be {', '.join(others)} or {last}, not {given!r}")
