"""A folder of images → shards (shards.py)."""

import json
import math
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from zoo.data.batches import seed_of
from zoo.data.sets import DATASETS
from zoo.data.shards import FORMAT, INDEX
from zoo.data.streams import Files
from zoo.fetch import digest

BLOCK = 512  # bytes: of a header, and what contents are filled up to
PART = ".part"  # the folder that shards are written to, until all of them are whole

Job = tuple[str, str, Tensor]  # a part, the name of one of its shards, and which images go into it


def pack(
    folder: str | Path,
    out: str | Path,
    *,
    megabytes: float = 100.0,
    seed: int = 0,
    test_fraction: float | None = None,
    watch: Callable[[Sequence[Job]], Iterable[Job]] = iter,
) -> Mapping[str, Any]:
    """Writes the images of a folder, laid out as image_folder has it, as train-000000.tar … into the folder `out`.

    Images go in as they are, byte for byte, under their number in the folder's order: those for training as `seed`
    shuffles them, so that a shard mixes the classes. All shards of a part hold as many images, to one, and have about
    `megabytes` (10⁶ bytes). test_fraction: of a folder that has no test images of its own. watch: what sees the shards
    go by. Returns what is in shards.json, which comes last: if anything fails, nothing is left in `out`.
    Raises ValueError, FileExistsError if something lies in `out`, OSError.
    """
    if not megabytes > 0:
        raise ValueError(f"shards of {megabytes} MB cannot be written")
    out, top = Path(out).expanduser(), Path(folder).expanduser()
    sets = DATASETS.build("image_folder", root=str(top), test_fraction=test_fraction)
    if out.resolve().is_relative_to(top.resolve()):
        raise ValueError(f"{out} lies in the folder of images {folder}, where it would be taken for a class")
    images = {"train": sets.train, "val": sets.val, "test": sets.test}
    images = {part: its for part, its in images.items() if its is not None}
    jobs = [(part, *job) for part, its in images.items() for job in cut(part, its, megabytes * 1e6, seed)]
    counts = {part: its.labels.bincount(minlength=len(sets.classes)).tolist() for part, its in images.items()}
    parts = {part: {"counts": counts[part], "shards": []} for part in images}
    index = {"format": FORMAT, "classes": sets.classes, "parts": parts}
    with emptied(out) as fresh:
        for part, file, chosen in watch(jobs):
            parts[part]["shards"].append(write(fresh / file, images[part], chosen))
        with (fresh / INDEX).open("w", encoding="utf-8") as file:
            json.dump(index, file, ensure_ascii=False, separators=(",", ":"))
            flushed(file)
    return index


def cut(part: str, images: Files, size: float, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Shards of about `size` bytes."""
    count = len(images.labels)
    generator = torch.Generator().manual_seed(seed_of(seed))
    order = torch.randperm(count, generator=generator) if part == "train" else torch.arange(count)
    total = sum(path.stat().st_size + 4 * BLOCK for path in images.paths)  # two headers, a label, half a block lost
    number = min(count, math.ceil(total / size))
    for i, chosen in enumerate(order.tensor_split(number) if count else ()):
        yield f"{part}-{i:06d}.tar", chosen


def write(path: Path, images: Files, chosen: Tensor) -> Mapping[str, Any]:
    """One shard, the same bytes from the same images. Returns its entry in the index."""
    keys, labels, offsets, sizes = chosen.tolist(), images.labels[chosen].tolist(), [], []
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, label in zip(keys, labels, strict=True):
                source = images.paths[key]
                content = source.read_bytes()
                offsets.append(add(tar, f"{key:08d}{source.suffix.lower()}", content))
                sizes.append(len(content))
                add(tar, f"{key:08d}.cls", str(label).encode())
        flushed(file)
    return {
        "file": path.name,
        "images": len(labels),
        "bytes": path.stat().st_size,
        "sha256": digest(path),
        "keys": keys,
        "labels": labels,
        "offsets": offsets,
        "sizes": sizes,
    }


def add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """The byte that the content begins at."""
    start = tar.offset + BLOCK
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))
    return start


def flushed(file: IO) -> None:
    """Waits until it is on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def emptied(out: Path) -> Iterator[Path]:
    """A folder in `out`, whose files move up in the end, the index last; if anything fails, they are gone."""
    fresh, there = out / PART, out.is_dir()
    if there and (found := sorted(entry.name for entry in out.iterdir() if entry.name != PART)):
        raise FileExistsError(f"{out} is not empty ({found[0]}): name a new folder, or remove what is in it")
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed while it wrote
    fresh.mkdir(parents=True)
    try:
        yield fresh
        for entry in sorted(fresh.iterdir(), key=lambda entry: entry.name == INDEX):
            entry.replace(out / entry.name)
        fresh.rmdir()
    except BaseException:
        shutil.rmtree(fresh if there else out)
        raise
