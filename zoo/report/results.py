"""results.json: what a run measured, and what it takes to repeat it."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from zoo.files import whole


def results(
    parts: Mapping[str, Mapping[str, Any]],
    *,
    parameters: int,
    seconds: float,
    images_per_second: float,
    config: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """parts: measured means by part of the data ("test", "val"), errors in percent. seconds: wall time."""
    return {
        **{part: dict(means) for part, means in parts.items()},
        "parameters": parameters,
        "seconds": round(seconds, 2),
        "images_per_second": round(images_per_second, 1),
        "config": dict(config),
        "seed": seed,
        "versions": versions(),
        "hardware": hardware(),
        "commit": commit(),
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def save(content: Mapping[str, Any], path: Path) -> None:
    """Writes JSON whole or not at all. NaN, which JSON has not, becomes null."""
    with whole(path) as fresh:
        fresh.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in "cnn-zoo", "torch", "torchvision", "lightning", "hydra-core":
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = ""
    return found


def hardware() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count(), "gpu": gpu}


def commit() -> str | None:
    """The source's commit, with "+changes" where the working tree differs; None outside a checkout."""
    here = Path(__file__).parent
    told = []
    for command in ["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]:
        try:
            told.append(subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            return None
    return told[0] + ("+changes" if told[1] else "")


def table(content: Mapping[str, Any], folder: Path) -> Table:
    """The end of a run in a few lines."""
    shown = Table(show_header=False, box=None, padding=(0, 2))
    test = content["test"]
    rows = {
        "test top-1 error": f"{test['top1_error']:.2f} %",
        "test top-5 error": f"{test['top5_error']:.2f} %",
        "test loss": f"{test['loss']:.4f}",
        "parameters": f"{content['parameters']:,}",
        "seconds": f"{content['seconds']:.1f}",
        "images/s": f"{content['images_per_second']:,.0f}",
        "output folder": str(folder),
    }
    for name, value in rows.items():
        shown.add_row(name, value)
    return shown


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and value - value != 0 else value
