"""WebDataset shards: tar files of images, from a folder of this machine, a web server or object storage.

The convention is that of the library webdataset (Aizman et al. 2020, High performance I/O for large scale deep
learning): an image is the member KEY.jpg, or whatever its ending was, with KEY.cls, its class's number, behind it. The
file shards.json, which that library does not need, tells the classes, and where each image lies and of which it is. So
the order of an epoch is known before anything is read: it is exact, the same for any number of workers, shared out
among processes without overlap, and gone on with from any batch.
"""

import json
import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from zoo.data.images import Batch, Draw
from zoo.data.remote import Place
from zoo.data.sets import DATASETS, Sets
from zoo.data.shown import How, image_files
from zoo.data.streams import Files, Pieces
from zoo.fetch import digest

INDEX, FORMAT = "shards.json", 1
AHEAD = 4  # shards of a URL that are brought here before they are needed, and at a time

logger = logging.getLogger(__name__)


@DATASETS.register
@image_files(size=64)
def shards(*, root: str, how: How, window: int = 8) -> Sets:
    """What `python -m zoo shards` has written: tar files in a folder, or at https://…, s3://… or what fsspec reads.

    window: shards that an epoch's order mixes at a time. From a URL each process brings these, and a few that come
    next, to a temporary folder, and removes them behind it. How images are shown, and what None means: as image_folder
    has it.
    Raises FileNotFoundError; OSError for a server that does not answer; ModuleNotFoundError for a missing package;
    ValueError for shards that are cut off or an index that is none.
    """
    if window < 1:
        raise ValueError(f"data.window={window} must be 1 or above")
    source = Place(root)
    classes, parts = index(source)
    for tar in [tar for tars, _, _ in parts.values() for tar in tars] if source.folder else ():
        with tolerant(how["on_error"]):
            tar.check(source.folder / tar.file, source)
    images = {
        part: Shards(pieces, labels, **how, source=source, tars=tars, window=window)
        for part, (tars, pieces, labels) in parts.items()
    }
    return Sets(images["train"], images.get("val"), images["test"], classes)


