"""A set's numbers as tables or as JSON."""

import json
from collections.abc import Sequence

from zoo.data.statistics import Statistics
from zoo.report.columns import aligned

SHOWN = 40  # classes, up to which each has its row; of more, those with the fewest and the most images


def tables(found: Statistics) -> str:
    """Parts with their balance, classes, and channels: one table each."""
    head = f"{found.name}: {len(found.classes)} classes, images of {'×'.join(map(str, found.shape))}\n"
    return "\n".join([head, balance(found), classes(found), channels(found)])


def balance(found: Statistics) -> str:
    rows = [("part", "images", "fewest of a class", "most of a class", "ratio")]
    for part, counts in found.counts.items():
        few, most = min(counts), max(counts)
        names = (found.classes[counts.index(each)] for each in (few, most))
        cells = (f"{each:,} ({name})" for each, name in zip((few, most), names, strict=True))
        rows.append((part, f"{sum(counts):,}", *cells, f"{most / few:.2f}" if few else "–"))
    return aligned(rows, right=(1, 4))


def classes(found: Statistics) -> str:
    """A row for each class; of many only those at both ends, by the images of the first part."""
    columns = list(found.counts.values())
    rows = [(name, *(f"{each:,}" for each in counts)) for name, *counts in zip(found.classes, *columns, strict=True)]
    head, right = ("class", *found.counts), range(1, 1 + len(columns))
    if len(rows) <= SHOWN:
        return aligned([head, *rows], right=right)
    order = sorted(range(len(rows)), key=lambda k: columns[0][k])
    kept = SHOWN // 2
    chosen = [*(rows[k] for k in order[:kept]), ("…", *("" for _ in columns)), *(rows[k] for k in order[-kept:])]
    return aligned([head, *chosen], right=right) + f"{len(rows) - 2 * kept} classes between these: --json has them\n"


def channels(found: Statistics) -> str:
    if not found.mean:
        return "No training images: no mean and standard deviation.\n"
    numbers = [[str(channel) for channel in range(len(found.mean))]]
    numbers += [[f"{value:.6f}" for value in values] for values in (found.mean, found.std)]
    rows = [("channel", "mean", "std"), *zip(*numbers, strict=True)]
    own = [rounded(found.mean), rounded([std or 1.0 for std in found.std])]
    if own == [rounded(each) for each in found.used]:
        return aligned(rows, right=(1, 2))
    typed = " ".join(f"'data.{key}={listed(values)}'" for key, values in zip(("mean", "std"), own, strict=True))
    used = " and ".join(listed(rounded(each)) for each in found.used)
    return aligned(rows, right=(1, 2)) + f"\nA training uses {used}, or these with {typed}\n"


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def listed(values: Sequence[float]) -> str:
    return f"[{','.join(f'{value:g}' for value in values)}]"


def as_json(found: Statistics) -> str:
    """{name, classes, shape, parts: {part: {images, smallest, largest, counts}}, mean, std}; counts as classes go."""
    parts = {
        part: {"images": sum(counts), "smallest": min(counts), "largest": max(counts), "counts": list(counts)}
        for part, counts in found.counts.items()
    }
    content = {
        "name": found.name,
        "classes": list(found.classes),
        "shape": list(found.shape),
        "parts": parts,
        "mean": list(found.mean),
        "std": list(found.std),
    }
    return json.dumps(content, ensure_ascii=False) + "\n"
