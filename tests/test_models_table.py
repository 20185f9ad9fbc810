"""The registry as a table: its numbers, the command that prints it, and the copy in README.md.

Run as a script it writes that copy anew: python tests/test_models_table.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo.__main__ import main
from zoo.report.models import headline, markdown, short, three_digits

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
MARKED = re.compile(r"(?<=<!-- models: python -m zoo models -->\n).*?(?=<!-- /models -->)", re.DOTALL)


def printed() -> str:
    """By a fresh process, where no test has plugged nets of its own into the registry."""
    command = [sys.executable, "-m", "zoo", "models"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def rows(table: str) -> dict[str, list[str]]:
    """The first column's name → the other columns."""
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_table_in_the_readme_is_the_one_that_the_command_prints():
    (copy,) = MARKED.findall(README.read_text(encoding="utf-8"))
    assert copy == printed(), "README.md is out of date; to write it anew: python tests/test_models_table.py"


RESNET = "He et al. 2015, Deep residual learning for image recognition"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", [RESNET, "0.270", "40.6", "CIFAR-10+ 8.75 (akamaster)"]),
        ("resnet50", [RESNET, "25.6", "4,090", "ImageNet 24.7 / 7.8, 1-crop (kaiming_readme)"]),
        (
            "capsnet",
            [
                *("Sabour et al. 2017, Dynamic routing between capsules", "8.22", "202"),
                "MNIST 0.25, 3 iterations with reconstruction (capsnet_notes)",
            ],
        ),
        (
            "lenet5",
            ["LeCun et al. 1998, Gradient-based learning applied to document recognition", "0.0617", "0.417", ""],
        ),
    ],
)
def test_a_row_says_paper_size_and_one_figure_in_millions_and_percent(name: str, expected: list[str]):
    assert rows(markdown([name]))[name] == expected


def test_each_name_has_a_row_and_a_family_is_together_oldest_first_and_in_natural_order():
    names = ["capsnet", "resnet110", "resnet18", "lenet5", "resnet20", "resnet101"]
    assert list(rows(markdown(names)))[2:] == ["lenet5", "resnet18", "resnet101", "resnet20", "resnet110", "capsnet"]


def test_a_net_without_figures_or_paper_has_a_row_with_empty_cells_at_the_end(monkeypatch: pytest.MonkeyPatch):
    known = zoo.model_info("capsnet")
    bare = type(known)("bare", "attic", "", (3, 8, 8), 2, {})
    monkeypatch.setattr("zoo.report.models.model_info", lambda name: bare if name == "bare" else known)
    assert markdown(["bare", "capsnet"]).splitlines()[-1] == "| `bare` |  |  |  |  |"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((0.061706, "0.0617"), (0.27, "0.270"), (11.689512, "11.7"), (138.357544, "138"), (1814.073, "1,810")),
        *((37745.884, "37,700"), (99.96, "100.0"), (1.0, "1.00")),
    ],
)
def test_numbers_have_three_digits_that_count_and_are_written_out(value: float, written: str):
    assert three_digits(value) == written


@pytest.mark.parametrize(
    ("paper", "expected"),
    [
        ("Krizhevsky 2014, One weird trick, arXiv:1404.5997", "Krizhevsky 2014, One weird trick"),
        ("Tan, Le 2019, EfficientNet: Rethinking, arXiv:1905.11946", "Tan, Le 2019, EfficientNet"),
        (
            "A, B, C 2016, Inception-v4, Inception-ResNet and more, arXiv:1",
            "A et al. 2016, Inception-v4, Inception-ResNet and more",
        ),
        ("no paper", "no paper"),
    ],
)
def test_a_paper_is_told_by_its_first_author_from_three_on_its_year_and_its_title(paper: str, expected: str):
    assert short(paper) == expected


CIFAR = {"data": "CIFAR-10+", "test_error": 4.0, "where": "Table 4", "source": "a"}
TEN = {"data": "ImageNet", "top1_error": 20.0, "top5_error": 5.0, "crops": "10-crop", "where": "Table 1", "source": "b"}
ONE = {**TEN, "top1_error": 43.478, "top5_error": 20.934, "crops": "1-crop 224", "source": "c"}
FIVE = {"data": "ImageNet", "top5_error": 19.7, "crops": "1-crop", "where": "README", "source": "d", "note": "at most"}


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([CIFAR, TEN, ONE, {**ONE, "top1_error": 1.0}], "ImageNet 43.48 / 20.93, 1-crop 224 (c)"),
        ([CIFAR, FIVE, TEN], "ImageNet top-5 19.7, 1-crop, at most (d)"),
        ([FIVE, ONE], "ImageNet 43.48 / 20.93, 1-crop 224 (c)"),
        ([{**CIFAR, "data": "SVHN"}, {**CIFAR, "data": "norb"}, CIFAR], "CIFAR-10+ 4.0 (a)"),
        ([], ""),
    ],
    ids=["one crop first", "of any crops", "top-1 before top-5 alone", "CIFAR-10+ first", "none"],
)
def test_the_headline_is_the_figure_that_most_nets_have(errors: list[dict], said: str):
    assert headline(errors) == said


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_prints_the_names_that_match_and_exits_with_0(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "resnet1?"]) == 0
    out, err = capsys.readouterr()
    assert list(rows(out))[2:] == zoo.list_models("resnet1?")
    assert err == ""


def test_a_pattern_without_a_match_is_one_line_on_stderr_and_exit_code_1(capsys: pytest.CaptureFixture[str]):
    assert main(["models", "resnet2O"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("no model matches 'resnet2O'; did you mean resnet20")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["modles"], ["models", "a", "b"]], ids=["a slip", "one too many"])
def test_a_command_that_is_not_one_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m zoo" in capsys.readouterr().err


if __name__ == "__main__":
    table = printed()
    README.write_text(MARKED.sub(lambda _: table, README.read_text(encoding="utf-8")), encoding="utf-8")
