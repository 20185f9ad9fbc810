"""A named set, cut into parts, as batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from zoo.data.augment import AUGMENTS
from zoo.data.batches import Batches
from zoo.data.classes import positions
from zoo.data.images import Arrays, Images
from zoo.data.resident import placed
from zoo.data.selection import fewer, long_tailed, relabelled, stratified
from zoo.data.sets import DATASETS, Sets
from zoo.data.streams import streamed
from zoo.sources import Preprocess


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images, by where: while a file is decoded, to a batch, to a batch and its labels."""

    crop: partial | None = None
    transforms: Sequence[partial] = ()
    batch: Sequence[partial] = ()
    mix: Sequence[partial] = ()


def augmentation(nodes: Mapping[str, Mapping[str, Any] | None]) -> Augmentation:
    """Operations by name, in order, each with its options, or None to leave it out.

    Raises ValueError or TypeError for an unknown name or option, and for what cannot be done to a file.
    """
    found: dict[str, list[partial]] = {"file": [], "image": [], "batch": [], "label": []}
    for name, options in nodes.items():
        where = AUGMENTS[name].facts.get("each", "batch")
        if options is None:
            continue
        if not isinstance(options, Mapping):
            raise ValueError(f"augment.{name}={options} must be its options, such as {{p: 0.5}}, or null")
        found[where].append(AUGMENTS.bind(name, **options))
    if len(found["file"]) > 1:
        names = " and ".join(crop.func.__name__ for crop in found["file"])
        raise ValueError(f"augment.{names} each cut out of the file what is shown: leave one")
    crop = found["file"][0] if found["file"] else None
    if crop or found["image"]:  # a wrong option is told now, and not as an image that could not be read
        with torch.random.fork_rng(devices=()):  # a run draws the same with and without
            shown = Image.new("RGB", (8, 8))
            shown = crop(shown, 8) if crop else shown
            for change in found["image"]:
                change(shown)
    return Augmentation(crop, found["image"], found["batch"], found["label"])


class ImageData:
    """A named set, cut into training, validation and test part, as batches.

    mean, std: for each channel in units of [0, 1]; None takes the training part's own. resident: as `placed` has it.
    Raises ValueError for images that are not square, and for labels that cannot be mixed.
    """

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Images],
        classes: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        augment: Augmentation,
        balanced: bool,
        resident: bool | str,
    ) -> None:
        self.name, self.parts, self.classes = name, dict(parts), tuple(classes)
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.balanced, self.resident = balanced, resident
        self._placed: dict[tuple[str, torch.device], Images] = {}
        train = self.parts["train"]
        if augment.mix and self.targets != ("label",):
            raise ValueError(f"data {name} has more than a label of each image ({', '.join(self.targets)}): no mixing")
        self.in_chans, self.image_size, width = self.parts["test"].shape
        if width != self.image_size:
            raise ValueError(f"data {name} has images of {self.image_size}×{width}; they must be square")
        own_mean, own_std = train.statistics() if mean is None or std is None else (None, None)
        self.mean = list(mean) if mean is not None else own_mean
        self.std = list(std) if std is not None else own_std

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def class_weights(self) -> list[float]:
        """With which all classes count alike, 1 on average over the training images; 0 for a class without any."""
        counts = self.parts["train"].labels.bincount(minlength=self.num_classes).double()
        weights = torch.where(counts > 0, counts.sum() / counts.clamp_min(1) / (counts > 0).sum(), 0.0)
        return [round(weight, 6) for weight in weights.tolist()]

    @property
    def targets(self) -> tuple[str, ...]:
        """What is known of each image."""
        return getattr(self.parts["train"], "targets", ("label",))

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
        if to != list(range(len(to))):
            renumbered = torch.tensor(to)
            self.parts = {part: images.labelled(renumbered[images.labels]) for part, images in self.parts.items()}
            self._placed.clear()
        self.classes = tuple(classes)

    def batches(self, part: str, device: torch.device | str = "cpu", *, rank: int = 0, world: int = 1) -> Batches:
        """One part ("train", "val" or "test") in its own order, not augmented."""
        images = self._on(part, self.parts[part], torch.device(device))
        return Batches(images, batch_size=self.batch_size, device=device, rank=rank, world=world)

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
        train, change = self.parts["train"], self.augment
        if len(train.labels) < self.batch_size * world:
            batches = f"a batch in each of {world} processes (data.batch_size={self.batch_size})"
            raise ValueError(f"data {self.name} has {len(train.labels)} training images, fewer than {batches}")
        if change.crop or change.transforms:
            train = streamed(train) if isinstance(train, Arrays) else train
            train = replace(train, crop=change.crop, transforms=change.transforms)
        return Batches(
            self._on("training", train, torch.device(device)),
            batch_size=self.batch_size,
            seed=self.seed,
            training=True,
            shuffle=shuffle,
            balanced=self.balanced,
            augment=change.batch,
            mix=change.mix,
            num_classes=self.num_classes,
            epoch=epoch,
            device=device,
            rank=rank,
            world=world,
        )

    def _on(self, part: str, images: Images, device: torch.device) -> Images:
        """Placed once: another iteration over the part takes no second copy of it."""
        if (part, device) not in self._placed:
            self._placed[part, device] = placed(images, device, self.resident)
        return self._placed[part, device]


