"""Where images lie. A source knows its labels and turns lists of indices into batches of uint8 images."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]  # images uint8 (N, C, H, W), labels long (N,)


class Source(Protocol):
    labels: Tensor  # long (N,)
    shape: tuple[int, int, int]  # (C, H, W) of each image

    def subset(self, indices: Tensor) -> "Source": ...
    def to(self, device: torch.device) -> "Source": ...
    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]: ...
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

    def to(self, device: torch.device) -> "Arrays":
        return Arrays(self.images.to(device), self.labels.to(device))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        for chosen in indices:
            chosen = chosen.to(self.images.device, non_blocking=True)
            yield self.images[chosen], self.labels[chosen]

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


@dataclass(frozen=True)
class Files:
    """Image files, decoded by worker processes as they are asked for, as `decode` does. resize: None for `size`.

    on_error: "error" raises ValueError that names the file; "skip" leaves it out of its batch, which may become empty.
    """

    paths: Sequence[Path]
    labels: Tensor
    size: int
    channels: int
    workers: int
    on_error: str
    resize: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False
    skipped: set[str] = field(default_factory=set)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def subset(self, indices: Tensor) -> "Files":
        paths = [self.paths[i] for i in indices.tolist()]
        return replace(self, paths=paths, labels=self.labels[indices], skipped=set())

    def to(self, device: torch.device) -> "Files":
        return self

    def statistics(self) -> tuple[list[float], list[float]]:
        """ImageNet's, as is usual: a pass over all files would cost as much as an epoch."""
        if self.channels == 3:
            return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        return [0.449], [0.226]

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        loader = DataLoader(
            self,
            batch_sampler=[chosen.tolist() for chosen in indices],
            num_workers=self.workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # workers' seeds must not be drawn from the state that a resumed run restores
        )
        for images, labels, broken in loader:
            self._report(broken)
            yield (images if len(labels) else torch.empty(0, *self.shape, dtype=torch.uint8)), labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor | None, int, str]:
        path = self.paths[index]
        try:
            how = {"resize": self.resize, "interpolation": self.interpolation, "squash": self.squash}
            return decode(path, self.size, self.channels, **how), int(self.labels[index]), ""
        except Exception as error:  # a decoder of arbitrary bytes fails in arbitrary ways
            return None, 0, f"{path} ({error})"

    def _report(self, broken: list[str]) -> None:
        if broken and self.on_error == "error":
            raise ValueError(f"unreadable image: {broken[0]}; data.on_error=skip leaves such files out")
        for name in set(broken) - self.skipped:
            self.skipped.add(name)
            logger.warning("skipped unreadable image number %d: %s", len(self.skipped), name)


def picture(path: str | Path, channels: int) -> Image.Image:
    """An image file of any kind, grey for one channel, else RGB. Raises OSError or ValueError if it cannot be read."""
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("L" if channels == 1 else "RGB")


def decode(
    path: Path,
    size: int,
    channels: int,
    *,
    resize: int | None = None,
    interpolation: str = "bilinear",
    squash: bool = False,
) -> Tensor:
    """An image file → uint8 (C, size, size): the shorter side becomes `resize`, the centre square is cut out.

    resize: None for `size`. interpolation: "bilinear" or "bicubic". squash: both sides become `resize`.
    Raises OSError or ValueError if it cannot be read.
    """
    image = picture(path, channels)
    resize, shorter = resize or size, min(image.size)
    box = []  # of the square, in the file's pixels: nothing beside it is resized
    for length in image.size:
        resized = resize if squash else int(resize * length / shorter)
        first = round((resized - size) / 2)
        box.append((first * length / resized, (first + size) * length / resized))
    (left, right), (top, bottom) = box
    image = image.resize((size, size), Image.Resampling[interpolation.upper()], box=(left, top, right, bottom))
    return torch.from_numpy(np.array(image)).view(size, size, channels).permute(2, 0, 1).contiguous()


def _collate(items: list[tuple[Tensor | None, int, str]]) -> tuple[Tensor, Tensor, list[str]]:
    images = [image for image, _, _ in items if image is not None]
    labels = torch.tensor([label for image, label, _ in items if image is not None])
    return torch.stack(images) if images else torch.empty(0), labels, [name for _, _, name in items if name]
