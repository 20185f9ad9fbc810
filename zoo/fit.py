"""A state dict and a model: what of it is loaded, what is adapted, what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.backbones import Backbone, list_models, model_info
from zoo.backbones.register import BACKBONES
from zoo.layouts import rename

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # where others keep the state dict; averages first
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # what wrappers put before the names


@dataclass(frozen=True)
class LoadReport:
    """What a file's tensors became. `str` of it is one line for a reader."""

    source: str
    loaded: tuple[str, ...] = ()  # names in the model, the adapted ones among them
    adapted: Mapping[str, str] = field(default_factory=dict)  # a name or layer → what was done to it
    missing: tuple[str, ...] = ()  # in the model only: they stay as they were
    unexpected: tuple[str, ...] = ()  # in the file only: left out

    def __str__(self) -> str:
        told = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        told += [f"{name}: {what}" for name, what in self.adapted.items()]
        for what, names in ("missing", self.missing), ("unexpected", self.unexpected):
            if names:
                told.append(f"{len(names)} {what}: {shortened(names)}")
        return "; ".join(told)


@dataclass(frozen=True)
class Fit:
    """What to load into a model, and what to tell about it."""

    state: dict[str, Tensor]
    report: LoadReport


def state_dict(
    content: Any, known: Mapping[str, Tensor] | None = None, *, source: str = "the file"
) -> dict[str, Tensor]:
    """The tensors by name, out of the containers and prefixes that trainers and wrappers put around them.

    known: the model's own; a prefix that stands in its names is none. source: for the message of the ValueError that is
    raised if there are none.
    """
    while inner := next((c for c in CONTAINERS if isinstance(content, Mapping) and holds(content.get(c))), None):
        content = content[inner]
    pairs = content.items() if isinstance(content, Mapping) else ()
    if not pairs or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise ValueError(f"{source} holds no state dict: names with tensors were expected")
    odd = [key for key, value in pairs if value.is_meta or value.layout is not torch.strided]
    if odd:
        raise ValueError(f"{source} holds tensors without numbers, or sparse ones: {shortened(odd)}")
    state, own = {key: value for key, value in pairs if key != "n_averaged"}, known or {}
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) and key not in own for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    needed = {key for key in own if not key.endswith(".num_batches_tracked")}
    for prefix in PREFIXES:  # beside which a trainer may keep more
        inside = {key.removeprefix(prefix) for key in state if key.startswith(prefix)}
        if needed and inside >= needed and not state.keys() >= needed:
            state = {key.removeprefix(prefix) if key.startswith(prefix) else key: state[key] for key in state}
    return state


def holds(value: Any) -> bool:
    """Whether it is a mapping of names, as a state dict or what holds one is."""
    return isinstance(value, Mapping) and bool(value)


def fit(model: Backbone, state: Mapping[str, Tensor], *, source: str, strict: bool = True) -> Fit:
    """What of `state` goes into the model, adapted to its classes, channels and dtype. The model is only looked at.

    Adapted are: layers whose rows are classes, where the numbers of classes differ (they stay as they are in the
    model, and with them an auxiliary head that reads the classes or draws the channels, as a decoder does); heads that
    only one side has; convolutions that read the image, where the numbers of channels differ; and floating-point types.
    Raises ValueError if anything else does not fit, or a number is not finite. strict: whether names that are missing
    or unexpected are errors too.
    """
    fitted, unlike = _compare(model, state, source)
    report = fitted.report
    faults = {
        **({"missing": report.missing, "unexpected": report.unexpected} if strict or not report.loaded else {}),
        **unlike,
    }
    if any(faults.values()):
        told = [f"{len(names)} {what}: {shortened(names)}" for what, names in faults.items() if names]
        raise ValueError(f"the weights in {source} do not fit ({'; '.join(told)}){_others(state)}")
    broken = [key for key, value in fitted.state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"the weights in {source} are not all finite numbers: {shortened(broken)}")
    return fitted


def _compare(model: Backbone, state: Mapping[str, Tensor], source: str) -> tuple[Fit, dict[str, list[str]]]:
    """What could be loaded, and which of it is of another shape or type than the model's after all."""
    own = model.state_dict()
    state, adapted = rename(dict(state), model), {}
    _drop_heads(model, own, state, adapted)
    _convert(own, state, adapted)
    _adapt_shapes(model, own, state, adapted)
    # files from before torch 0.4.1 lack the counter, which nothing but cumulative averages reads
    without = {key for key in own if key.endswith(".num_batches_tracked")} | _kept(model, own, adapted)
    report = LoadReport(
        source=source,
        loaded=tuple(key for key in own if key in state),
        adapted=adapted,
        missing=tuple(key for key in own if key not in state and key not in without),
        unexpected=tuple(sorted(state.keys() - own.keys())),
    )
    pairs = [(key, state[key], own[key]) for key in report.loaded]
    unlike = {
        "of another shape": [
            f"{k} {tuple(old.shape)} for {tuple(new.shape)}" for k, old, new in pairs if old.shape != new.shape
        ],
        "of another type": [
            f"{k} {old.dtype} for {new.dtype}".replace("torch.", "")
            for k, old, new in pairs
            if new.is_floating_point() and old.dtype != new.dtype
        ],
    }
    return Fit({key: state[key] for key in report.loaded}, report), unlike