def create_data(
    name: str,
    *,
    batch_size: int = 64,
    val_fraction: float = 0.1,
    fraction: float = 1.0,
    imbalance: float = 1.0,
    label_noise: float = 0.0,
    balanced: bool = False,
    resident: bool | str = "auto",
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augment: Mapping[str, Mapping[str, Any] | None] | None = None,
    **options: Any,
) -> ImageData:
    """The named set, cut into parts. options: the set's own, such as root and download.

    val_fraction: of the training images, held out where the set has no validation part of its own. Then of the
    training images: fraction, of each class, that is used; imbalance, first over last class of a long tail;
    label_noise, the share of wrong labels; balanced, to draw as many of each class.
    resident: True to keep the set on the device that trains (files are decoded once), False for neither, "auto" if it
    takes at most half of what is free there, and files stay files.
    augment: operations by name, in order, each with its options, or None to leave it out.
    seed: of the split, the order and every draw.
    Raises ValueError for an unknown name or unusable data, TypeError for an unknown option.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: a batch has at least one image")
    if resident not in (True, False, "auto"):
        raise ValueError(f"data.resident must be auto, true or false, not {resident!r}")
    change = augmentation(augment or {})
    sets = DATASETS.build(name, **options)
    parts = cut(name, sets, val_fraction, seed)
    train = selected(parts["train"], sets.classes, fraction, imbalance, label_noise, seed)
    if 0 < len(train.labels) < batch_size:
        have = f"data {name} has {len(train.labels)} training images"
        raise ValueError(f"{have}, fewer than a batch (data.batch_size={batch_size})")
    return ImageData(
        name,
        {**parts, "train": train},
        sets.classes,
        batch_size=batch_size,
        seed=seed,
        mean=mean,
        std=std,
        augment=change,
        balanced=balanced,
        resident=resident,
    )


def cut(name: str, sets: Sets, val_fraction: float, seed: int) -> dict[str, Images]:
    """Training, validation and test part. Raises ValueError if one of them holds no image."""
    train, val = sets.train, sets.val
    if not len(train.labels):  # there to be measured on alone
        val = train
    elif val is None:
        kept, held_out = stratified(train.labels, val_fraction, seed)
        train, val = train.subset(kept), train.subset(held_out)
    for part, images in ("train", train), ("val", val), ("test", sets.test):
        if not len(images.labels) and (part == "test" or len(sets.train.labels)):
            why = f" (data.val_fraction={val_fraction})" if part == "val" else ""
            raise ValueError(f"data {name} has no {part} images{why}")
    return {"train": train, "val": val, "test": sets.test}


def selected(
    train: Images, classes: Sequence[str], fraction: float, imbalance: float, label_noise: float, seed: int
) -> Images:
    """The training images that are used, and the labels that they get. ValueError if a class loses all of its own."""
    if fraction != 1:
        train = train.subset(fewer(train.labels, fraction, seed, classes))
    if imbalance != 1:
        train = train.subset(long_tailed(train.labels, imbalance, seed, classes))
    if label_noise:
        train = train.labelled(relabelled(train.labels, label_noise, seed, len(classes)))
    return train
