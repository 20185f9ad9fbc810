"""Mixing of images and their labels: (x, y, generator) → (x, y), for y (N, K) probabilities.

Each image has its own share λ, and a partner from the batch, which may be itself.
"""

import numpy as np
import torch
from torch import Generator, Tensor

from zoo.data.augment import AUGMENTS, check, chosen, inside


@AUGMENTS.register(each="label")
def mixup(x: Tensor, y: Tensor, generator: Generator, *, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Zhang et al. 2018, mixup: λ x + (1 − λ) x', with λ from Beta(alpha, alpha), and labels likewise."""
    share = beta("mixup", alpha, x, generator)
    other = torch.randperm(len(x), generator=generator, device=x.device)
    of_x, of_y = share[:, None, None, None], share[:, None]
    return of_x * x + (1 - of_x) * x[other], of_y * y + (1 - of_y) * y[other]


@AUGMENTS.register(each="label")
def cutmix(x: Tensor, y: Tensor, generator: Generator, *, alpha: float = 1.0, p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Yun et al. 2019, CutMix: a rectangle with 1 − λ of the area comes from the partner, λ from Beta(alpha, alpha).

    Its centre is anywhere; what of it lies outside is cut off, and labels are mixed by the area that is left.
    p: the share of images that get one.
    """
    n, _, height, width = x.shape
    side = (1 - beta("cutmix", alpha, x, generator)).sqrt() * chosen("cutmix", p, x, generator).flatten()
    tall, wide = (side * height).round(), (side * width).round()
    down, across = torch.rand(2, n, generator=generator, device=x.device)
    box = inside(x, (down * height - tall / 2).round(), (across * width - wide / 2).round(), tall, wide)
    other = torch.randperm(n, generator=generator, device=x.device)
    share = 1 - box.to(x.dtype).mean((1, 2, 3))[:, None]
    return torch.where(box, x[other], x), share * y + (1 - share) * y[other]


@AUGMENTS.register(each="label")
def mixup_or_cutmix(
    x: Tensor, y: Tensor, generator: Generator, *, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Touvron et al. 2021, DeiT, Table 9: mixup or CutMix, as likely; here of each image, there of each batch."""
    mixed, mixed_y = mixup(x, y, generator, alpha=mixup_alpha)
    cut, cut_y = cutmix(x, y, generator, alpha=cutmix_alpha)
    either = chosen("mixup_or_cutmix", 0.5, x, generator)
    return torch.where(either, mixed, cut), torch.where(either[:, :, 0, 0], mixed_y, cut_y)


def beta(name: str, alpha: float, x: Tensor, generator: Generator) -> Tensor:
    """(N,) draws from Beta(alpha, alpha); by NumPy, which torch's generator only seeds: its own waits for a GPU."""
    check(name, strict=True, alpha=alpha)
    random = np.random.default_rng(generator.get_state().numpy().view(np.uint32))
    return torch.from_numpy(random.beta(alpha, alpha, len(x))).to(x.dtype).to(x.device, non_blocking=True)
