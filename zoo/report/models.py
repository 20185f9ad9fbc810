"""The registry as tables: what README.md shows of every name, and what a terminal does."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.backbones import ModelInfo, model_info
from zoo.registry import natural
from zoo.report.columns import aligned

HEAD = ("name", "paper", "parameters, M", "mult-adds, M", "published error, %")
RULE = ("---", "---", "---:", "---:", "---")
DATA = ("ImageNet", "CIFAR-10+", "CIFAR-10", "CIFAR-100+", "CIFAR-100", "MNIST", "SVHN")  # a headline's, best first
PAPER = re.compile(r"(?P<authors>.+?) (?P<year>\d{4}), (?P<title>.+?)(?:: .+)?(?:, arXiv:.+)?")


def markdown(names: Iterable[str]) -> str:
    """A Markdown table with a row for each name: families by the year of their first paper, each together."""
    families: dict[str, list[ModelInfo]] = {}
    for name in sorted(names, key=natural):
        info = model_info(name)
        families.setdefault(info.family, []).append(info)
    in_order = sorted(families, key=lambda family: (min(map(year, families[family])), family))
    rows = [HEAD, RULE, *(row(info) for family in in_order for info in families[family])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def listing(names: Iterable[str]) -> str:
    """Aligned columns with a row for each name, in the order given; the tags of weights come last, the default first.

    Imports torchvision if it has one of the nets.
    """
    rows = [("name", "family", "parameters, M", "mult-adds, M", "published error, %", "weights")]
    for info in map(model_info, names):
        rows.append((info.name, info.family, *figures(info), ", ".join(info.weights)))
    return aligned(rows, right=(2, 3))


def row(info: ModelInfo) -> tuple[str, ...]:
    return f"`{info.name}`", short(info.paper), *figures(info)


def figures(info: ModelInfo) -> tuple[str, str, str]:
    """Parameters and mult-adds in millions, and the headline; empty where nothing is published."""
    published = info.published
    parameters, mult_adds = published.get("parameters"), published.get("mult_adds_m")
    return (
        three_digits(parameters / 1e6) if parameters else "",
        three_digits(mult_adds) if mult_adds else "",
        headline(published.get("errors", [])),
    )


def year(info: ModelInfo) -> int:
    """Of the paper; a net without one comes last."""
    found = PAPER.fullmatch(info.paper)
    return int(found["year"]) if found else 9999


def short(paper: str) -> str:
    """Its short form: "Tan, Le 2019, EfficientNet: Rethinking …, arXiv:1905.11946" → "Tan, Le 2019, EfficientNet"."""
    found = PAPER.fullmatch(paper)
    if not found:
        return paper
    authors = found["authors"].split(", ")
    first = ", ".join(authors) if len(authors) < 3 else f"{authors[0]} et al."
    return f"{first} {found['year']}, {found['title']}"


def three_digits(value: float) -> str:
    """Three significant digits, written out: 0.0617, 11.7, 138, 15,500."""
    decimals = 2 - math.floor(math.log10(value))
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def headline(errors: Sequence[Mapping[str, Any]]) -> str:
    """The one figure to compare nets by, what it was measured on, and its source: of ImageNet the first of one crop."""
    if not errors:
        return ""
    best = min(errors, key=rank)
    figures = [best[key] for key in ("top1_error", "top5_error", "test_error") if key in best]
    of = "top-5 " if "top5_error" in best and len(figures) == 1 else ""
    said = [f"{best['data']} {of}{' / '.join(str(round(figure, 2)) for figure in figures)}"]
    said += [best[key] for key in ("crops", "note") if key in best]
    return f"{', '.join(said)} ({best['source']})"


def rank(error: Mapping[str, Any]) -> tuple[int, bool]:
    one_crop = "top1_error" in error and error["crops"].startswith("1-crop")
    return DATA.index(error["data"]) if error["data"] in DATA else len(DATA), not one_crop
