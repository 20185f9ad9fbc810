"""Sets → batches. A batch is a function of (seed, epoch, step): what a resumed run sees is what it would have seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.augment import AUGMENTS
from zoo.data.classes import positions
from zoo.data.sets import DATASETS, Sets, stratified
from zoo.data.sources import Source
from zoo.sources import Preprocess

Augment = Callable[[Tensor, torch.Generator], Tensor]


def seed_of(*position: int) -> int:
    """A 64-bit seed for a place in a run, such as (seed, epoch, step, rank); no two places share one."""
    # The length goes in too: NumPy pads with zeros, which would make (seed, epoch) the same as (seed, epoch, 0, 0).
    return int(np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)[0])


class Batches:
    """An epoch over a source: images float (N, C, H, W) in [0, 1] on `device`, and labels (N,).

    `epoch` is asked for the epoch's number when an iteration begins. Of `world` processes each sees every world-th
    image; training leaves out what does not fill a batch in all of them.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int = 0,
        training: bool = False,
        shuffle: bool = False,
        augment: Sequence[Augment] = (),
        epoch: Callable[[], int] = int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.device = torch.device(device)
        self.source = source.to(self.device)
        self.batch_size, self.seed, self.training, self.shuffle = batch_size, seed, training, shuffle
        self.augment, self.epoch, self.rank, self.world = augment, epoch, rank, world

    def order(self, epoch: int) -> Tensor:
        """This process's indices in an epoch."""
        count = len(self.source.labels)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            indices = torch.randperm(count, generator=generator)
        else:
            indices = torch.arange(count)
        if self.training:
            indices = indices[: count - count % (self.batch_size * self.world)]
        return indices[self.rank :: self.world]

    def __len__(self) -> int:
        count = len(self.source.labels)
        if self.training:
            return count // (self.batch_size * self.world)
        return -(-len(range(self.rank, count, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch()
        for step, (images, labels) in enumerate(self.source.batches(self.order(epoch).split(self.batch_size))):
            x = images.to(self.device, non_blocking=True).to(torch.float32) / 255
            if self.augment:
                generator = torch.Generator(self.device)
                generator.manual_seed(seed_of(self.seed, epoch, step, self.rank))
                for change in self.augment:
                    x = change(x, generator)
            yield x, labels.to(self.device, non_blocking=True)


class ImageData:
    """A named set, cut into training, validation and test part, as batches.

    mean, std: for each channel in units of [0, 1]; None takes the training part's own.
    Raises ValueError if a part cannot fill a batch or holds no image.
    """

    def __init__(
        self,
        name: str,
        sets: Sets,
        *,
        batch_size: int,
        val_fraction: float,
        seed: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        augment: Sequence[partial],
    ) -> None:
        self.name, self.classes = name, sets.classes
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: a batch has at least one image")
        train, val = sets.train, sets.val
        if not len(train.labels):  # there to be measured on alone
            val = train
        elif val is None:
            kept, held_out = stratified(train.labels, val_fraction, seed)
            train, val = train.subset(kept), train.subset(held_out)
        self.parts: dict[str, Source] = {"train": train, "val": val, "test": sets.test}
        for part, source in self.parts.items():
            if not len(source.labels) and (part == "test" or len(train.labels)):
                why = f" (data.val_fraction={val_fraction})" if part == "val" else ""
                raise ValueError(f"data {name} has no {part} images{why}")
        if 0 < len(train.labels) < batch_size:
            have = f"data {name} has {len(train.labels)} training images"
            raise ValueError(f"{have}, fewer than a batch (data.batch_size={batch_size})")
        self.in_chans, self.image_size, width = sets.test.shape
        if width != self.image_size:
            raise ValueError(f"data {name} has images of {self.image_size}×{width}; they must be square")
        own_mean, own_std = train.statistics() if mean is None or std is None else (None, None)
        self.mean = list(mean) if mean is not None else own_mean
        self.std = list(std) if std is not None else own_std

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def preprocess(self) -> Preprocess:
        """What a net that is trained on it sees."""
        shown = self.parts["test"]
        how = {key: getattr(shown, key, None) for key in ("resize", "interpolation", "squash")}
        return Preprocess(
            self.image_size,
            how["resize"] or self.image_size,
            how["interpolation"] or "bilinear",
            tuple(self.mean),
            tuple(self.std),
            bool(how["squash"]),
            classes=tuple(self.classes),
        )

    def number_as(self, classes: Sequence[str]) -> None:
        """From now on labels are positions in `classes`, a model's. ValueError unless it knows all of the data's."""
        to = positions(self.classes, classes)
        if to is None:
            told = [f"{len(names)} classes ({', '.join(names[:3])} …)" for names in (self.classes, classes)]
            raise ValueError(f"data {self.name} has {told[0]}, the model {told[1]}")
        if to != list(range(len(classes))):
            renumbered = torch.tensor(to)
            self.parts = {part: replace(s, labels=renumbered[s.labels]) for part, s in self.parts.items()}
        self.classes = tuple(classes)

    def batches(self, part: str, device: torch.device | str = "cpu", *, rank: int = 0, world: int = 1) -> Batches:
        """One part ("train", "val" or "test") in its own order, not augmented."""
        return Batches(self.parts[part], batch_size=self.batch_size, device=device, rank=rank, world=world)

    def training(
        self,
        device: torch.device | str = "cpu",
        *,
        epoch: Callable[[], int],
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> Batches:
        """The training part in an order that changes with the epoch, augmented, in whole batches."""
        train = self.parts["train"]
        if len(train.labels) < self.batch_size * world:
            batches = f"a batch in each of {world} processes (data.batch_size={self.batch_size})"
            raise ValueError(f"data {self.name} has {len(train.labels)} training images, fewer than {batches}")
        return Batches(
            train,
            batch_size=self.batch_size,
            seed=self.seed,
            training=True,
            shuffle=shuffle,
            augment=self.augment,
            epoch=epoch,
            device=device,
            rank=rank,
            world=world,
        )


def create_data(
    name: str,
    *,
    batch_size: int = 64,
    val_fraction: float = 0.1,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> ImageData:
    """The named set, cut into parts. options: the set's own, such as root and download.

    augment: operations by name, in order, each with its options, or None to leave it out.
    seed: of the split, the order and every draw.
    Raises ValueError for an unknown name or unusable data, TypeError for an unknown option.
    """
    return ImageData(
        name,
        DATASETS.build(name, **options),
        batch_size=batch_size,
        val_fraction=val_fraction,
        seed=seed,
        mean=mean,
        std=std,
        augment=[AUGMENTS.bind(change, **its) for change, its in (augment or {}).items() if its is not None],
    )
