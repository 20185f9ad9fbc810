"""What the tests plug into a run: augmentations that do harm at a given batch, once for a marker file."""

import os
import resource
import signal
from pathlib import Path

import torch
from torch import Tensor

from zoo.data import AUGMENTS


def harm(x: Tensor, what: str) -> Tensor:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "interrupt":
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
        signal.raise_signal(signal.SIGINT)
    if what == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    return torch.full_like(x, torch.nan) if what == "spoil" else x


@AUGMENTS.register
def accident(x: Tensor, generator: torch.Generator, *, what: str, marker: str, at: int) -> Tensor:
    """Counts its calls in the marker file, and does harm at call `at`."""
    calls = int(Path(marker).read_text() or 0) + 1 if Path(marker).is_file() else 1
    Path(marker).write_text(str(calls))
    return harm(x, what) if calls == at else x
