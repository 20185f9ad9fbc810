"""One registered name, and all that is known of it, as text."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
import yaml

from zoo import sources
from zoo.backbones import BACKBONES, model_info
from zoo.registry import REQUIRED
from zoo.report.columns import aligned

ERRORS = {"top1_error": "top-1", "top5_error": "top-5", "test_error": ""}  # keys of published.yaml → words


def facts(name: str) -> str:
    """Paper, sizes, published errors with their sources, the constructor's options, and what its weights expect.

    Imports torchvision for nets with weights of ImageNet. Raises ValueError for an unknown name.
    """
    parts = [general(name), published(name), options(name), *(weights(name, tag) for tag in sources.tags(name))]
    return "\n".join(part for part in parts if part)


def section(title: str, rows: Mapping[str, str]) -> str:
    return f"{title}\n{aligned([(f'  {key}', value) for key, value in rows.items() if value])}"


def general(name: str) -> str:
    info, entry = model_info(name), BACKBONES[name]
    needed = [key for key, value in entry.options.items() if value is REQUIRED]
    with torch.device("meta"):  # taps and the classifier's width belong to what is built, which costs nothing here
        model = None if needed else entry.builder(**entry.complete({}))
    sizes = info.published
    rows = {
        "paper": info.paper,
        "family": info.family,
        "input": "×".join(map(str, info.input_size)),
        "classes": str(info.num_classes),
        "parameters": f"{sizes['parameters']:,}" if "parameters" in sizes else "",
        "mult-adds": f"{sizes['mult_adds_m']:,} M" if "mult_adds_m" in sizes else "",
    }
    if model is not None:
        rows["scores"] = "logits" if model.scores_are == "logits" else "lengths of capsules: each is a probability"
        rows["features"] = str(model.num_features)
        rows["taps"] = ", ".join(model.taps)
    rows["weights"] = ", ".join(info.weights) or "none known"
    return section(name, rows)


def published(name: str) -> str:
    """A line for each error; where it stands, and what that source is."""
    errors = model_info(name).published.get("errors", [])
    known = yaml.safe_load((files("zoo") / "published.yaml").read_text(encoding="utf-8"))["sources"]
    rows = [
        (
            f"  {error['data']}",
            percent(error),
            ", ".join(error[key] for key in ("crops", "note") if key in error),
            f"{error['where']} ({error['source']}: {known[error['source']]})",
        )
        for error in errors
    ]
    return f"published errors, %\n{aligned(rows)}" if rows else ""


def percent(errors: Mapping[str, Any]) -> str:
    """ "top-1 24.7, top-5 7.8"; an error that has no such name is a number alone."""
    return ", ".join(f"{word} {errors[key]}".strip() for key, word in ERRORS.items() if key in errors)


def options(name: str) -> str:
    rows = {
        key: "must be given" if value is REQUIRED else repr(value) for key, value in BACKBONES[name].options.items()
    }
    return section(f'options of zoo.create_model("{name}", …)', rows)


def weights(name: str, tag: str) -> str:
    source = sources.source(name, tag)
    seen = source.preprocess
    resized = f"{seen.resize}×{seen.resize}" if seen.squash else f"the shorter side {seen.resize}"
    default = ", the default" if tag == sources.tags(name)[0] else ""
    rows = {
        "from": source.url,
        "SHA-256": {0: "", 64: source.sha256}.get(len(source.sha256), f"{source.sha256} …"),
        "resized to": f"{resized}, {seen.interpolation}",
        "cut to": f"{seen.size}×{seen.size}",
        "mean": ", ".join(f"{value:.4g}" for value in seen.mean),
        "std": ", ".join(f"{value:.4g}" for value in seen.std),
        "classes": f"{len(seen.classes)}: {', '.join(seen.classes[:3])} …" if seen.classes else "",
        "options": ", ".join(f"{key}={value!r}" for key, value in source.options.items()),
        "reported error, %": percent(source.errors),
        "licence": seen.licence,
    }
    return section(f"weights {tag}{default}", rows)
