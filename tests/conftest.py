"""What the tests share: running the two scripts in this process, and the optional folder of data and weights."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import evaluate
import train
from zoo import config

# Nets and batches here are tiny: a second thread would only wait, and with other work on the machine for long.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def start(script: str, *arguments: str) -> int:
    """Runs train.py or evaluate.py in this process. Returns the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        patch.setenv("HYDRA_FULL_ERROR", os.environ.get("ZOO_TEST_FULL_ERROR", "0"))
        return config.run({"train": train.train, "evaluate": evaluate.evaluate}[script], script)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """run("train", "backbone=lenet5", …) → exit code and what was printed, as from the command line."""

    def captured(script: str, *arguments: str) -> Ended:
        capfd.readouterr()
        return Ended(start(script, *arguments), *capfd.readouterr())

    return captured


@pytest.fixture
def shared() -> Path:
    """The folder of real data and weights beside the checkout; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared with real data and weights")
    return SHARED


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that fails fails again."""
    torch.manual_seed(0)
