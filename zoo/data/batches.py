"""Images → batches. A batch is a function of (seed, epoch, step): a resumed run sees what it would have seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.images import Draw, Images, Target

Augment = Callable[[Tensor, torch.Generator], Tensor]
Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@runtime_checkable
class Together(Protocol):
    """Images of which many lie in one large file: they arrange themselves, so that few of those are read at a time."""

    def share(self, indices: Tensor, rank: int, world: int) -> Tensor:
        """One process's part of the indices: as many as of every world-th, each index in one process."""


def seed_of(*position: int) -> int:
    """A 64-bit seed for a place in a run, such as (seed, epoch, step, rank); no two places share one."""
    # The length goes in too: NumPy pads with zeros, which would make (seed, epoch) the same as (seed, epoch, 0, 0).
    return int(np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)[0])


class Batches:
    """An epoch over images: float (N, C, H, W) in [0, 1] on `device`, and what is to be learnt of them.

    `epoch` is asked for the epoch's number when an iteration begins. Of `world` processes each sees every world-th
    image, or what images that are `Together` give it; training leaves out what does not fill a batch in all of them.
    `mix` makes probabilities (N, K) of labels of `num_classes` classes. `balanced` draws as many images of each class,
    with replacement, instead of each image once. After `load_state_dict` the next iteration goes on behind the batches
    that had been given out at `state_dict`.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int = 0,
        training: bool = False,
        shuffle: bool = False,
        balanced: bool = False,
        augment: Sequence[Augment] = (),
        mix: Sequence[Mix] = (),
        num_classes: int = 0,
        epoch: Callable[[], int] = int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.device = torch.device(device)
        self.images, self.labels = images, images.labels.cpu()
        self.batch_size, self.seed = batch_size, seed
        self.training, self.shuffle, self.balanced = training, shuffle, balanced
        self.augment, self.mix, self.num_classes = augment, mix, num_classes
        self.epoch, self.rank, self.world = epoch, rank, world
        self._given = self._skipped = 0

    def order(self, epoch: int) -> Tensor:
        """This process's indices in an epoch."""
        count = len(self.labels)
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        if self.balanced and self.shuffle:
            share = 1 / self.labels.bincount().double()
            indices = torch.multinomial(share[self.labels], count, replacement=True, generator=generator)
        elif self.shuffle:
            indices = torch.randperm(count, generator=generator)
        else:
            indices = torch.arange(count)
        if self.training:
            indices = indices[: count - count % (self.batch_size * self.world)]
        if isinstance(self.images, Together):
            return self.images.share(indices, self.rank, self.world)
        return indices[self.rank :: self.world]

    def __len__(self) -> int:
        count = len(self.labels)
        if self.training:
            return count // (self.batch_size * self.world)
        return -(-len(range(self.rank, count, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Target]]:
        epoch, first = self.epoch(), self._skipped
        self._given, self._skipped = first, 0
        chosen = self.order(epoch).split(self.batch_size)[first:]
        plan: list[Draw] = [
            (indices, seed_of(self.seed, epoch, step, self.rank)) for step, indices in enumerate(chosen, first)
        ]
        for (_, seed), (images, y) in zip(plan, self.images.batches(plan), strict=True):
            self._given += 1
            yield self._changed(images, placed(y, self.device), seed)

    def _changed(self, images: Tensor, y: Target, seed: int) -> tuple[Tensor, Target]:
        x = images.to(self.device, non_blocking=True)
        x = x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x
        if not (self.augment or self.mix) or not len(x):
            return x, y
        generator = torch.Generator(self.device)
        generator.manual_seed(seed)
        for change in self.augment:
            x = change(x, generator)
        if self.mix:
            y = F.one_hot(y, self.num_classes).to(x.dtype)
        for mix in self.mix:
            x, y = mix(x, y, generator)
        return x, y

    def state_dict(self) -> dict[str, int]:
        return {"given": self._given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        self._skipped = state_dict["given"] % max(len(self), 1)  # an epoch that was over does not go on


def placed(y: Target, device: torch.device) -> Target:
    if isinstance(y, Mapping):
        return {key: value.to(device, non_blocking=True) for key, value in y.items()}
    return y.to(device, non_blocking=True)
