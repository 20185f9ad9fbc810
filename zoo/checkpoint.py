"""Whole or absent: the one CheckpointIO, hashes, random states."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO

from zoo import fetch, files


class WholeCheckpoints(CheckpointIO):
    """What Lightning saves and loads through: `kill -9` at any moment leaves the newest checkpoint whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return files.read(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        for file in files.sidecar(Path(path)), Path(path):
            file.unlink(missing_ok=True)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Saves beside the old file, names both hashes in the sidecar, and only then moves over the old file.

    Raises OSError if the disk does not take it; the old file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*"):  # of a process that was killed while it wrote
        stale.unlink()
    try:
        with files.whole(path) as fresh:
            with fresh.open("wb") as file:
                torch.save(dict(content), file)
            lines = [f"new {fetch.digest(fresh)}"]
            if path.is_file():
                lines.append(f"previous {fetch.digest(path)}")
            with files.whole(files.sidecar(path)) as sidecar:
                sidecar.write_text("\n".join(lines) + "\n")
    except (OSError, RuntimeError) as error:
        if (system := system_error(error)) is None:
            raise
        kept = f"; the checkpoint before it is kept: {path}" if path.is_file() else ""
        raise OSError(f"cannot save {path} ({system.strerror}){kept}") from error


def system_error(error: BaseException | None) -> OSError | None:
    """What the system said, which may lie under errors of torch's writer."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as plain types and tensors."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():  # another machine's generators would be of no use
        torch.cuda.set_rng_state_all(states["cuda"])
