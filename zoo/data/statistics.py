"""A set in numbers: how many images of which class, their shape, the mean and standard deviation of their pixels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.data.batches import seed_of
from zoo.data.images import Arrays, Draw, Images
from zoo.data.module import ImageData, create_data
from zoo.data.sets import DATASETS
from zoo.data.shards import INDEX
from zoo.data.streams import Files
from zoo.registry import REQUIRED, suggest

BATCH = 64  # images

Watch = Callable[[Sequence[Draw]], Iterable[Draw]]  # what sees the batches of a pass go by


@dataclass(frozen=True)
class Statistics:
    """counts: of each part's images, by class; mean, std: of each channel of the training images, in units of [0, 1].

    Both are empty where there is no training image. used: what a training takes unless it is told others.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # (C, H, W)
    counts: Mapping[str, Sequence[int]]
    mean: Sequence[float]
    std: Sequence[float]
    used: tuple[Sequence[float], Sequence[float]]


def named(data: str, options: Mapping[str, Any]) -> ImageData:
    """A registered set, a folder of images, or the folder or URL of shards; `options` as create_data takes them.

    Raises ValueError or TypeError that names what is unknown or missing, and as create_data.
    """
    if data in DATASETS:
        name, options = data, dict(options)
    elif "://" in data or (Path(data) / INDEX).is_file():
        name, options = "shards", {"root": data, **options}
    elif Path(data).is_dir():
        name, options = "image_folder", {"root": data, **options}
    else:
        raise ValueError(f"{data} is neither a data set nor a folder{suggest(data, DATASETS)}")
    if missing := [key for key, value in DATASETS[name].options.items() if value is REQUIRED and key not in options]:
        raise ValueError(f"data set {name} needs {missing[0]}=…")
    if "augment" in options:
        raise TypeError("augment is for training: images are counted and measured as they are")
    return create_data(name, **{"batch_size": 1, **options})


def statistics(data: ImageData, watch: Watch = iter) -> Statistics:
    """Reads all training images, however long that takes. Raises as their batches do."""
    counts, moments = {}, Moments(data.in_chans, data.num_classes)
    for part, images in data.parts.items():
        if not len(images.labels):
            continue
        if part == "train":
            moments.add(images, watch)
            counts[part] = moments.counts.tolist()
        else:
            counts[part] = counted(images, data.num_classes)
    mean, std = moments.read()
    used = (data.mean, data.std)
    return Statistics(data.name, data.classes, data.parts["test"].shape, counts, mean, std, used)


def counted(images: Images, num_classes: int) -> list[int]:
    """Images of each class. Those that are drawn anew each time may have other labels than what they are drawn from."""
    if isinstance(images, Arrays | Files):
        return images.labels.bincount(minlength=num_classes).tolist()
    moments = Moments(images.shape[0], num_classes)
    moments.add(images, iter)
    return moments.counts.tolist()


class Moments:
    """Sums over all images that were shown, exact but for the last digits of float64."""

    def __init__(self, channels: int, num_classes: int) -> None:
        self.pixels = 0
        self.sum, self.squares = torch.zeros(2, channels, dtype=torch.float64)
        self.counts = torch.zeros(num_classes, dtype=torch.long)

    def add(self, images: Images, watch: Watch) -> None:
        for x, y in images.batches(watch(passed(len(images.labels)))):
            labels = y["label"] if isinstance(y, Mapping) else y
            self.counts += labels.cpu().bincount(minlength=len(self.counts))
            values = x.double().cpu() / (255 if x.dtype == torch.uint8 else 1)
            self.sum += values.sum((0, 2, 3))
            self.squares += values.square().sum((0, 2, 3))
            self.pixels += values[:, 0].numel()

    def read(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel; nothing if there was no pixel."""
        if not self.pixels:
            return [], []
        mean = self.sum / self.pixels
        std = (self.squares / self.pixels - mean.square()).clamp(min=0).sqrt()
        return mean.tolist(), std.tolist()


def passed(count: int) -> Sequence[Draw]:
    """The plan of one pass over all images."""
    return [(chosen, seed_of(step)) for step, chosen in enumerate(torch.arange(count).split(BATCH))]
