"""Parameter groups, and learning-rate schedules as closed forms of the step, so that a resumed run goes on exactly."""

import math
from collections.abc import Callable, Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module, *, decay_norms: bool = False, decay_depthwise: bool = True) -> list[dict]:
    """All parameters; in a group of their own those without weight decay.

    These are norms' and biases' unless `decay_norms`, and the filters of depthwise convolutions, which have few weights
    to spare, unless `decay_depthwise` (Howard et al. 2017, section 3.2).
    """
    filters = (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1)
    depthwise = {id(convolution.weight) for convolution in filters}

    def spared(p: nn.Parameter) -> bool:
        return (p.ndim <= 1 and not decay_norms) or (id(p) in depthwise and not decay_depthwise)

    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if not spared(p)]},
        {"params": [p for p in learned if spared(p)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def constant(optimizer: Optimizer, *, steps_per_epoch: int, epochs: float, warmup: float = 0.0) -> LambdaLR:
    """The optimiser's rate, after a linear warm-up of `warmup` epochs (of any schedule at most half of them all)."""
    warmup = min(warmup, epochs / 2)
    return _by_epoch(optimizer, lambda epoch: 1.0, steps_per_epoch, warmup)


def cosine(
    optimizer: Optimizer, *, steps_per_epoch: int, epochs: float, warmup: float = 0.5, floor: float = 0.0
) -> LambdaLR:
    """Half a cosine from the rate to `floor` times the rate (Loshchilov & Hutter 2017), after `warmup` epochs."""
    warmup = min(warmup, epochs / 2)

    def factor(epoch: float) -> float:
        done = min((epoch - warmup) / max(epochs - warmup, 1e-9), 1.0)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return _by_epoch(optimizer, factor, steps_per_epoch, warmup)


def step(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    epochs: float,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """Times `gamma` at each milestone: an epoch, or below 1 a share of all epochs."""
    warmup = min(warmup, epochs / 2)
    at = [m * epochs if m < 1 else m for m in milestones]
    return _by_epoch(optimizer, lambda epoch: gamma ** sum(epoch >= m for m in at), steps_per_epoch, warmup)


def exponential(
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    epochs: float,
    gamma: float = 0.94,
    every: float = 2.0,
    warmup: float = 0.0,
) -> LambdaLR:
    """Times `gamma` every `every` epochs, in steps (Inception: 0.94 every 2)."""
    warmup = min(warmup, epochs / 2)
    return _by_epoch(optimizer, lambda epoch: gamma ** math.floor(epoch / every), steps_per_epoch, warmup)


def polynomial(
    optimizer: Optimizer, *, steps_per_epoch: int, epochs: float, power: float = 1.0, warmup: float = 0.0
) -> LambdaLR:
    """(1 − t)^power of the rate, where t goes from 0 to 1 over the epochs after `warmup`: linear for SqueezeNet."""
    warmup = min(warmup, epochs / 2)

    def factor(epoch: float) -> float:
        return max(1 - (epoch - warmup) / max(epochs - warmup, 1e-9), 0.0) ** power

    return _by_epoch(optimizer, factor, steps_per_epoch, warmup)


def _by_epoch(optimizer: Optimizer, factor: Callable[[float], float], steps_per_epoch: int, warmup: float) -> LambdaLR:
    def at(step: int) -> float:
        epoch = step / steps_per_epoch
        if epoch < warmup:  # the first step already moves, the last of the warm-up is below the full rate
            return (step + 1) / (warmup * steps_per_epoch + 1)
        return factor(epoch)

    return LambdaLR(optimizer, at)
