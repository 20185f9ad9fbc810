"""Images that are drawn from those of another set, on the device that they are wanted on."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.data.images import Arrays, Batch, Draw

Drawn = Mapping[str, np.ndarray]  # the parameters of N images, by name, each (N, …)
SHOWN = 4096  # images that mean and standard deviation are estimated from


class Recipe(Protocol):
    """How an image comes from others. `draw` takes its numbers from NumPy alone, which has the same ones everywhere."""

    shape: tuple[int, int, int]  # (C, H, W)

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        """Parameters of images whose first part is image `first` (N,) of the base, whose labels are given.

        `label` (N,) is among them, and `first` itself.
        """

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        """Base images uint8 (M, C, H, W) and parameters → images float in [0, 1], and what is to be learnt of them."""


@dataclass(frozen=True)
class Derived:
    """Images by a recipe: drawn afresh for each batch, by its seed, or once for all, `fixed`."""

    base: Arrays
    recipe: Recipe
    fixed: Drawn | None = None

    @property
    def labels(self) -> Tensor:
        return self.base.labels if self.fixed is None else torch.from_numpy(self.fixed["label"])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.recipe.shape

    @property
    def targets(self) -> tuple[str, ...]:
        return getattr(self.recipe, "targets", ("label",))

    def subset(self, indices: Tensor) -> "Derived":
        """Drawn ones are drawn from this part of the base alone."""
        if self.fixed is None:
            return replace(self, base=self.base.subset(indices))
        return replace(self, fixed={name: values[indices.numpy()] for name, values in self.fixed.items()})

    def labelled(self, labels: Tensor) -> "Derived":
        if self.fixed is None:
            return replace(self, base=self.base.labelled(labels))
        return replace(self, fixed={**self.fixed, "label": labels.numpy()})

    def to(self, device: torch.device) -> "Derived":
        return replace(self, base=self.base.to(device))

    def batches(self, plan: Iterable[Draw]) -> Iterator[Batch]:
        device, labels = self.base.images.device, self.base.labels.cpu().numpy()
        for chosen, seed in plan:
            first = chosen.cpu().numpy()
            if self.fixed is None:
                drawn = self.recipe.draw(np.random.Generator(np.random.PCG64(seed)), first, labels)
            else:
                drawn = {name: values[first] for name, values in self.fixed.items()}
            yield self.recipe.render(self.base.images, {name: on(device, values) for name, values in drawn.items()})

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel of some images, in units of [0, 1]."""
        ((x, _),) = self.batches([(torch.arange(min(SHOWN, len(self.labels))), 0)])
        std, mean = torch.std_mean(x.double(), (0, 2, 3), correction=0)
        return [round(value, 6) for value in mean.tolist()], [round(value, 6) or 1.0 for value in std.tolist()]


def on(device: torch.device, values: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.to(device, torch.float32 if tensor.is_floating_point() else torch.int64)


def fixed(base: Arrays, recipe: Recipe, *, count: int | None = None, seed: int = 0) -> Derived:
    """Images whose parameters are drawn once: `count` of them, None for one of each of the base's images."""
    first = np.arange(len(base.labels) if count is None else count) % len(base.labels)
    random = np.random.Generator(np.random.PCG64(seed))
    return Derived(base, recipe, recipe.draw(random, first, base.labels.numpy()))
