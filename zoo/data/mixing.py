"""Mixing of images and their labels: (x, y, generator) → (x, y), for y (N, K) probabilities.

Each image has its own share λ, and a partner from the batch.
"""

import numpy as np
import torch
from torch import Generator, Tensor

from zoo.data.augment import AUGMENTS, inside


@AUGMENTS.register(each="label")
def mixup(x: Tensor, y: Tensor, generator: Generator, *, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018, mixup: λ x + (1 − λ) x', with λ from Beta(alpha, alpha), and labels likewise."""
    share = beta("mixup", alpha, x, generator)
    other = torch.randperm(len(x), generator=generator, device=x.device)
    of_x, of_y = share[:, None, None, None], share[:, None]
    return of_x * x + (1 - of_x) * x[other], of_y * y + (1 - of_y) * y[other]


@AUGMENTS.register(each="label")
def cutmix(x: Tensor, y: Tensor, generator: Generator, *, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Yun et al. 2019, CutMix: a rectangle with 1 − λ of the area comes from the partner, λ from Beta(alpha, alpha).

    Its centre is any pixel; what of it lies outside is cut off, and labels are mixed by the area that is left.
    """
    n, _, height, width = x.shape
    side = (1 - beta("cutmix", alpha, x, generator)).sqrt()
    tall, wide = (side * height).round(), (side * width).round()
    row, column = (torch.randint(edge, (n,), generator=generator, device=x.device) for edge in (height, width))
    box = inside(x, (row - tall / 2).floor(), (column - wide / 2).floor(), tall, wide)
    other = torch.randperm(n, generator=generator, device=x.device)
    share = 1 - box.float().mean((1, 2, 3))[:, None]
    return torch.where(box, x[other], x), share * y + (1 - share) * y[other]


def beta(name: str, alpha: float, x: Tensor, generator: Generator) -> Tensor:
    """(N,) draws from Beta(alpha, alpha); by NumPy, which has it with a seed of its own on every device."""
    if not alpha > 0:
        raise ValueError(f"{name}: alpha={alpha} must be above 0")
    random = np.random.default_rng([generator.initial_seed(), *name.encode()])
    return torch.from_numpy(random.beta(alpha, alpha, len(x))).to(x.device, x.dtype)
