"""A weights file → plain types and tensors, without running code that it holds; and files that are written whole."""

import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.fetch import digest


def checkpoint_file(path: str | Path, which: str) -> Path:
    """The file itself; for a run's folder its checkpoints/`which`.ckpt. Raises FileNotFoundError."""
    path = Path(path)
    if path.is_dir():
        found = path / "checkpoints" / f"{which}.ckpt"
        if not found.is_file():
            raise FileNotFoundError(f"{path} is not a run folder with a checkpoint: it has no checkpoints/{which}.ckpt")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    return path


def read(path: str | Path) -> Any:
    """The content of a checkpoint file, plain types and tensors only, on the CPU: .pth, .pt, .ckpt … or .safetensors.

    A .sha256 file beside it is checked. Raises FileNotFoundError, or ValueError that says what the file is instead.
    """
    path = checkpoint_file(path, "best")
    check_hash(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path} is empty (0 bytes): it is not a checkpoint")
    if path.suffix == ".safetensors":
        return read_safetensors(path, start)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice about files that it does not know
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader of arbitrary bytes fails in arbitrary ways
        named = re.findall(r"GLOBAL (\S+)", str(error)) or pickled(path, start)
        if named:
            raise ValueError(
                f"{path} was refused: it would run code or build objects ({', '.join(dict.fromkeys(named))}), and only "
                "plain types and tensors are read. If you trust it, save its state_dict alone from where it was made"
            ) from error
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path} was refused: it is a TorchScript program, code and weights in one. If you trust it, save the "
                "state_dict() of what torch.jit.load makes of it"
            ) from error
        if start.startswith(b"PK") and not zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} is damaged: its archive is cut off or broken ({path.stat().st_size} bytes)"
            ) from error
        raise ValueError(f"{path} is not a checkpoint ({looks_like(start)})") from error


def read_safetensors(path: Path, start: bytes) -> dict[str, Tensor]:
    """Tensors by name. Raises ValueError for a header that is wrong, a file that is cut off, or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        if start[8:9] == b"{":  # eight bytes of length, then the header
            raise ValueError(f"{path} is damaged ({error}, {path.stat().st_size} bytes)") from error
        raise ValueError(f"{path} is not a safetensors file ({looks_like(start)})") from error


def pickled(path: Path, start: bytes) -> list[str]:
    """What a bare pickle would import, without running it; empty for other files."""
    if not start.startswith(b"\x80"):
        return []
    names, words = [], []
    try:
        with path.open("rb") as file:
            for code, word, _ in pickletools.genops(file):
                if code.name == "STACK_GLOBAL":
                    names.append(".".join(words[-2:]))
                elif isinstance(word, str):
                    words.append(word)
    except Exception:
        return []
    return names


def looks_like(start: bytes) -> str:
    """What a file that is no checkpoint seems to be, from its first bytes."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself"
    if start[8:10] == b'{"':
        return "it seems to be a safetensors file: let its name end in .safetensors"
    return f"it starts with {start[:16]!r}"


def sidecar(path: Path) -> Path:
    """The file beside a checkpoint that names its hash, and the hash of the one that it replaced."""
    return path.with_name(path.name + ".sha256")


def check_hash(path: Path) -> None:
    """ValueError if a sidecar lies beside the file and names neither as its new nor as its previous hash."""
    if not sidecar(path).is_file():
        return
    # "previous" is right too: a process that dies between writing the sidecar and moving the file leaves the old file
    known = re.findall(r"\b[0-9a-f]{64}\b", sidecar(path).read_text().lower())
    if digest(path) not in known:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {sidecar(path).name}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside it to write to, which takes its place at the end, on the disk, or is gone if anything fails."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)  # a rename is on the disk only when its folder is
    finally:
        fresh.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
