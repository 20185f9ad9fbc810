"""Sets that torchvision fetches: there whole, with the right checksums, or not at all."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

ARCHIVES = {  # what torchvision downloads, and checks by MD5 before it uses it; it may also be put there by hand
    "MNIST": "MNIST/raw/*.gz",
    "FashionMNIST": "FashionMNIST/raw/*.gz",
    "KMNIST": "KMNIST/raw/*.gz",
    "EMNIST": "EMNIST/raw/*.zip",
    "CIFAR10": "cifar-10-python.tar.gz",
    "CIFAR100": "cifar-100-python.tar.gz",
    "SVHN": "*_32x32.mat",
    "OxfordIIITPet": "oxford-iiit-pet/*.tar.gz",
    "Flowers102": "flowers-102/*.*",
}


class Absent(Exception):
    """The set is not in the folder, or not all of it."""


def fetched(name: str, root: str, download: bool, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """torchvision's data set of this name from `root`, once with each options of `parts`; fetched if it is not there.

    Raises ValueError for damaged files, FileNotFoundError where there is nothing and `download` is off, OSError if
    nothing came or could be written: what was extracted until then is gone.
    """
    folder = Path(root).expanduser().absolute()
    try:
        return opened(name, folder, parts)
    except Absent as error:
        if not download:
            why = "no such folder" if not folder.is_dir() else f"{name} is not all in the folder"
            raise FileNotFoundError(f"{why}: data.root={root}; data.download=true fetches {name} into it") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):  # a second process waits here, and then finds the set
            return retrieved(name, folder, parts)
    except ValueError:
        raise
    except Exception as error:  # torchvision's own word, urllib's errors, a full disk: it fails in arbitrary ways
        told = " ".join(str(error).split())
        raise OSError(
            f"{name} could not be downloaded into {folder}: {told}; nothing half extracted is left"
        ) from error


def opened(name: str, folder: Path, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Raises Absent, or ValueError for damaged files."""
    import torchvision

    try:
        return [getattr(torchvision.datasets, name)(folder, **options) for options in parts]
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # readers of arbitrary bytes fail in arbitrary ways
        if isinstance(error, RuntimeError) and "not found" in str(error):
            raise Absent(str(error)) from error
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"{name} in {folder} is damaged ({told}): delete it and fetch it again") from error


def retrieved(name: str, folder: Path, parts: Sequence[Mapping[str, Any]]) -> list[Any]:
    import torchvision

    try:
        return opened(name, folder, parts)
    except Absent:
        with beside(folder, name) as fresh:
            for options in parts:
                getattr(torchvision.datasets, name)(fresh, download=True, **options)
        return opened(name, folder, parts)


@contextmanager
def beside(folder: Path, name: str) -> Iterator[Path]:
    """A folder to fetch into, whose content moves to `folder` in the end; if anything fails, of it only archives do."""
    fresh = folder / f".{name}.part"
    cleared(fresh, folder, ARCHIVES[name])  # of a process that was killed
    fresh.mkdir()
    try:
        moved(folder, fresh, ARCHIVES[name])
        yield fresh
        merge(fresh, folder)
    finally:
        cleared(fresh, folder, ARCHIVES[name])


def cleared(fresh: Path, folder: Path, archives: str) -> None:
    if fresh.is_dir():
        moved(fresh, folder, archives)
        shutil.rmtree(fresh)


def moved(source: Path, target: Path, archives: str) -> None:
    for file in list(source.glob(archives)):
        place = target / file.relative_to(source)
        if file.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


def merge(source: Path, target: Path) -> None:
    """A folder that is not there yet appears at once, with all that it holds."""
    if source.is_dir() and target.is_dir():
        for entry in list(source.iterdir()):
            merge(entry, target / entry.name)
    else:
        source.replace(target)
