"""Which images of a set are used, and under which label. Every draw is fixed by its seed."""

from collections.abc import Sequence

import torch
from torch import Tensor


def stratified(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two parts, the second with `share` of each class, drawn by the seed alone; both in rising order."""
    counts = labels.bincount()
    exact = share * counts.double()
    held_out = exact.floor().long()
    # what rounding down leaves over goes to the classes that lost most by it: the sum is right to one image
    left_over = round(share * len(labels)) - int(held_out.sum())
    held_out[(held_out - exact).argsort(stable=True)[:left_over]] += 1
    return drawn(labels, held_out, seed)


def drawn(labels: Tensor, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two parts, the second with `counts[k]` images of each class k; both in rising order."""
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for label, n in enumerate(counts.tolist()):
        of_class = (labels == label).nonzero().flatten()
        of_class = of_class[torch.randperm(len(of_class), generator=generator)]
        second.append(of_class[:n])
        first.append(of_class[n:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def fewer(labels: Tensor, fraction: float, seed: int, classes: Sequence[str]) -> Tensor:
    """Indices of a fraction of each class. ValueError if it is not in (0, 1] or leaves a class without images."""
    if not 0 < fraction <= 1:
        raise ValueError(f"data.fraction={fraction} must be above 0, at most 1")
    _, kept = stratified(labels, fraction, seed)
    return not_emptied(labels, kept, f"data.fraction={fraction}", classes)


def long_tailed(labels: Tensor, imbalance: float, seed: int, classes: Sequence[str]) -> Tensor:
    """Indices of a long tail: the first class keeps all images, the last `1 / imbalance` of its own.

    Class k of K keeps imbalance^(−k / (K − 1)) of its images (Cui et al. 2019, Class-balanced loss, section 5.1).
    ValueError if imbalance is below 1 or leaves a class without images.
    """
    if imbalance < 1:
        raise ValueError(f"data.imbalance={imbalance} must be 1 (none) or above: the first class over the last")
    counts = labels.bincount(minlength=len(classes))
    share = imbalance ** -torch.linspace(0, 1, len(counts), dtype=torch.float64)
    _, kept = drawn(labels, (counts * share).floor().long(), seed)
    return not_emptied(labels, kept, f"data.imbalance={imbalance}", classes)


def not_emptied(labels: Tensor, kept: Tensor, option: str, classes: Sequence[str]) -> Tensor:
    lost = (labels.bincount(minlength=len(classes)) > 0) & (labels[kept].bincount(minlength=len(classes)) == 0)
    if lost.any():
        raise ValueError(f"{option} leaves no training image of class {classes[int(lost.nonzero()[0])]!r}")
    return kept


def relabelled(labels: Tensor, share: float, seed: int, num_classes: int) -> Tensor:
    """Labels of which `share`, rounded to one image, are replaced by another class, each as likely (symmetric noise).

    ValueError if share is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"data.label_noise={share} must be from 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    other = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    noisy = labels.clone()
    noisy[chosen] = (labels[chosen] + other) % num_classes
    return noisy