@dataclass(frozen=True)
class Tar:
    """One shard, as the index has it."""

    file: str
    images: int
    bytes: int
    sha256: str

    def check(self, path: Path, where: Place, *, thoroughly: bool = False) -> None:
        """ValueError if the file is not as long as it should be. thoroughly: or if it has another SHA-256.

        Raises FileNotFoundError.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{where} lacks the shard {self.file}, which holds {self.images} images")
        found = path.stat().st_size
        if found != self.bytes:
            fault = f"is {'cut off' if found < self.bytes else 'another file'} ({found} of {self.bytes} bytes)"
        elif thoroughly and digest(path) != self.sha256:
            fault = f"is damaged (its SHA-256 is not the one in {INDEX})"
        else:
            return
        raise ValueError(f"{where}/{self.file} {fault}: it should hold {self.images} images")


@contextmanager
def tolerant(on_error: str) -> Iterator[None]:
    """With on_error="skip" a warning takes the place of a ValueError."""
    try:
        yield
    except ValueError as error:
        if on_error == "error":
            raise ValueError(f"{error}; copy it anew, or data.on_error=skip leaves out what cannot be read") from error
        logger.warning("%s; those that cannot be read are left out", error)


# --- the index ------------------------------------------------------------------------------------------------------

Part = tuple[Sequence[Tar], Pieces, Tensor]  # its shards, where in them its images lie, and of which class they are


def index(source: Place) -> tuple[tuple[str, ...], Mapping[str, Part]]:
    """Classes, and parts by name. Raises as `shards`."""
    where = f"{source}/{INDEX}"
    if source.folder is not None and not source.folder.is_dir():
        raise FileNotFoundError(f"no such folder: data.root={source}")
    try:
        content = json.loads(source.text(INDEX))
        if content["format"] != FORMAT:
            raise TypeError(f"its format is {content['format']!r}, here {FORMAT} is known")
        parts = {name: part(source, entry["shards"]) for name, entry in content["parts"].items()}
        if not {"train", "test"} <= parts.keys() <= {"train", "val", "test"}:
            raise TypeError(f"its parts are {', '.join(parts)}")
        return tuple(map(str, content["classes"])), parts
    except FileNotFoundError as error:
        told = "no shards are there, or `python -m zoo shards`, which writes it last, was interrupted"
        raise FileNotFoundError(f"{where} is missing: {told}") from error
    except (KeyError, TypeError, AttributeError, RuntimeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{where} is damaged, or no index of shards ({type(error).__name__}: {error})") from error


def part(source: Place, entries: Sequence[Mapping[str, Any]]) -> Part:
    """Raises KeyError, TypeError, RuntimeError for what is no index."""
    tars = [Tar(*(entry[key] for key in ("file", "images", "bytes", "sha256"))) for entry in entries]
    if odd := [tar.file for tar in tars if not re.fullmatch(r"[\w-]+\.tar", tar.file)]:
        raise TypeError(f"{odd[0]!r} is no shard's name")
    columns = {
        key: torch.tensor([value for entry in entries for value in entry[key]], dtype=torch.long)
        for key in ("keys", "labels", "offsets", "sizes")
    }
    counts = torch.tensor([tar.images for tar in tars], dtype=torch.long)
    columns["files"] = torch.arange(len(tars)).repeat_interleave(counts)
    if len({len(column) for column in columns.values()}) != 1:
        raise TypeError("keys, labels, offsets and sizes are not one for each image")
    keys = columns["keys"].argsort()  # the order of the folder, whose splits are these images' too
    number, labels, offset, size, file = (column[keys] for column in columns.values())
    names = [tar.file for tar in tars]
    pieces = Pieces(source.folder or Path(), str(source), names, file, offset=offset, size=size, number=number)
    return tars, pieces, labels


# --- streaming ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Shards(Files):
    """Images in tar files: as Files, but for the order of an epoch, and for where they are brought from."""

    source: Place
    tars: Sequence[Tar]
    window: int

    def share(self, indices: Tensor, rank: int, world: int) -> Tensor:
        """One process's part of the indices, in an order in which about `window` shards are read at a time.

        Shards are put in the order in which `indices` first meets them, and that row is cut into `world` pieces of as
        many images. Within a piece each image falls behind its shard by up to `window` shards: by as much as it stands
        towards the end of `indices`. So what comes shuffled stays so, and what comes in the shards' order keeps it.
        """
        if not len(indices):
            return indices
        file, position = self.paths.file[indices], torch.arange(len(indices))
        met = torch.full((len(self.tars),), len(indices)).scatter_reduce(0, file, position, "amin")
        place = met.argsort().argsort()[file]  # of each image's shard in the row
        mine = place.argsort(stable=True).tensor_split(world)[rank]
        behind = self.window * mine.double() / len(indices)
        return indices[mine[(place[mine] + behind).argsort(stable=True)]]

    def batches(self, plan: Iterable[Draw]) -> Iterator[Batch]:
        if self.source.folder is not None:
            yield from super().batches(plan)
            return
        with TemporaryDirectory(prefix="zoo-shards-") as folder:
            here = replace(self, paths=replace(self.paths, folder=Path(folder)))
            near = Nearby(here, list(plan))
            try:
                for batch in Files.batches(here, near.plan()):
                    near.passed()
                    yield batch
            finally:
                near.close()


class Nearby:
    """The shards of a plan: brought to a folder ahead of the batches that need them, and removed behind the last."""

    def __init__(self, images: Shards, plan: Sequence[Draw]) -> None:
        self._images, self._plan = images, plan
        self._needed = [images.paths.file[chosen].unique().tolist() for chosen, _ in plan]
        self._last = {shard: batch for batch, shards in enumerate(self._needed) for shard in shards}
        self._waiting = deque(self._last)  # a dictionary keeps the order in which its keys came
        self._brought: dict[int, Future[None]] = {}
        self._pool = ThreadPoolExecutor(AHEAD)
        self._given = 0

    def plan(self) -> Iterator[Draw]:
        """Each batch when what it needs is there. Raises as Place.bring."""
        for draw, shards in zip(self._plan, self._needed, strict=True):
            self._bring(until=shards)
            for shard in shards:
                self._brought[shard].result()
            yield draw

    def passed(self) -> None:
        """To be told after each batch."""
        for shard in self._needed[self._given]:
            if self._last[shard] == self._given:
                del self._brought[shard]
                (self._images.paths.folder / self._images.tars[shard].file).unlink(missing_ok=True)
        self._given += 1
        self._bring()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _bring(self, until: Sequence[int] = ()) -> None:
        while self._waiting and (
            len(self._brought) < self._images.window + AHEAD or not self._brought.keys() >= set(until)
        ):
            shard = self._waiting.popleft()
            self._brought[shard] = self._pool.submit(self._one, self._images.tars[shard])

    def _one(self, tar: Tar) -> None:
        source, path = self._images.source, self._images.paths.folder / tar.file
        with tolerant(self._images.on_error):
            source.bring(tar.file, path, lambda path: tar.check(path, source, thoroughly=True))
