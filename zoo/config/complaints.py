"""Errors as one line, Hydra's with near matches."""

import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.config.inherit import flat
from zoo.registry import suggest


def told(error: BaseException) -> str:
    """An exception in one line: its message, with its type in front where it is not one that we raise for people."""
    lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, OSError) and error.filename is not None:
        lines = f"{error.filename}: {error.strerror}"
    ours = isinstance(error, ValueError | TypeError | OSError | FloatingPointError)
    if ours or type(error).__name__ == "MisconfigurationException":  # Lightning's word for the same
        return lines
    return f"{type(error).__name__}: {lines} (HYDRA_FULL_ERROR=1 shows where)"


def explained(error: Exception, arguments: list[str], configs: Path, name: str) -> str:
    """Hydra's and OmegaConf's errors in one line, with near matches."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"no {group or 'config'} is named {option!r}{suggest(option, error.options or [])}"
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if unknown:
        key = unknown.group(1)
        rest = [a for a in arguments if a.lstrip("+~").split("=")[0] != key and "=" in a]
        return f"there is no config key or group {key!r}{suggest_key(key, known_keys(rest, configs, name))}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return " ".join(line.strip() for line in text.splitlines() if line.strip())
    return told(error)


def known_keys(arguments: list[str], configs: Path, name: str) -> list[str]:
    """All keys of the config that the remaining overrides compose to, and the groups."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configs), version_base=None):
            cfg = compose(name, overrides=[a for a in arguments if not a.startswith("hydra.")])
    except (HydraException, OmegaConfBaseException):
        return []
    tree = OmegaConf.to_container(cfg)
    keys = flat(tree)
    parents = {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 1)}
    return [*tree, *parents, *keys]


def suggest_key(key: str, known: list[str]) -> str:
    """Near matches beside it first (optimizer.lrr → optimizer.lr), else anywhere (lr → optimizer.lr)."""
    parent, _, last = key.rpartition(".")
    beside = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent and k}
    near = suggest(last, beside)
    if near.startswith("; did you mean"):
        words = near.removeprefix("; did you mean ").removesuffix("?").split(", ")
        return f"; did you mean {', '.join(beside[word] for word in words)}?"
    same = sorted({k for k in known if k.rpartition(".")[2] == last})
    if same:
        return f"; did you mean {', '.join(same)}?"
    return f"; {parent} has: {', '.join(sorted(beside))}" if parent and beside else suggest(key, known)
