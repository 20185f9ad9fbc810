"""Predictions as a table or as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from zoo.probes.predictions import Prediction
from zoo.report.columns import aligned


def table(files: Sequence[str], found: Sequence[Sequence[Prediction]], *, scores_are: str = "logits") -> str:
    """Aligned columns, a row for each prediction, in percent; a class without a name is its index.

    scores_are: "lengths" of capsules are probabilities of each class by itself, and the table says so.
    """
    alone = scores_are == "lengths"
    rows = [("image", "class", "capsule length, %" if alone else "probability, %")]
    for file, predictions in zip(files, found, strict=True):
        for place, one in enumerate(predictions):
            name = str(one.index) if one.name is None else one.name
            rows.append(("" if place else file, name, f"{100 * one.probability:.2f}"))
    note = "A capsule's length is the probability of its class by itself: they need not add up to 100 %.\n"
    return aligned(rows, right=(2,)) + (f"\n{note}" if alone else "")


def as_json(files: Sequence[str], found: Sequence[Sequence[Prediction]]) -> str:
    """A list of {file, predictions: [{class, index, probability}]}; the class is null where its name is unknown."""
    content: list[dict[str, Any]] = [
        {
            "file": file,
            "predictions": [{"class": p.name, "index": p.index, "probability": p.probability} for p in predictions],
        }
        for file, predictions in zip(files, found, strict=True)
    ]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
