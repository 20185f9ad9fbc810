"""Augmentation of whole batches, each image with its own draw: (x, generator) → x, for x (N, C, H, W) in [0, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.registry import Registry

AUGMENTS = Registry("augmentation")


@AUGMENTS.register
def crop(x: Tensor, generator: torch.Generator, *, padding: int = 4, fill: str = "zero") -> Tensor:
    """Pads all sides and cuts the old size out at random: a shift by −padding to padding pixels each way.

    fill: "zero", or "reflect" for the image's own border.
    """
    if padding < 0:
        raise ValueError(f"crop: padding={padding} must be 0 or above")
    modes = {"zero": "constant", "reflect": "reflect"}
    if fill not in modes:
        raise ValueError(f"crop: fill must be zero or reflect, not {fill!r}")
    n, _, height, width = x.shape
    windows = F.pad(x, [padding] * 4, mode=modes[fill]).unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator, device=x.device)
    return windows[torch.arange(n, device=x.device), :, top, left]


@AUGMENTS.register
def flip(x: Tensor, generator: torch.Generator, *, p: float = 0.5) -> Tensor:
    """Mirrors left and right with probability p."""
    if not 0 <= p <= 1:
        raise ValueError(f"flip: p={p} must be from 0 to 1")
    turned = torch.rand(len(x), generator=generator, device=x.device) < p
    return torch.where(turned[:, None, None, None], x.flip(3), x)
