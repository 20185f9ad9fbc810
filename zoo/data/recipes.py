"""Sets that are drawn from MNIST: distorted, added up, warped on a larger canvas, two digits upon each other.

Training images are drawn afresh in each epoch, from the training images that are left when some are held out for
validation; the test images are always the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.augment import linear, warped
from zoo.data.derived import Derived, Drawn, Recipe, fixed
from zoo.data.images import Arrays, Batch
from zoo.data.sets import DATASETS, DIGITS, Sets
from zoo.layers.grids import homography, projective_grid, sample, target, thin_plate_grid

SIDE = 28  # of MNIST's images


@dataclass(frozen=True)
class Similar:
    """Turned by ±`rotate` degrees, scaled, and placed anywhere on a square of `size` pixels."""

    size: int
    rotate: float
    scale: tuple[float, float] = (1.0, 1.0)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        return {"first": first, "label": labels[first], **self.places(random, len(first))}

    def places(self, random: np.random.Generator, count: int) -> Drawn:
        free = (self.size - SIDE) / 2
        return {
            "turn": np.deg2rad(random.uniform(-self.rotate, self.rotate, count)),
            "zoom": random.uniform(*self.scale, count),
            "shift": random.uniform(-free, free, (count, 2)),
        }

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        return self.placed(images[drawn["first"]] / 255, drawn), drawn["label"]

    def placed(self, x: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        matrix = linear(drawn["turn"], torch.zeros_like(drawn["turn"]), drawn["zoom"])
        return warped(x, matrix, drawn["shift"], size=self.size)


@dataclass(frozen=True)
class Bent:
    """Scaled, and with points of a regular grid moved by a normal draw of `sigma` pixels each way.

    points: 2 for the four corners, bent projectively; 4 for 16 points, bent as a thin plate.
    """

    points: int
    sigma: float
    scale: tuple[float, float] = (0.75, 1.0)
    shape: tuple[int, int, int] = (1, SIDE, SIDE)

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        return {
            "first": first,
            "label": labels[first],
            "zoom": random.uniform(*self.scale, len(first)),
            "moves": random.normal(0, self.sigma, (len(first), self.points**2, 2)),
        }

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        x = images[drawn["first"]] / 255
        regular = target(self.points, self.points, x).view(-1, 2)
        source = (regular + drawn["moves"] * 2 / (SIDE - 1)) / drawn["zoom"][:, None, None]
        if self.points == 2:
            return sample(x, projective_grid(homography(source), SIDE, SIDE)), drawn["label"]
        return sample(x, thin_plate_grid(source, SIDE, SIDE)), drawn["label"]


@dataclass(frozen=True)
class Cluttered:
    """Anywhere on a square of `size` pixels, among `patches` squares of `side` pixels cut out of other images."""

    size: int = 60
    patches: int = 6
    side: int = 6

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        n = len(first)
        others = random.integers(len(labels) - 1, size=(n, self.patches))
        return {
            "first": first,
            "label": labels[first],
            "place": random.integers(self.size - SIDE + 1, size=(n, 2)),
            "others": others + (others >= first[:, None]),  # any but the digit itself
            "cuts": random.integers(SIDE - self.side + 1, size=(n, self.patches, 2)),
            "places": random.integers(self.size - self.side + 1, size=(n, self.patches, 2)),
        }

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        digits = images[drawn["first"], 0]
        cells = window(drawn["cuts"], self.side, SIDE)
        patches = images[drawn["others"], 0].flatten(2).gather(2, cells.flatten(2))
        canvas = torch.zeros(len(digits), self.size**2, dtype=torch.uint8, device=images.device)
        for pixels, place in (digits, drawn["place"]), (patches, drawn["places"]):
            side = SIDE if place.ndim == 2 else self.side
            canvas = canvas.scatter_reduce(1, window(place, side, self.size).flatten(1), pixels.flatten(1), "amax")
        return canvas.view(-1, 1, self.size, self.size) / 255, drawn["label"]


def window(corner: Tensor, side: int, width: int) -> Tensor:
    """Squares by their upper left corners (…, 2), row and column → cells (…, side, side) of rows of `width`."""
    rows, columns = (corner[..., i, None] + torch.arange(side, device=corner.device) for i in (0, 1))
    return rows[..., :, None] * width + columns[..., None, :]


@dataclass(frozen=True)
class Added:
    """Two digits, each in a channel of its own and placed by itself; the label is their sum."""

    each: Similar

    @property
    def shape(self) -> tuple[int, int, int]:
        return 2, self.each.size, self.each.size

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        second = random.integers(len(labels), size=len(first))
        places = [self.each.places(random, len(first)) for _ in range(2)]
        both = {name: np.stack([place[name] for place in places], axis=1) for name in places[0]}
        return {"first": first, "second": second, "label": labels[first] + labels[second], **both}

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        channels = [
            self.each.placed(
                images[drawn[which]] / 255, {name: drawn[name][:, i] for name in ("turn", "zoom", "shift")}
            )
            for i, which in enumerate(("first", "second"))
        ]
        return torch.cat(channels, dim=1), drawn["label"]


@dataclass(frozen=True)
class Warped:
    """affNIST's range: turned by ±20°, slanted by ±0.2, each side scaled by 0.8 to 1.2, anywhere on 40×40."""

    shape: tuple[int, int, int] = (1, 40, 40)

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        n = len(first)
        free = (self.shape[1] - SIDE) / 2
        return {
            "first": first,
            "label": labels[first],
            "turn": np.deg2rad(random.uniform(-20, 20, n)),
            "slant": np.arctan(random.uniform(-0.2, 0.2, n)),
            "zoom": random.uniform(0.8, 1.2, (n, 2)),
            "shift": random.uniform(-free, free, (n, 2)),
        }

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        one = torch.ones_like(drawn["turn"])
        matrix = linear(drawn["turn"], drawn["slant"], one) * drawn["zoom"][:, None, :]  # columns: along x, along y
        return warped(images[drawn["first"]] / 255, matrix, drawn["shift"], size=self.shape[1]), drawn["label"]