def shortened(names: Any) -> str:
    return f"{', '.join(list(names)[:3])}{' …' * (len(names) > 3)}"


def _drop_heads(model: Backbone, own: Mapping[str, Tensor], state: dict[str, Tensor], adapted: dict[str, str]) -> None:
    """Heads that only the file has are left out, those that only the model has stay as they are in it."""
    for head in model.heads:
        ours, theirs = _under(head, own), _under(head, state)
        if theirs and not ours:
            for key in theirs:
                del state[key]
            adapted[head] = "left out, the model has none"
        elif ours and not theirs:
            adapted[head] = "not in the file, the model's own stays"


def _adapt_shapes(
    model: Backbone, own: Mapping[str, Tensor], state: dict[str, Tensor], adapted: dict[str, str]
) -> None:
    for key in [key for key in own if key in state and state[key].shape != own[key].shape]:
        new, old = own[key].shape, state[key].shape
        layer, head = key.rpartition(".")[0], next((head for head in model.heads if key.startswith(f"{head}.")), None)
        axis = 1 if head is None else model.class_axis if head == model.classifier_name else 0
        if len(new) != len(old) or new[:axis] != old[:axis] or new[axis + 1 :] != old[axis + 1 :]:
            continue
        if head is not None and new[axis] == model.num_classes:
            del state[key]
            adapted[layer] = f"{old[axis]} → {new[axis]} classes, the model's own stays"
        elif head is None and len(new) == 4 and new[1] == model.in_chans:
            state[key] = adapt_channels(state[key], new[1])
            adapted[key] = f"{old[1]} → {new[1]} channels, {'summed' if new[1] == 1 else 'repeated and scaled'}"
    for head in model.auxiliary_heads if adapted else ():
        theirs = [key for key in _under(head, own) if key in state]
        if any(state[key].shape != own[key].shape for key in theirs):  # it reads all classes or draws all channels
            for key in theirs:
                del state[key]
            adapted[head] = "for other classes or channels, the model's own stays"


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution (O, C, h, w) that reads images of C channels → (O, channels, h, w).

    One channel: the sum over the old ones, so that a grey image gives what it would give repeated into them. Others:
    repeated in turn and scaled by C / channels, which does the same where `channels` is a multiple of C, and about the
    same elsewhere.
    """
    old = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // old), 1, 1)[:, :channels]
    return repeated * (old / channels)


def _convert(own: Mapping[str, Tensor], state: dict[str, Tensor], adapted: dict[str, str]) -> None:
    """Floating-point types become the model's."""
    converted = {}
    for key in own:
        if key in state and state[key].is_floating_point() and own[key].is_floating_point():
            old, new = state[key].dtype, own[key].dtype
            if old != new:
                state[key] = state[key].to(new)
                converted[f"{old} → {new}".replace("torch.", "")] = None
    if converted:
        adapted["dtype"] = ", ".join(converted)


def _under(head: str, names: Mapping[str, Any]) -> list[str]:
    return [key for key in names if key.startswith(f"{head}.")]


def _kept(model: Backbone, own: Mapping[str, Tensor], adapted: Mapping[str, str]) -> set[str]:
    """The names in the model that adaptation leaves as they are."""
    names = [name for name, what in adapted.items() if what.endswith("the model's own stays")]
    return {key for name in names for key in _under(name, own)}


def _others(state: Mapping[str, Tensor]) -> str:
    """The end of a message: registered names that the tensors would fit, the likeliest few by size tried."""
    size = sum(value.numel() for key, value in state.items() if "running_" not in key and "num_batches" not in key)
    sizes = {name: model_info(name).published.get("parameters", 0) for name in list_models()}
    near = sorted((name for name in sizes if sizes[name]), key=lambda name: abs(sizes[name] - size))
    found = []
    for name in near[:6]:
        with torch.device("meta"):
            model = BACKBONES.build(name)
        fitted, unlike = _compare(model, state, name)
        if not (fitted.report.missing or fitted.report.unexpected or any(unlike.values())):
            found.append(name)
    return f"; they would fit {', '.join(found)}" if found else ""
