"""What the tests share: the two scripts in this process, servers on loopback, the folder of data and weights."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from loopback import Hub, Site, sha256
from torch import nn

import evaluate
import train
from zoo import config, fetch, sources

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
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that fetched files come to, the test's own; further attempts are made at once."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "WAITS", (0.0, 0.0, 0.0))
    return tmp_path / "cache"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site().running() as site:
        yield site


@pytest.fixture
def release(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, nn.Module], Path]:
    """release("resnet20", model) makes the model's weights those that are released under the name, at the site.

    As akamaster has them: with a prefix, in a container, the hash's first digits in the file's name. Returns the place
    that the file has in the cache once it was fetched.
    """

    def released(name: str, model: nn.Module) -> Path:
        file = io.BytesIO()
        torch.save({"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, file)
        digits = sha256(file.getvalue())[:8]
        url = site.serve(f"/{name}-{digits}.th", file.getvalue())
        monkeypatch.setitem(sources.ROWS, name, (replace(sources.ROWS[name][0], url=url, sha256=digits),))
        return cache / f"{name}-{digits}.th"

    return released


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """As with the environment variables HF_ENDPOINT and HF_HOME, which the library reads when it is imported."""
    from huggingface_hub import constants

    with Hub().running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield hub


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