@dataclass(frozen=True)
class Shifted:
    """Moved by whole pixels to anywhere on a square of `size` pixels."""

    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, self.size, self.size

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        place = random.integers(self.size - SIDE + 1, size=(len(first), 2))
        return {"first": first, "label": labels[first], "place": place}

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        return pasted(images[drawn["first"]], drawn["place"], self.size) / 255, drawn["label"]


@dataclass(frozen=True)
class Overlaid:
    """Two digits of different classes, each moved by up to `shift` pixels, added up to at most 1.

    What is to be learnt: `label` (N, 10), one for both classes; `digits` (N, 2), the classes, the first one's first;
    `images` (N, 2, 1, H, W), each digit alone.
    """

    shift: int = 4
    targets: tuple[str, ...] = ("label", "digits", "images")

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, SIDE + 2 * self.shift, SIDE + 2 * self.shift

    def draw(self, random: np.random.Generator, first: np.ndarray, labels: np.ndarray) -> Drawn:
        order = labels.argsort(kind="stable")
        counts = np.bincount(labels, minlength=len(DIGITS))
        own, before = counts[labels[first]], (counts.cumsum() - counts)[labels[first]]
        if (own == len(labels)).any():
            raise ValueError("two digits of different classes need images of two classes")
        at = random.integers(len(labels) - own)  # among those of all other classes, in the order of classes
        second = order[at + np.where(at >= before, own, 0)]
        places = random.integers(2 * self.shift + 1, size=(len(first), 2, 2))
        digits = np.stack([labels[first], labels[second]], axis=1)
        return {"first": first, "second": second, "label": labels[first], "digits": digits, "places": places}

    def render(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Batch:
        size = self.shape[1]
        alone = [pasted(images[drawn[k]], drawn["places"][:, i], size) for i, k in enumerate(("first", "second"))]
        both = torch.stack(alone, dim=1) / 255  # (N, 2, 1, H, W)
        label = torch.zeros(len(both), len(DIGITS), device=both.device).scatter(1, drawn["digits"], 1.0)
        return both.sum(1).clamp_max(1), {"label": label, "digits": drawn["digits"], "images": both}


def pasted(digits: Tensor, place: Tensor, size: int) -> Tensor:
    """uint8 (N, 1, 28, 28) → (N, 1, size, size), the upper left corner at row and column `place` (N, 2)."""
    canvas = torch.zeros(len(digits), size * size, dtype=digits.dtype, device=digits.device)
    return canvas.scatter(1, window(place, SIDE, size).flatten(1), digits.flatten(1)).view(-1, 1, size, size)


# --- the sets by name -------------------------------------------------------------------------------------------

DISTORTIONS: Mapping[str, Recipe] = {
    "R": Similar(SIDE, rotate=90),
    "RTS": Similar(42, rotate=45, scale=(0.7, 1.2)),
    "P": Bent(2, sigma=5.0),
    "E": Bent(4, sigma=1.5),
    "TC": Cluttered(),
}


@DATASETS.register
def distorted_mnist(*, kind: str = "RTS", root: str = "data", download: bool = True) -> Sets:
    """Jaderberg et al. 2015, section 4.1 and appendix A.4. kind: how the digits are distorted.

    R: turned by ±90°, 28×28. RTS: turned by ±45°, scaled by 0.7 to 1.2 and placed anywhere on 42×42. P: scaled by 0.75
    to 1, each corner moved by a normal draw of 5 pixels, 28×28. E: scaled likewise, 16 points of a thin plate moved by
    1.5 pixels. TC: placed anywhere on 60×60, among six 6×6 patches of other digits.
    """
    if kind not in DISTORTIONS:
        raise ValueError(f"data.kind must be one of {', '.join(DISTORTIONS)}, not {kind!r}")
    return derived(DISTORTIONS[kind], root=root, download=download)


@DATASETS.register
def mnist_addition(*, root: str = "data", download: bool = True) -> Sets:
    """Jaderberg et al. 2015, appendix A.1: two digits in two channels of 42×42, each distorted as RTS; 19 sums."""
    sums = tuple(str(total) for total in range(19))
    return derived(Added(Similar(42, rotate=45, scale=(0.7, 1.2))), classes=sums, root=root, download=download)


@DATASETS.register
def multi_mnist(*, test_count: int = 10_000, root: str = "data", download: bool = True) -> Sets:
    """Sabour et al. 2017, section 6: two digits of different classes on 36×36, each shifted by up to 4 pixels.

    Of each training image an epoch shows one pair; of the test pairs there are `test_count`.
    """
    return derived(Overlaid(), test_count=test_count, root=root, download=download)


@DATASETS.register
def affnist(*, test_file: str | None = None, root: str = "data", download: bool = True) -> Sets:
    """Sabour et al. 2017, section 5.2: trained on digits placed anywhere on 40×40, tested on affinely warped ones.

    test_file: affNIST's own test images (Tieleman 2013, transformed/test.mat or a batch of it); without it they are
    drawn here within the same range: turned by ±20°, slanted by ±0.2, sides scaled by 0.8 to 1.2.
    """
    sets = derived(Shifted(40), root=root, download=download)
    test = fixed(sets.test.base, Warped()) if test_file is None else affnist_file(Path(test_file).expanduser())
    return Sets(sets.train, None, test, DIGITS)


def affnist_file(path: Path) -> Arrays:
    """Raises FileNotFoundError, or ValueError for what is no file of affNIST."""
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"no such file: data.test_file={path}")
    try:
        content = loadmat(path, struct_as_record=False, squeeze_me=True)["affNISTdata"]
        pixels, labels = np.atleast_2d(content.image.T), np.atleast_1d(content.label_int)
        images = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.uint8)).view(len(labels), 1, 40, 40)
    except Exception as error:  # a reader of arbitrary bytes fails in arbitrary ways
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{path} is no file of affNIST: images of 1600 pixels and labels were expected ({told})"
        ) from error
    return Arrays(images, torch.from_numpy(labels.astype(np.int64)))


def derived(
    recipe: Recipe, *, root: str, download: bool, classes: tuple[str, ...] = DIGITS, test_count: int | None = None
) -> Sets:
    if test_count is not None and test_count < 1:
        raise ValueError(f"data.test_count={test_count} must be 1 or above")
    base = DATASETS.build("mnist", root=root, download=download)
    return Sets(Derived(base.train, recipe), None, fixed(base.test, recipe, count=test_count), classes)
