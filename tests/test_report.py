"""Numbers → results.json, confusion matrices and metrics.csv: what lies in the files, and that they are whole."""

import errno
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from zoo.callbacks import MetricsFile
from zoo.report import confusion, results

DEEP, PAPER, LINE = (20, 70, 140), (255, 255, 255), (228, 228, 232)
MEANS = {"top1_error": 1.39, "top5_error": 0.0, "loss": 0.0512}


def measured(**options) -> dict:
    given = {"parameters": 269722, "seconds": 12.3456, "images_per_second": 1234.56, "config": {"seed": 3}, "seed": 3}
    return results.results({"test": MEANS, "val": MEANS}, **{**given, **options})


def strict(path: Path) -> dict:
    """As a reader of JSON proper, which knows no NaN, sees it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- results.json -----------------------------------------------------------------------------------------------


def test_results_are_read_again_as_they_were_saved(tmp_path: Path):
    content = measured(config={"data": {"classes": ["0°", "手"]}, "eps": 1e-8, "augment": None})
    results.save(content, tmp_path / "results.json")
    assert strict(tmp_path / "results.json") == content
    assert "手" in (tmp_path / "results.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_becomes_null_at_any_depth_and_nothing_else_does(value: float, tmp_path: Path):
    content = {"loss": value, "by_class": {"a": value, "b": [1.5, value]}, "pair": (value, 0.0), "none": None, "n": 7}
    results.save(content, tmp_path / "results.json")
    assert strict(tmp_path / "results.json") == {
        "loss": None,
        "by_class": {"a": None, "b": [1.5, None]},
        "pair": [None, 0.0],
        "none": None,
        "n": 7,
    }


def full(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", [{"new": 1}, {"new": object()}], ids=["a full disk", "a value that JSON has not"])
def test_results_that_cannot_be_saved_leave_the_old_ones_whole(
    content: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    results.save({"old": 1}, tmp_path / "results.json")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, TypeError)):
        results.save(content, tmp_path / "results.json")
    assert strict(tmp_path / "results.json") == {"old": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_results_say_what_it_takes_to_repeat_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "data=mnist", "backbone.name=a b"])
    content = measured()
    assert content["test"] == content["val"] == MEANS
    assert (content["parameters"], content["seconds"], content["images_per_second"]) == (269722, 12.35, 1234.6)
    assert (content["seed"], content["config"]) == (3, {"seed": 3})
    assert content["command"] == "python train.py data=mnist 'backbone.name=a b'"
    installed = {package: version(package) for package in ("torch", "torchvision", "lightning", "hydra-core")}
    assert installed.items() <= content["versions"].items()
    assert content["versions"]["python"] == platform.python_version()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    assert content["hardware"].items() >= {"cores": os.cpu_count(), "gpu": gpu, "machine": platform.machine()}.items()


def test_the_commit_is_the_checkouts_and_says_when_its_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not shutil.which("git"):
        pytest.skip("needs git")

    def git(*arguments: str) -> str:
        name = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    file = tmp_path / "results.py"
    monkeypatch.setattr(results, "__file__", str(file))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.commit() is None
    file.write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "it")
    (tmp_path / "of the user").touch()
    head = git("rev-parse", "HEAD").strip()
    assert results.commit() == head
    file.write_text("two")
    assert results.commit() == f"{head}+changes"


def test_the_table_at_the_end_shows_errors_in_percent_and_the_folder():
    console = Console(width=100)
    with console.capture() as capture:
        console.print(results.table(measured(), Path("logs/train/it")))
    shown = dict(line.strip().split("  ", 1) for line in capture.get().splitlines())
    assert {name: value.strip() for name, value in shown.items()} == {
        "test top-1 error": "1.39 %",
        "test top-5 error": "0.00 %",
        "test loss": "0.0512",
        "parameters": "269,722",
        "seconds": "12.3",
        "images/s": "1,235",
        "output folder": "logs/train/it",
    }


# --- confusion matrices -----------------------------------------------------------------------------------------


def test_a_confusion_csv_has_a_row_for_each_true_class(tmp_path: Path):
    confusion.save_csv(torch.tensor([[5, 1], [0, 12]]), ["cat, big", "dog"], tmp_path / "confusion.csv")
    text = (tmp_path / "confusion.csv").read_text()
    assert text == 'true \\ predicted,"cat, big",dog\n"cat, big",5,1\ndog,0,12\n'


class Matrix:
    """A saved picture; the dark diagonal of a perfect matrix of the same classes tells where its cells lie."""

    def __init__(self, counts: list[list[int]], classes: list[str], path: Path) -> None:
        self.perfect = self._draw(torch.eye(len(classes), dtype=torch.long), classes, path)
        dark = np.argwhere((self.perfect == DEEP).all(2))
        self.first, last = dark.min(0), dark.max(0)
        self.side = (last - self.first + 1).max()
        self.cell = self.side / len(classes)
        self.pixels = self._draw(torch.tensor(counts), classes, path)

    def _draw(self, counts: torch.Tensor, classes: list[str], path: Path) -> np.ndarray:
        confusion.save_png(counts, classes, path)
        return np.array(Image.open(path))

    def shade(self, row: int, column: int) -> tuple[int, ...]:
        """Of a cell near its corner, where no count is written."""
        y, x = (self.first + np.array([row + 0.2, column + 0.2]) * self.cell).astype(int)
        return tuple(self.pixels[y, x].tolist())


LONG = "a class whose name is longer than anyone would want to read beside a picture"


@pytest.mark.parametrize(("classes", "name"), [(2, ""), (10, LONG), (26, ""), (26, LONG), (100, LONG)])
def test_a_perfect_confusion_matrix_is_dark_on_its_diagonal_alone(classes: int, name: str, tmp_path: Path):
    names = [f"{i}{name}" for i in range(classes)]
    matrix = Matrix((7 * torch.eye(classes, dtype=torch.long)).tolist(), names, tmp_path / "it.png")
    shades = {(i, j): matrix.shade(i, j) for i in range(classes) for j in range(classes)}
    assert all(shade == (DEEP if i == j else PAPER) for (i, j), shade in shades.items())
    top, left = matrix.first
    inside = matrix.pixels[top : top + matrix.side, left : left + matrix.side]
    rows, columns = np.indices(inside.shape[:2])
    beside = inside[abs(rows - columns) > matrix.cell + 2]
    assert ((beside == PAPER).all(1) | (beside == LINE).all(1)).all()


@pytest.mark.parametrize(
    ("classes", "least", "most"), [(2, 100, 400), (10, 400, 800), (26, 1000, 1400), (100, 1000, 1400)]
)
def test_a_confusion_picture_is_square_and_of_a_size_for_a_screen(classes: int, least: int, most: int, tmp_path: Path):
    confusion.save_png(torch.eye(classes, dtype=torch.long), [LONG] * classes, tmp_path / "it.png")
    width, height = Image.open(tmp_path / "it.png").size
    assert width == height
    assert least <= width <= most


def test_each_row_and_column_of_a_confusion_picture_is_labelled(tmp_path: Path):
    classes = ["cat", "dog", "fox", LONG]
    matrix = Matrix(torch.eye(4, dtype=torch.long).tolist(), classes, tmp_path / "it.png")
    ink = (matrix.pixels < 128).all(2)
    for i in range(4):
        along = slice(*(matrix.first[0] + np.array([i, i + 1]) * matrix.cell).astype(int))
        assert ink[along, 30 : matrix.first[1] - 2].any()
        assert ink[30 : matrix.first[0] - 2, along].any()


def test_a_confusion_cell_is_shaded_by_its_share_of_the_true_class(tmp_path: Path):
    matrix = Matrix([[3, 1, 0], [0, 0, 0], [0, 50, 50]], ["a", "b", "c"], tmp_path / "it.png")
    quarter, half = (196, 209, 226), (138, 162, 198)
    assert [matrix.shade(0, j) for j in (1, 2)] == [quarter, PAPER]
    assert [matrix.shade(1, j) for j in range(3)] == [PAPER] * 3
    assert [matrix.shade(2, j) for j in (1, 2)] == [half, half]


# --- metrics.csv ------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path: Path) -> Callable[..., list[str]]:
    """logged((step, {…}), …) → the lines of the file after a process that logged these."""

    def log(*rows: tuple[int, dict]) -> list[str]:
        file = MetricsFile(save_dir=tmp_path)
        for step, metrics in rows:
            file.log_metrics(metrics, step=step)
            file.save()
        file.finalize("success")
        return file.path.read_text().splitlines()

    return log


def test_metrics_has_a_row_for_each_step_and_takes_new_columns(logged: Callable[..., list[str]]):
    lines = logged(
        (4, {"step/loss": torch.tensor(1 / 3)}),
        (9, {"train/loss": 0.5, "epoch": 0}),
        (9, {"val/loss": 2.0, "step/loss": 1e-9}),
        (14, {"step/loss": math.nan}),
    )
    assert lines == ["epoch,step,step/loss,train/loss,val/loss", ",4,0.3333333,,", "0,9,1e-09,0.5,2", ",14,nan,,"]


def test_a_resumed_run_takes_the_place_of_the_rows_from_its_first_step_on(logged: Callable[..., list[str]]):
    before = logged(
        *((step, {"loss": step / 10}) for step in (4, 9)), (14, {"loss": 1.4, "val": 3.0}), (19, {"loss": 1})
    )
    after = logged((14, {"loss": 7.0}), (19, {"loss": 8.0, "lr": 0.1}), (24, {"loss": 9.0}))
    assert before == ["step,loss,val", "4,0.4,", "9,0.9,", "14,1.4,3", "19,1,"]
    assert after == ["step,loss,val,lr", "4,0.4,,", "9,0.9,,", "14,7,,", "19,8,,0.1", "24,9,,"]


def test_a_resumed_run_that_logs_nothing_leaves_metrics_as_they_were(logged: Callable[..., list[str]]):
    before = logged((4, {"loss": 1.0}), (9, {"val/loss": 2.0}))
    assert logged() == before


def test_a_resumed_run_that_repeats_no_step_appends(logged: Callable[..., list[str]]):
    before = logged((4, {"loss": 1.0}))
    assert logged((9, {"loss": 2.0})) == [*before, "9,2"]


def test_metrics_that_cannot_be_saved_leave_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = MetricsFile(save_dir=tmp_path)
    file.log_metrics({"loss": 1.0}, step=4)
    file.save()
    file.log_metrics({"loss": 2.0}, step=9)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.save()
    assert file.path.read_text() == "step,loss\n4,1\n"
    assert os.listdir(tmp_path) == ["metrics.csv"]
