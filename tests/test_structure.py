"""The house rules that a reader relies on, checked over the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

ORDER = (
    *("registry", "sources", "fetch", "files", "layers", "losses", "metrics", "data", "backbones", "layouts"),
    *("pixels", "taps", "bundle", "fit", "weights", "attacks", "criteria"),
    *("optim", "checkpoint", "export", "callbacks", "classifier", "probes", "pictures", "report"),
)
FREE = ("config", "__main__", "__init__")  # may import all
FILES = sorted((ROOT / "zoo").rglob("*.py"))


def noun(path: Path) -> str:
    first = path.relative_to(ROOT / "zoo").parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_left(path: Path):
    own = noun(path)
    if own in FREE:
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("zoo.")}
    allowed = () if own == "reference" else ORDER[: ORDER.index(own) + 1]
    assert used <= set(allowed), f"{own} may import {allowed}"


def test_only_config_knows_hydra_and_only_the_main_module_prints():
    for path in FILES:
        tree = ast.parse(path.read_text())
        if noun(path) != "config":
            assert not any(name.split(".")[0] in ("hydra", "omegaconf") for name in imports(path)), path
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if noun(path) not in ("config", "__main__"):
            assert "print" not in called, path


def test_files_and_functions_are_of_a_size_that_a_reader_can_hold():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name}"


def test_there_is_no_module_for_what_fits_no_noun():
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & {"utils", "util", "common", "core", "base", "helpers", "misc"}


def test_the_top_level_holds_what_it_should():
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top <= {
        *("pyproject.toml", "README.md", "LICENSE", "configs", "zoo", "train.py", "evaluate.py", "tests"),
        *("results", "docs", "hubconf.py"),
    }
