"""Images that do not fit: files, decoded by worker processes as they are asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.batches import seed_of
from zoo.data.decode import centred, picture, pixels
from zoo.data.images import Arrays, Batch, Draw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Image files, decoded by worker processes: the size×size at the centre, as `centred` has it.

    crop: what takes the place of the centre, (image, size) → image; transforms: what is done to that then; both draw
    from torch's generator, which has a seed for each image of each batch.
    on_error: "error" raises ValueError that names the file; "skip" leaves it out of its batch, which may become empty.
    """

    paths: Sequence[Path] | Tensor  # or pixels, uint8 (N, C, H, W)
    labels: Tensor
    size: int
    channels: int
    workers: int
    on_error: str = "error"
    resize: int | None = None
    interpolation: str = "bilinear"
    squash: bool = False
    crop: Callable[[Image.Image, int], Image.Image] | None = None
    transforms: Sequence[Callable[[Image.Image], Image.Image]] = ()
    skipped: set[str] = field(default_factory=set)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def subset(self, indices: Tensor) -> "Files":
        taken = self.paths[indices] if isinstance(self.paths, Tensor) else [self.paths[i] for i in indices.tolist()]
        return replace(self, paths=taken, labels=self.labels[indices], skipped=set())

    def to(self, device: torch.device) -> "Files":
        return self

    def statistics(self) -> tuple[list[float], list[float]]:
        """ImageNet's, as is usual: a pass over all files would cost as much as an epoch."""
        if self.channels == 3:
            return [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        return [0.449], [0.226]

    def batches(self, plan: Iterable[Draw]) -> Iterator[Batch]:
        loader = DataLoader(
            self,
            batch_sampler=[[(index, seed, place) for place, index in enumerate(c.tolist())] for c, seed in plan],
            num_workers=self.workers,
            collate_fn=_collate,
            generator=torch.Generator(),  # workers' seeds must not be drawn from the state that a resumed run restores
        )
        for images, labels, broken in loader:
            self._report(broken)
            yield (images if len(labels) else torch.empty(0, *self.shape, dtype=torch.uint8)), labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor | None, int, str]:
        index, seed, place = key
        path = self.paths[index]
        try:
            return pixels(self._seen(picture(path, self.channels), seed, place)), int(self.labels[index]), ""
        except Exception as error:  # a decoder of arbitrary bytes fails in arbitrary ways
            return None, 0, f"{path} ({error})"

    def _seen(self, image: Image.Image, seed: int, place: int) -> Image.Image:
        if self.crop is None and not self.transforms:
            return self._centred(image)
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed_of(seed, place))
            image = self.crop(image, self.size) if self.crop else self._centred(image)
            for change in self.transforms:
                image = change(image)
        return image

    def _centred(self, image: Image.Image) -> Image.Image:
        how = {"resize": self.resize, "interpolation": self.interpolation, "squash": self.squash}
        return centred(image, self.size, **how)

    def _report(self, broken: list[str]) -> None:
        if broken and self.on_error == "error":
            raise ValueError(f"unreadable image: {broken[0]}; data.on_error=skip leaves such files out")
        for name in set(broken) - self.skipped:
            self.skipped.add(name)
            logger.warning("skipped unreadable image number %d: %s", len(self.skipped), name)


def streamed(images: Arrays, *, workers: int = 2) -> Files:
    """Images in memory, handed out by worker processes: for what is done to one image after the other."""
    channels, size, _ = images.shape
    return Files(images.images.cpu(), images.labels.cpu(), size=size, channels=channels, workers=workers)


def _collate(items: list[tuple[Tensor | None, int, str]]) -> tuple[Tensor, Tensor, list[str]]:
    images = [image for image, _, _ in items if image is not None]
    labels = torch.tensor([label for image, label, _ in items if image is not None])
    return torch.stack(images) if images else torch.empty(0), labels, [name for _, _, name in items if name]
