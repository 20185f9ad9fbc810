"""Images that do not fit: files, or pieces of larger ones, decoded by worker processes as they are asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.batches import seed_of
from zoo.data.decode import centred, picture, pixels
from zoo.data.images import Arrays, Batch, Draw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """An image file that lies in a larger file: `size` bytes from `offset` on. name: what people are told of it."""

    path: Path
    offset: int
    size: int
    name: str

    def __str__(self) -> str:
        return self.name

    def opened(self) -> BytesIO:
        """Raises OSError if the larger file is missing, or ends before it."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.path.name} ends before it, or inside it")
        return BytesIO(content)


@dataclass(frozen=True)
class Pieces:
    """Image files that lie in larger ones. shown: the folder or URL that people are told."""

    folder: Path
    shown: str
    files: Sequence[str]  # their names in the folder
    file: Tensor  # which of them, for each image; long (N,), as are the next three
    offset: Tensor
    size: Tensor
    number: Tensor  # the image's own in its part

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> Piece:
        name, number = self.files[self.file[index]], int(self.number[index])
        told = f"{self.shown}/{name}, image {number:08d}"
        return Piece(self.folder / name, int(self.offset[index]), int(self.size[index]), told)

    def subset(self, indices: Tensor) -> "Pieces":
        taken = {key: getattr(self, key)[indices] for key in ("file", "offset", "size", "number")}
        return replace(self, **taken)


@dataclass(frozen=True)
class Files:
    """Image files, decoded by worker processes: the size×size at the centre, as `centred` has it.

    crop: what takes the place of the centre, (image, size) → image; transforms: what is done to that then; both draw
    from torch's generator, which has a seed for each image of each batch.
    on_error: "error" raises ValueError that names the file; "skip" leaves it out of its batch, which may become empty.
    """

    paths: Sequence[Path] | Pieces | Tensor  # or pixels, uint8 (N, C, H, W)
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
        paths = self.paths
        if isinstance(paths, Pieces):
            taken = paths.subset(indices)
        else:
            taken = paths[indices] if isinstance(paths, Tensor) else [paths[i] for i in indices.tolist()]
        return replace(self, paths=taken, labels=self.labels[indices], skipped=set())

    def labelled(self, labels: Tensor) -> "Files":
        return replace(self, labels=labels)

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
            # one after the other, as workers ask for them: a plan may wait until what it needs is there
            batch_sampler=([(index, seed, place) for place, index in enumerate(c.tolist())] for c, seed in plan),
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
            source = path.opened() if isinstance(path, Piece) else path
            return pixels(self._seen(picture(source, self.channels), seed, place)), int(self.labels[index]), ""
        except UnidentifiedImageError:
            return None, 0, f"{path} (it is no image, or of no known kind)"
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
