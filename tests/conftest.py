"""What the tests share: running the two scripts in this process, and the optional folder of data and weights."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import evaluate
import train
from zoo import config

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """run("train", "backbone=lenet5", …) → exit code and what was printed, as from the command line."""

    def start(script: str, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("ZOO_TEST_FULL_ERROR", "0"))
        capfd.readouterr()
        code = config.run({"train": train.train, "evaluate": evaluate.evaluate}[script], script)
        printed = capfd.readouterr()
        return Ended(code, printed.out, printed.err)

    return start


@pytest.fixture
def shared() -> Path:
    """The folder of real data and weights beside the checkout; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared with real data and weights")
    return SHARED
