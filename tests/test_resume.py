"""A run that was killed goes on as if nobody had killed it."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Ended, start

PLUGIN = Path(__file__).with_name("plugin.py")
RUN = ("backbone=lenet5", "data=textures", "data.size=28", "data.channels=1", "data.count=128", "data.batch_size=32")
SAVED_AT_EACH_STEP = ("callbacks.checkpoint.every_n_steps=1",)
EPOCHS = ("trainer.max_epochs=4", "trainer.log_every_n_steps=2")  # of 3 batches
Run = Callable[..., Ended]


def begin(folder: Path, what: str, at: int) -> tuple[str, ...]:
    """The command line of a run that has an accident in its `at`-th batch."""
    accident = f"+augment.accident={{what: {what}, marker: '{folder}.calls', at: {at}}}"
    return *RUN, *EPOCHS, "augment=standard_cifar", f"plugins=[{PLUGIN}]", accident, f"hydra.run.dir={folder}"


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start("train", *begin(folder, "nothing", at=0)) == 0
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str]]:
    """Runs in processes of their own, by the accident that ended them: folder, exit code, what was printed."""
    accidents = {"after epoch 2": ("kill", 7), "in epoch 3": ("kill", 9), "by Ctrl-C": ("interrupt", 9)}
    accidents |= {"in epoch 3, which is saved at each step": ("kill", 9)}
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: bits depend on it
    folders = {name: tmp_path_factory.mktemp("ended") / "run" for name in accidents}
    started = {
        name: subprocess.Popen(
            [sys.executable, "train.py", *begin(folders[name], *accident), *SAVED_AT_EACH_STEP * ("each step" in name)],
            cwd=ROOT,
            env=alone,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, accident in accidents.items()
    }
    printed = {name: process.communicate(timeout=240)[1] for name, process in started.items()}
    return {name: (folders[name], started[name].returncode, printed[name]) for name in accidents}


@pytest.mark.parametrize(
    ("when", "saved"),
    [("after epoch 2", 6), ("in epoch 3", 6), ("by Ctrl-C", 6), ("in epoch 3, which is saved at each step", 8)],
)
def test_a_resumed_run_equals_the_run_that_nobody_ended_bit_for_bit(
    when: str, saved: int, whole: Path, ended: dict[str, tuple[Path, int, str]], run: Run
):
    folder, code, _ = ended[when]
    assert code == (130 if when == "by Ctrl-C" else -signal.SIGKILL)
    assert state(folder)["global_step"] == saved
    resumed = run("train", f"resume={folder}", f"plugins=[{PLUGIN}]")
    assert resumed.code == 0, resumed.err
    assert "changed: nothing" in resumed.err
    assert "epoch 3/4" in resumed.err
    assert "epoch 2/4" not in resumed.err
    one, other = state(whole), state(folder)
    assert one["global_step"] == other["global_step"] == 12
    for part in "state_dict", "optimizer_states", "lr_schedulers", "callbacks", "random", "epoch_so_far":
        same(one[part], other[part])
    results = [json.loads((each / "results.json").read_text()) for each in (whole, folder)]
    assert results[0]["test"] == results[1]["test"]


def same(one: object, other: object) -> None:
    """Equality of nested containers, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("when", ["in epoch 3", "in epoch 3, which is saved at each step"])
def test_the_metrics_file_goes_on_where_the_checkpoint_was(
    when: str, whole: Path, ended: dict[str, tuple[Path, int, str]], run: Run
):
    folder, *_ = ended[when]
    if not (folder / "results.json").is_file():
        assert run("train", f"resume={folder}", f"plugins=[{PLUGIN}]").code == 0
    timed = ("images_per_second", "step/images_per_second")
    rows = [
        [{key: value for key, value in row.items() if key not in timed} for row in csv.DictReader(file.open())]
        for file in (whole / "metrics.csv", folder / "metrics.csv")
    ]
    assert rows[0] == rows[1]


def test_ctrl_c_says_how_many_steps_are_lost_and_how_to_go_on(ended: dict[str, tuple[Path, int, str]]):
    folder, _, printed = ended["by Ctrl-C"]
    assert "stopped at step 8; steps lost since" in printed
    assert "last.ckpt: 2" in printed
    assert f"python train.py resume={folder}" in printed
    assert "Traceback" not in printed


def test_resume_applies_overrides_and_prints_the_difference(whole: Path, run: Run, tmp_path: Path):
    elsewhere = f"hydra.run.dir={tmp_path / 'run'}"
    longer = ("trainer.max_epochs=5", "optimizer.lr=1e-4", "schedule=constant", elsewhere)
    ended = run("train", f"resume={whole}", f"plugins=[{PLUGIN}]", *longer)
    assert ended.code == 0, ended.err
    assert "trainer.max_epochs: 4 → 5" in ended.err
    assert "optimizer.lr: 0.002 → 0.0001" in ended.err
    assert "schedule._target_: zoo.optim.cosine → zoo.optim.constant" in ended.err
    assert state(tmp_path / "run")["global_step"] == 15
    assert state(tmp_path / "run")["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(1e-4)
    assert state(whole)["global_step"] == 12
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone=stn_cnn", "cannot resume with another backbone: backbone.name was 'lenet5', not 'stn_cnn'"),
        ("data=digits", "cannot resume with another data: data.name was 'textures', not 'digits'"),
        ("experiment=capsnet_mnist", "cannot be combined with experiment="),
        ("optimizer=sgd", "cannot resume with another optimizer"),
        ("data.val_fraction=0.3", "cannot resume with another data: data.val_fraction was 0.1, not 0.3"),
        ("~augment.flip", "~augment.flip cannot be combined with resume="),
    ],
)
def test_resume_refuses_what_would_be_another_run(override: str, message: str, whole: Path, run: Run):
    ended = run("train", f"resume={whole}", f"plugins=[{PLUGIN}]", override)
    assert ended.code == 1
    assert message in ended.err


def test_to_type_the_runs_own_choices_again_changes_nothing(whole: Path, run: Run):
    ended = run("train", f"resume={whole}", f"plugins=[{PLUGIN}]", "backbone=lenet5", "data=textures")
    assert ended.code == 0, ended.err
    assert "changed: nothing" in ended.err


def test_a_run_is_not_resumed_into_the_folder_of_another(whole: Path, run: Run, tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    ended = run("train", f"resume={whole}", f"plugins=[{PLUGIN}]", f"hydra.run.dir={tmp_path}")
    assert ended.code == 1
    assert "holds another run" in ended.err


def test_a_damaged_checkpoint_is_not_resumed_from(whole: Path, run: Run, tmp_path: Path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    content = bytearray((whole / "checkpoints" / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "last.ckpt").write_bytes(content)
    (folder / "last.ckpt.sha256").write_text((whole / "checkpoints" / "last.ckpt.sha256").read_text())
    ended = run("train", f"resume={folder.parent}")
    assert ended.code == 1
    assert "is damaged: its SHA-256 is not the one in last.ckpt.sha256" in ended.err


def test_two_processes_cannot_work_in_one_folder(whole: Path, run: Run):
    from filelock import FileLock

    with FileLock(whole / ".lock"):
        ended = run("train", f"resume={whole}", f"plugins=[{PLUGIN}]")
    assert ended.code == 1
    assert "another process is running in" in ended.err
