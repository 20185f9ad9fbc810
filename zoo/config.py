"""The glue to Hydra: registry rows → config nodes, its errors → one line, an old run's config → a new run's start."""

import functools
import importlib.util
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock, Timeout
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from zoo import weights
from zoo.backbones import BACKBONES
from zoo.registry import REQUIRED, Registry, suggest

logger = logging.getLogger(__name__)

ALLOWED = ["zoo.", "torch.", "torchvision.", "lightning."]  # where a _target_ may lie; plugins join
FROM_DATA = {"num_classes": "num_classes", "in_chans": "in_chans", "image_size": "image_size"}  # null in a node

# key → (whole numbers only?, what is in range, the words for it)
RANGES: dict[str, tuple[bool, Callable[[float], bool], str]] = {
    "seed": (True, lambda v: v >= 0, "a whole number from 0"),
    "data.batch_size": (True, lambda v: v >= 1, "a whole number from 1"),
    "data.val_fraction": (False, lambda v: 0 < v < 1, "between 0 and 1"),
    "data.seed": (True, lambda v: v >= 0, "a whole number from 0"),
    "data.size": (True, lambda v: v >= 1, "a whole number from 1"),
    "data.workers": (True, lambda v: v >= 0, "a whole number from 0"),
    "data.test_fraction": (False, lambda v: 0 < v < 1, "between 0 and 1"),
    "optimizer.lr": (False, lambda v: v > 0, "above 0"),
    "optimizer.momentum": (False, lambda v: 0 <= v < 1, "from 0, below 1"),
    "optimizer.weight_decay": (False, lambda v: v >= 0, "0 or above"),
    "schedule.warmup": (False, lambda v: v >= 0, "0 or above, in epochs"),
    "criterion.eps": (False, lambda v: 0 <= v < 1, "from 0, below 1"),
    "criterion.weight": (False, lambda v: v >= 0, "0 or above"),
    "trainer.max_epochs": (True, lambda v: v >= 1, "a whole number from 1"),
    "trainer.max_steps": (True, lambda v: v >= 1 or v == -1, "a whole number from 1, or -1 for no limit"),
    "trainer.log_every_n_steps": (True, lambda v: v >= 1, "a whole number from 1"),
}


