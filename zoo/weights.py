"""Name or file → checked state dict → model. The only loader; it never runs code that a file holds."""

import hashlib
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbones import BACKBONES, Backbone
from zoo.backbones.backbone import check_count
from zoo.pixels import OnPixels, on_pixels

FORMAT = 1  # of what train.py saves under "zoo"; a file with a higher number is from a newer version
CONTAINERS = ("state_dict", "model")  # where others keep the state dict in their files
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")  # what wrappers put before the names


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    checkpoint_path: str | Path | None = None,
    **options: Any,
) -> Backbone:
    """The bare backbone of a registered name, in train mode.

    num_classes: None for the variant's own, 0 for pooled features instead of scores. in_chans: None for its own.
    checkpoint_path: a file with its weights, which must fit. options: the constructor's other arguments.
    Raises ValueError for an unknown name or weights that do not fit, TypeError for an unknown option.
    """
    if pretrained:
        raise ValueError(f"no pretrained weights are known for {name!r}; checkpoint_path= takes a file of your own")
    counts = {"num_classes": num_classes, "in_chans": in_chans}
    given = {key: value for key, value in counts.items() if value is not None}
    for key, value in given.items():
        check_count(key, value, least=0 if key == "num_classes" else 1)
    model = BACKBONES.build(name, **given, **options)
    if checkpoint_path is not None:
        load_state(model, state_dict(read(checkpoint_path)), source=str(checkpoint_path))
    return model


def load_checkpoint(path: str | Path) -> OnPixels:
    """What train.py saved → the model in eval mode, for pixels in [0, 1], on the CPU.

    `.classes` are the names of the classes, `.config` is the run's whole configuration as plain containers. Needs
    neither the data nor Hydra nor Lightning. A run's folder stands for its checkpoints/best.ckpt.
    Raises FileNotFoundError, or ValueError for a file that is damaged, is no checkpoint, or was not saved by train.py.
    """
    path = checkpoint_file(path, "best")
    content = read(path)
    card = check_card(content, path)
    options = dict(card["backbone"])
    model = on_pixels(create_model(**options), mean=card["mean"], std=card["std"])
    load_state(model, content["state_dict"], source=str(path))
    model.classes, model.config = tuple(card["classes"]), card["config"]
    return model.eval()


def checkpoint_file(path: str | Path, which: str) -> Path:
    """The file itself; for a run's folder its checkpoints/`which`.ckpt. Raises FileNotFoundError."""
    path = Path(path)
    if path.is_dir():
        found = path / "checkpoints" / f"{which}.ckpt"
        if not found.is_file():
            raise FileNotFoundError(f"{path} is not a run folder with a checkpoint: it has no checkpoints/{which}.ckpt")
        return found
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    return path


def check_card(content: Any, path: Path) -> dict[str, Any]:
    """The part of a checkpoint that says what was trained. ValueError if train.py did not write it."""
    if not isinstance(content, Mapping) or not isinstance(content.get("zoo"), Mapping):
        raise ValueError(f"{path} holds weights but was not saved by train.py; use create_model(…, checkpoint_path=…)")
    card = content["zoo"]
    if card["format"] > FORMAT:
        raise ValueError(f"{path} was saved by a newer version of zoo (format {card['format']}, known: {FORMAT})")
    name, plugins = card["backbone"]["name"], card["config"].get("plugins")
    if name not in BACKBONES and plugins:
        files = f"plugins=[{','.join(plugins)}]"
        raise ValueError(f"{path}: its backbone {name!r} is a plugin's: give {files} again, or import it")
    return card


def read(path: str | Path) -> Any:
    """The content of a checkpoint file, plain types and tensors only, on the CPU.

    A .sha256 file beside it is checked. Raises FileNotFoundError, or ValueError that says what the file is instead.
    """
    path = checkpoint_file(path, "best")
    check_hash(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ValueError(f"{path} is empty (0 bytes): it is not a checkpoint")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice about files that it does not know
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader of arbitrary bytes fails in arbitrary ways
        named = re.findall(r"GLOBAL (\S+)", str(error)) or pickled(path, start)
        if named:
            raise ValueError(
                f"{path} was refused: it would run code or build objects ({', '.join(dict.fromkeys(named))}), and only "
                "plain types and tensors are read. If you trust it, save its state_dict alone from where it was made"
            ) from error
        if start.startswith(b"PK") and not zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} is damaged: its archive is cut off or broken ({path.stat().st_size} bytes)"
            ) from error
        raise ValueError(f"{path} is not a checkpoint ({looks_like(start)})") from error


def pickled(path: Path, start: bytes) -> list[str]:
    """What a bare pickle would import, without running it; empty for other files."""
    if not start.startswith(b"\x80"):
        return []
    names, words = [], []
    try:
        with path.open("rb") as file:
            for code, word, _ in pickletools.genops(file):
                if code.name == "STACK_GLOBAL":
                    names.append(".".join(words[-2:]))
                elif isinstance(word, str):
                    words.append(word)
    except Exception:
        return []
    return names


def looks_like(start: bytes) -> str:
    """What a file that is no checkpoint seems to be, from its first bytes."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself"
    return f"it starts with {start[:16]!r}"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sidecar(path: Path) -> Path:
    """The file beside a checkpoint that names its hash, and the hash of the one that it replaced."""
    return path.with_name(path.name + ".sha256")


def check_hash(path: Path) -> None:
    """ValueError if a sidecar lies beside the file and names neither as its new nor as its previous hash."""
    if not sidecar(path).is_file():
        return
    # "previous" is right too: a process that dies between writing the sidecar and moving the file leaves the old file
    known = re.findall(r"\b[0-9a-f]{64}\b", sidecar(path).read_text().lower())
    if digest(path) not in known:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {sidecar(path).name}")


def state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors by name, out of the containers and prefixes that trainers and wrappers put around them."""
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError("the file holds no state dict: names with tensors were expected")
    state = dict(content)
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads strictly, or raises ValueError with what is missing, unexpected or misshapen; the model stays as it was."""
    own = model.state_dict()
    both = own.keys() & state.keys()
    faults = {
        # files from before torch 0.4.1 lack the counter, which nothing but cumulative averages reads
        "missing": sorted(key for key in own.keys() - state.keys() if not key.endswith(".num_batches_tracked")),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": sorted(
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in both
            if own[key].shape != state[key].shape
        ),
    }
    if any(faults.values()):
        told = [
            f"{len(keys)} {what}: {', '.join(keys[:3])}{' …' * (len(keys) > 3)}"
            for what, keys in faults.items()
            if keys
        ]
        raise ValueError(f"the weights in {source} do not fit ({'; '.join(told)})")
    model.load_state_dict({**own, **state})
