"""Starting from what a checkpoint says: a resumed run's config, an evaluated model's data."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from zoo import bundle, files
from zoo.config.nodes import GROUPS, check

logger = logging.getLogger(__name__)


def inherited(arguments: list[str]) -> list[str]:
    """With resume= or checkpoint=, that run's choices as overrides, but for the groups that are overridden anyway."""
    for key, which, groups in ("resume", "last", None), ("checkpoint", "best", ("data",)):
        value = typed_value(arguments, key).split(",")[0]  # of a sweep over checkpoints the first decides
        if not value or value == "null":
            continue
        sweep = "-m" in arguments or "--multirun" in arguments
        if key == "resume" and (sweep or typed_value(arguments, "experiment") or typed_value(arguments, "debug")):
            raise ValueError("resume= takes the run's own config: it cannot be combined with experiment=, debug= or -m")
        card, path = checkpoint_card(value, which)
        chosen = {g: c for g, c in card["choices"].items() if groups is None or g in groups}
        overrides = [f"{g}={c}" for g, c in chosen.items() if not typed_value(arguments, g)]
        folder = path.resolve().parent.parent
        if key == "resume" and (folder / "config.yaml").is_file() and not typed_value(arguments, "hydra.run.dir"):
            overrides.append(f"hydra.run.dir='{folder}'")
        return overrides
    return []


def settled(cfg: DictConfig, inherited: list[str]) -> DictConfig:
    """The config that a job runs with: plain, checked, and with resume= or checkpoint= the old run's, overridden.

    Of a checkpoint to be evaluated only the data is taken. Raises ValueError, TypeError.
    """
    new = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    if new.get("resume"):
        card, path = checkpoint_card(new.resume, "last")
        old = new.copy()
        new = overridden(OmegaConf.create(card["config"]), new, inherited, card["choices"])
        new.resume, new.plugins = old.resume, old.plugins
        report_changes(path, card["config"], OmegaConf.to_container(new))
        if not card["whole"]:
            logger.warning("trainer.max_steps ended it inside an epoch, the rest of which is left out")
        if new.trainer.max_epochs <= card["epochs"]:
            logger.info("all its %d epochs are done; a larger trainer.max_epochs goes on", card["epochs"])
    elif new.get("checkpoint"):
        card, _ = checkpoint_card(new.checkpoint, "best")
        new.data = overridden(OmegaConf.create({"data": card["config"]["data"]}), new, inherited, {}).data
    elif "resume" not in new and not (new.get("backbone") and new.pretrained):
        raise ValueError(
            "checkpoint=… must be given, or backbone=NAME pretrained=true (or a tag, or a file of weights)"
        )
    if new.get("checkpoint") and (new.get("pretrained") or ("resume" not in new and new.get("backbone"))):
        raise ValueError("checkpoint=… names weights and their backbone: leave out pretrained= and backbone=")
    if isinstance(new.plugins, str):
        new.plugins = [new.plugins]
    for group, option in HydraConfig.get().runtime.choices.items():
        if group in GROUPS and group in new and option not in ("auto", new[group].name) and not new.get("checkpoint"):
            raise ValueError(f"{group}.name={new[group].name} only renames {option}: write {group}={new[group].name}")
    missing = sorted(OmegaConf.missing_keys(new))
    if missing:
        raise ValueError(f"{missing[0]} must be given")
    check(new)
    return new


def checkpoint_card(value: str, which: str) -> tuple[dict[str, Any], Path]:
    path = files.checkpoint_file(value, which)
    content = files.read(path)
    card = bundle.check_card(content, path)
    if which == "last" and "optimizer_states" not in content:
        raise ValueError(f"{path} holds the weights alone, nothing to resume from; pretrained={path} starts from them")
    return card, path


def overridden(old: DictConfig, new: DictConfig, inherited: list[str], choices: Mapping[str, str]) -> DictConfig:
    """`old`, with what was typed taken over from `new`, but for groups where the same was chosen again."""
    merged = old.copy()
    typed = [each for each in HydraConfig.get().overrides.task if each not in inherited]
    for override in OverridesParser.create().parse_overrides(overrides=typed):
        key = override.key_or_group
        if override.is_delete():
            raise ValueError(f"~{key} cannot be combined with resume= or checkpoint=; set it to null")
        if choices.get(key) == override.value():
            continue
        if key.split(".")[0] in old:
            OmegaConf.update(merged, key, OmegaConf.select(new, key), merge=False, force_add=True)
    return merged


def report_changes(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Logs what a resumed run changes. ValueError for another backbone or data set: that would be another run."""
    before, after = flat(old), flat(new)
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    changed = [key for key in changed if key.partition(".")[0] not in ("resume", "plugins")]
    for key in sorted(changed, key=lambda key: not key.endswith(".name")):
        group = key.partition(".")[0]
        if key == "pretrained":
            raise ValueError("resume= goes on from the checkpoint's weights: it cannot be combined with pretrained=")
        if group == "backbone" or key in ("data.name", "data.seed", "data.val_fraction", "optimizer._target_"):
            was, now = before.get(key), after.get(key)
            raise ValueError(f"cannot resume with another {group}: {key} was {was!r}, not {now!r}")
    logger.info("resuming %s; changed: %s", path, "nothing" if not changed else "")
    for key in changed:
        logger.info("  %s: %s → %s", key, before.get(key), after.get(key))


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    inner = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()]
    return {key: value for each in inner for key, value in each.items()}


def choices() -> dict[str, str]:
    """The option that was chosen in each config group, for inherit to choose again."""
    chosen = HydraConfig.get().runtime.choices
    return {
        group: option
        for group, option in chosen.items()
        if "/" not in group and "@" not in group and option is not None and group not in ("experiment", "debug")
    }


def typed_value(arguments: list[str], key: str) -> str:
    """What was typed behind key=, without quotes; "" if nothing was."""
    for argument in arguments:
        if argument.lstrip("+").startswith(f"{key}="):
            return argument.partition("=")[2].strip("'\"")
    return ""