def run(job: Callable[[DictConfig, Path], None], name: str) -> int:
    """Runs a script's `job(cfg, folder)` under configs/`name`.yaml and the command line. Returns the exit code.

    0: all went well; 1: something was wrong, told in one line; 130: Ctrl-C. Tracebacks are shown with `debug=…` or
    HYDRA_FULL_ERROR=1.
    """
    handler = logging.StreamHandler()
    ours = logging.getLogger("zoo")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    arguments = sys.argv[1:]
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or any(re.match(r"debug=(?!null$)", a) for a in arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions on instead of printing them
    failed: list[str] = []

    @functools.wraps(job)
    def caught(cfg: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.MULTIRUN:
            logger.info("job %s: %s", hydra_config.job.num, " ".join(hydra_config.overrides.task))
        try:
            with claimed(Path(hydra_config.runtime.output_dir), resumed=bool(cfg.get("resume"))) as folder:
                job(cfg, folder)
        except Exception as error:  # a sweep goes on with its next job
            if full:
                raise
            failed.append(told(error))
            print(f"error: {failed[-1]}", file=sys.stderr)  # noqa: T201

    configs = Path(sys.modules[job.__module__].__file__ or "").resolve().with_name("configs")
    try:
        for file in _value(arguments, "plugins").strip("[]").split(","):
            if file:
                load_plugin(file)
        register()
        sys.argv[1:] = arguments = inherit(arguments)
        hydra.main(version_base=None, config_path=str(configs), config_name=name)(caught)()
    except KeyboardInterrupt:
        print("stopped before the training began", file=sys.stderr)  # noqa: T201
        return 130
    except SystemExit as stop:
        # Lightning ends an interrupted fit with exit code 1
        return 130 if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
    except Exception as error:
        if full:
            raise
        message = explained(error, arguments, configs, name)
        print(f"error: {message}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        ours.removeHandler(handler)
    return 1 if failed else 0


def quiet() -> None:
    """Silences Lightning's advice about accelerators, loaders and products; it sets its level when it is imported."""

    for theirs in "lightning.pytorch", "lightning.fabric":
        logging.getLogger(theirs).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=theirs.replace(".", r"\."))


def register() -> None:
    """Makes a config node of every registered name: its `name`, and each option with its default."""
    from zoo.criteria import CRITERIA
    from zoo.data import DATASETS, create_data

    store = ConfigStore.instance()
    for group, registry in ("backbone", BACKBONES), ("criterion", CRITERIA), ("data", DATASETS):
        for name in registry:
            node = {"name": name, **known_options(registry, name, create_data)}
            node = {key: "???" if value is REQUIRED else _plain(value) for key, value in node.items()}
            if group == "backbone":
                node |= {key: None for key in FROM_DATA if key in node}
            if group == "data":
                node |= {"seed": "${seed}" if "seed" in node else 0}
            store.store(group=group, name=name, node=node, provider="zoo")
    OmegaConf.register_new_resolver("declared_criterion", declared_criterion, replace=True)


def declared_criterion(backbone: str) -> str:
    """The config that criterion=auto stands for. An unknown backbone is left for Hydra to complain of."""
    name = BACKBONES[backbone].builder.criterion if backbone in BACKBONES else "supervised"
    return f"/criterion/{name}"


def known_options(registry: Registry, name: str, create_data: Callable[..., Any]) -> dict[str, Any]:
    """The options of a registered name; a data set's include those that every set has."""
    options = registry[name].options
    if registry.kind == "data set":
        import inspect

        every = inspect.signature(create_data).parameters.values()
        options |= {p.name: p.default for p in every if p.kind is p.KEYWORD_ONLY and p.name != "augment"}
    return options


def load_plugin(file: str) -> None:
    """Imports a user's Python file, which registers what it defines; its own classes may be a _target_."""
    path = Path(file.strip("'\" "))
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin: plugins=[{path}]")
    if path.stem in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    ALLOWED.append(f"{path.stem}.")
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


# --- starting from what a checkpoint says -----------------------------------------------------------------------


_inherited: list[str] = []  # overrides that were not typed but taken from a checkpoint
_source: dict[str, Any] = {}  # that checkpoint's card


def inherit(arguments: list[str]) -> list[str]:
    """With resume= or checkpoint=, puts that run's choices in front of the overrides, unless they are overridden."""
    _inherited.clear()
    _source.clear()
    for key, which, groups in ("resume", "last", None), ("checkpoint", "best", ("data",)):
        value = _value(arguments, key)
        if not value or value == "null":
            continue
        path = weights.checkpoint_file(value, which)
        _source.update(weights.check_card(weights.read(path), path), path=str(path))
        if key == "resume" and (_value(arguments, "experiment") or "-m" in arguments or "--multirun" in arguments):
            raise ValueError("resume= takes the run's own config: it cannot be combined with experiment= or -m")
        choices = {g: c for g, c in _source["choices"].items() if groups is None or g in groups}
        _inherited.extend(f"{g}={c}" for g, c in choices.items() if not _value(arguments, g))
        if key == "resume" and not _value(arguments, "hydra.run.dir"):
            _inherited.append(f"hydra.run.dir='{path.resolve().parent.parent}'")
    return [*_inherited, *arguments]


def settled(cfg: DictConfig, *groups: str) -> DictConfig:
    """The config that a job runs with: plain, checked, and with resume= or checkpoint= the old run's, overridden.

    groups: what is taken from the old run; all if none is named. Raises ValueError, TypeError.
    """
    new = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    if _source:
        old = OmegaConf.create({k: v for k, v in _source["config"].items() if not groups or k in groups})
        merged = overridden(old, new)
        for key in merged:
            new[key] = merged[key]
        if not groups:
            report_changes(_source["config"], OmegaConf.to_container(new))
    check(new)
    return new


def overridden(old: DictConfig, new: DictConfig) -> DictConfig:
    """`old`, with what was typed on the command line taken over from `new`."""
    merged = old.copy()
    typed = [each for each in HydraConfig.get().overrides.task if each not in _inherited]
    for override in OverridesParser.create().parse_overrides(overrides=typed):
        key = override.key_or_group
        if key.split(".")[0] in old or "." not in key:
            OmegaConf.update(merged, key, OmegaConf.select(new, key), merge=False, force_add=True)
    return merged


def report_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Logs what a resumed run changes. ValueError for another backbone or data set: that would be another run."""
    before, after = flat(old), flat(new)
    changed = [
        key for key in sorted(before | after) if before.get(key) != after.get(key) and key not in ("resume", "plugins")
    ]
    for key in changed:
        if key == "data.name" or key.startswith("backbone."):
            raise ValueError(
                f"cannot resume with another {key.split('.')[0]}: {key} was {before.get(key)!r}, not {after.get(key)!r}"
            )
    logger.info("resuming %s; changed: %s", _source["path"], "nothing" if not changed else "")
    for key in changed:
        logger.info("  %s: %s → %s", key, before.get(key), after.get(key))


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    inner = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()]
    return {key: value for each in inner for key, value in each.items()}


# --- checking, filling, building --------------------------------------------------------------------------------


def check(cfg: DictConfig) -> None:
    """Keys of registry nodes and ranges of numbers. Raises TypeError or ValueError that names the key."""
    from zoo.criteria import CRITERIA
    from zoo.data import DATASETS, create_data

    for group, registry in ("backbone", BACKBONES), ("criterion", CRITERIA), ("data", DATASETS):
        if group not in cfg:
            continue
        known = known_options(registry, cfg[group].name, create_data)
        for key in cfg[group]:
            if key != "name" and key not in known:
                raise TypeError(f"{group} {cfg[group].name} has no option {key!r}{suggest(str(key), known)}")
    for key, (whole, fits, words) in RANGES.items():
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not fits(value):
            raise ValueError(f"{key}={value} is not possible: it must be {words}")


def fill(cfg: DictConfig, data: Any) -> None:
    """Puts the data's classes, channels and image size where its node has null. ValueError if they differ."""
    for key, of_data in FROM_DATA.items():
        if key not in cfg.backbone:
            continue
        value, known = cfg.backbone[key], getattr(data, of_data)
        if value is not None and value != known:
            raise ValueError(f"backbone.{key}={value} contradicts data {data.name}, which has {key}={known}")
        cfg.backbone[key] = known


def target(node: Mapping[str, Any], kind: type | None = None) -> Callable[..., Any]:
    """The node's _target_ with its other keys bound. It must lie in zoo, torch, torchvision, lightning or a plugin.

    Raises ValueError if it lies elsewhere, is not there, or is no subclass of `kind`.
    """
    options = {key: value for key, value in node.items() if key != "_target_"}
    name = node["_target_"]
    if not name.startswith(tuple(ALLOWED)):
        raise ValueError(f"_target_={name} is refused: it must lie in {', '.join(ALLOWED)} or in a file of plugins=[…]")
    try:
        found = hydra.utils.get_object(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(f"_target_={name} does not exist") from error
    if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"_target_={name} is refused: it is no subclass of {kind.__name__}")
    return functools.partial(found, **options)


def device(accelerator: str) -> Any:
    """auto, cpu or gpu → torch.device, as the trainer would choose it. ValueError if there is no GPU to take."""
    import torch

    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu, not {accelerator!r}")
    found = torch.accelerator.current_accelerator(check_available=True) if accelerator != "cpu" else None
    if accelerator == "gpu" and found is None:
        raise ValueError("accelerator=gpu, but there is no GPU here")
    return found or torch.device("cpu")


def choices() -> dict[str, str]:
    """The option that was chosen in each config group, for inherit to choose again."""
    chosen = HydraConfig.get().runtime.choices
    return {
        group: option
        for group, option in chosen.items()
        if "/" not in group and "@" not in group and option is not None and group not in ("experiment", "debug")
    }


@contextmanager
def claimed(folder: Path, *, resumed: bool) -> Iterator[Path]:
    """The run's folder, for this process alone. Raises FileExistsError if another run is or was in it."""
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a rank that the first process started works in its folder
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileExistsError(f"another process is running in {folder}") from error
    try:
        if not resumed and (folder / "config.yaml").exists():
            raise FileExistsError(f"{folder} holds another run; resume={folder} goes on with it")
        yield folder
    finally:
        lock.release()
        if [entry.name for entry in folder.iterdir()] == [".lock"]:  # stopped before it wrote anything
            (folder / ".lock").unlink()
            folder.rmdir()


# --- errors as one line -----------------------------------------------------------------------------------------


def told(error: BaseException) -> str:
    """An exception in one line: its message, with its type in front where it is not one that we raise for people."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} must be given"
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
    if isinstance(error, HydraException | OmegaConfBaseException | ConfigCompositionException):
        return " ".join(line.strip() for line in text.splitlines() if line.strip())
    return told(error)


def known_keys(arguments: list[str], configs: Path, name: str) -> list[str]:
    """All keys of the config that the remaining overrides compose to, and the groups."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

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


def _value(arguments: list[str], key: str) -> str:
    """What was typed behind key=, without quotes; "" if nothing was."""
    for argument in arguments:
        if argument.lstrip("+").startswith(f"{key}="):
            return argument.partition("=")[2].strip("'\"")
    return ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
