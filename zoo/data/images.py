"""Images that a set is made of: what knows its labels and turns a plan of batches into pixels."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

# What is to be learnt: labels, long (N,); or `label` and what else is known of an image, by name.
Target = Tensor | Mapping[str, Tensor]
Batch = tuple[Tensor, Target]  # images (N, C, H, W), uint8 or float in [0, 1]
Draw = tuple[Tensor, int]  # the indices of a batch's images, and the seed of all that is drawn for it


class Images(Protocol):
    labels: Tensor  # long (N,)
    shape: tuple[int, int, int]  # (C, H, W) of each image

    def subset(self, indices: Tensor) -> "Images": ...
    def labelled(self, labels: Tensor) -> "Images": ...
    def to(self, device: torch.device) -> "Images": ...
    def batches(self, plan: Iterable[Draw]) -> Iterator[Batch]: ...
    def statistics(self) -> tuple[list[float], list[float]]: ...


@dataclass(frozen=True)
class Arrays:
    """A set that fits: its uint8 images live on the device that trains."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # long (N,)

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.images.shape[1:])

    def subset(self, indices: Tensor) -> "Arrays":
        return Arrays(self.images[indices], self.labels[indices])

    def labelled(self, labels: Tensor) -> "Arrays":
        return replace(self, labels=labels)

    def to(self, device: torch.device) -> "Arrays":
        return Arrays(self.images.to(device), self.labels.to(device))

    def batches(self, plan: Iterable[Draw]) -> Iterator[Batch]:
        for chosen, _ in plan:
            chosen = chosen.to(self.images.device, non_blocking=True)
            yield self.images.index_select(0, chosen), self.labels[chosen]  # much faster than indexing

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in units of [0, 1]: from a histogram, so exactly."""
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in self.images.unbind(1):
            share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
            mean = (share * values).sum()
            means.append(round(mean.item(), 6))
            stds.append(round((share * (values - mean).square()).sum().sqrt().item(), 6))
        return means, [std or 1.0 for std in stds]  # a constant channel is left as it is
