"""Config nodes: made from the registries, checked, filled from the data, and built."""

import functools
import importlib.util
import inspect
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from zoo import sources
from zoo.backbones import BACKBONES
from zoo.bundle import opened
from zoo.criteria import CRITERIA
from zoo.data import DATASETS, ImageData, create_data
from zoo.data.classes import wnids
from zoo.pixels import OnPixels, for_channels, on_pixels
from zoo.registry import REQUIRED, Registry, suggest
from zoo.sources import Preprocess, imagenet_classes
from zoo.weights import create_model, load_checkpoint, told_options

GROUPS = {"backbone": BACKBONES, "criterion": CRITERIA, "data": DATASETS}  # those whose nodes are registry rows
FROM_DATA = ("num_classes", "in_chans", "image_size")  # null in a backbone's node: as the data has it
SMALL = 64  # pixels: up to here stem=null means small
ALLOWED = ["zoo.", "torch.", "torchvision.", "lightning."]  # where a _target_ may lie; plugins join

logger = logging.getLogger(__name__)

# key → (whole numbers only?, what is in range, the words for it)
RANGES: dict[str, tuple[bool, Callable[[float], bool], str]] = {
    "seed": (True, lambda v: 0 <= v < 2**32, "a whole number from 0, below 2^32"),
    "data.batch_size": (True, lambda v: v >= 1, "a whole number from 1"),
    "data.val_fraction": (False, lambda v: 0 < v < 1, "between 0 and 1"),
    "data.seed": (True, lambda v: v >= 0, "a whole number from 0"),
    "data.size": (True, lambda v: v >= 1, "a whole number from 1"),
    "data.workers": (True, lambda v: v >= 0, "a whole number from 0"),
    "data.test_fraction": (False, lambda v: 0 < v <= 1, "above 0, at most 1"),
    "data.resize": (True, lambda v: v >= 1, "a whole number from 1"),
    "optimizer.lr": (False, lambda v: v > 0, "above 0"),
    "optimizer.momentum": (False, lambda v: 0 <= v < 1, "from 0, below 1"),
    "optimizer.weight_decay": (False, lambda v: v >= 0, "0 or above"),
    "schedule.every": (False, lambda v: v > 0, "above 0, in epochs"),
    "schedule.warmup": (False, lambda v: v >= 0, "0 or above, in epochs"),
    "criterion.eps": (False, lambda v: 0 <= v < 1, "from 0, below 1"),
    "criterion.weight": (False, lambda v: v >= 0, "0 or above"),
    "trainer.max_epochs": (True, lambda v: v >= 1, "a whole number from 1"),
    "trainer.max_steps": (True, lambda v: v >= 1 or v == -1, "a whole number from 1, or -1 for no limit"),
    "trainer.log_every_n_steps": (True, lambda v: v >= 1, "a whole number from 1"),
}


def register() -> None:
    """Makes a config node of every registered name: its `name`, and each option with its default."""
    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        for name in registry:
            node = {"name": name, **known_options(registry, name)}
            node = {key: "???" if value is REQUIRED else _plain(value) for key, value in node.items()}
            if group == "backbone":
                node |= {key: None for key in (*FROM_DATA, "stem") if key in node}
            if group == "data":
                node["seed"] = "${seed}"
            store.store(group=group, name=name, node=node, provider="zoo")
    OmegaConf.register_new_resolver("declared_criterion", declared_criterion, replace=True)


def declared_criterion(backbone: str) -> str:
    """The config that criterion=auto stands for. An unknown backbone is left for Hydra to complain of."""
    name = BACKBONES[backbone].builder.criterion if backbone in BACKBONES else "supervised"
    return f"/criterion/{name}"


def known_options(registry: Registry, name: str) -> dict[str, Any]:
    """The options of a registered name; a data set's include those that every set has."""
    options = registry[name].options
    if registry is DATASETS:
        every = inspect.signature(create_data).parameters.values()
        options |= {p.name: p.default for p in every if p.kind is p.KEYWORD_ONLY and p.name != "augment"}
    return options


def load_plugins(typed: str) -> None:
    """Imports a user's Python files, "[one.py,two.py]", which register what they define."""
    for file in typed.strip("[]").split(","):
        path = Path(file.strip("'\" "))
        if not file:
            continue
        if not path.is_file():
            raise FileNotFoundError(f"no such plugin: plugins=[{path}]")
        if f"{path.stem}." in ALLOWED:  # imported by a run before this one in the same process
            continue
        other = importlib.util.find_spec(path.stem)
        if other is not None and Path(other.origin or "").resolve() != path.resolve():
            raise ValueError(f"the plugin {path} has the name of another module, {path.stem}: rename the file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # before it runs: its classes are looked up there
        ALLOWED.append(f"{path.stem}.")
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise


def check(cfg: DictConfig) -> None:
    """Keys of registry nodes and ranges of numbers. Raises TypeError or ValueError that names the key."""
    for group, registry in GROUPS.items():
        if group not in cfg:
            continue
        known = known_options(registry, cfg[group].name)
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


@dataclass(frozen=True)
class Start:
    """The weights that a model starts from."""

    arguments: Mapping[str, Any]  # of create_model
    preprocess: Preprocess | None  # what they were trained to see, if that is told


def start(cfg: DictConfig) -> Start:
    """`pretrained` → weights. What they need and expect goes where the backbone's and the data's nodes leave it open.

    true or a tag stands for released weights, anything else for a file, a folder, a repository or a URL. Raises
    ValueError for an unknown tag, and whatever opening the weights raises.
    """
    value = cfg.get("pretrained")
    if not value or cfg.get("resume"):  # a resumed run has its own
        return Start({}, None)
    name = cfg.backbone.name
    if value is True or value in sources.tags(name) or (not re.search(r"[/.:\\]", value) and not Path(value).exists()):
        released = sources.source(name, value)
        expected, arguments, options = released.preprocess, {"pretrained": value}, released.options
    else:
        bundle = opened(value)
        expected, arguments, options = bundle.preprocess, {"checkpoint_path": value}, told_options(bundle, name)
    for key, needed in options.items():
        if key in cfg.backbone and key not in FROM_DATA and cfg.backbone[key] in (None, BACKBONES[name].options[key]):
            cfg.backbone[key] = needed
    if expected is not None:
        if cfg.data.get("size") is not None and cfg.data.get("resize", 0) is None:  # the same share of the image
            cfg.data.resize = round(expected.resize * cfg.data.size / expected.size)
        for key in ("size", "resize", "interpolation", "squash"):
            if key in cfg.data and cfg.data[key] is None:
                cfg.data[key] = getattr(expected, key)
    return Start(arguments, expected)


def fill(cfg: DictConfig, data: ImageData, expected: Preprocess | None = None) -> None:
    """Puts the data's classes, channels and image size, and the stem that suits it, where the backbone's node has null.

    expected: by the weights to start from: their mean and std become the data's where its node has null. Folders of
    WordNet ids get the places of ImageNet's 1000 classes, if these are theirs or the backbone's node has as many.
    Raises ValueError if the node says otherwise than the data.
    """
    if expected is not None:
        for key in "mean", "std":
            if cfg.data.get(key) is None:
                cfg.data[key] = list(for_channels(getattr(expected, key), data.in_chans))
                setattr(data, key, list(cfg.data[key]))
    of_imagenet = expected is not None and expected.classes == imagenet_classes()
    if (of_imagenet or cfg.backbone.get("num_classes") == len(wnids())) and set(data.classes) <= set(wnids()):
        data.number_as(imagenet_classes())
    for key in FROM_DATA:
        if key not in cfg.backbone:
            continue
        value, known = cfg.backbone[key], getattr(data, key)
        if value is not None and value != known:
            raise ValueError(f"backbone.{key}={value} contradicts data {data.name}, which has {key}={known}")
        cfg.backbone[key] = known
    if "criterion" in cfg and cfg.criterion.get("class_weights") == "balanced":
        cfg.criterion.class_weights = data.class_weights
    if cfg.backbone.get("stem", "") is None:
        cfg.backbone.stem = "small" if data.image_size <= SMALL else "large"
        if cfg.backbone.stem == "small":
            logger.info("images of %d pixels: backbone.stem=small", data.image_size)


def measured(cfg: DictConfig) -> tuple[OnPixels, ImageData]:
    """What evaluate.py measures, in eval mode: a checkpoint's model, or a backbone with weights; and the data.

    A folder of images that a backbone is measured on is shown as its weights expect, and all of it. Raises ValueError
    if the data has classes that the model does not know.
    """
    if cfg.checkpoint:
        model, data = load_checkpoint(cfg.checkpoint), create_data(**cfg.data)
        data.number_as(model.classes)
        return model, data
    begun = start(cfg)
    if cfg.data.get("test_fraction", 0) is None:
        cfg.data.test_fraction = 1.0
    data = create_data(**cfg.data)
    if begun.preprocess is None:  # the weights of others, of which nothing else is known
        fill(cfg, data)
        backbone = create_model(**cfg.backbone, **begun.arguments)
        model = on_pixels(backbone, mean=data.mean, std=data.std)
    else:
        options = {key: value for key, value in cfg.backbone.items() if value is not None}
        counts = {"num_classes": len(begun.preprocess.classes)} if begun.preprocess.classes else {}
        model = on_pixels(create_model(**counts | options, **begun.arguments))
        data.number_as(begun.preprocess.classes)
    model.classes = data.classes
    model.config = {"criterion": {"name": "supervised" if model.backbone.scores_are == "logits" else "capsule"}}
    return model.eval(), data


def target(node: Mapping[str, Any], kind: type | None = None) -> Callable[..., Any]:
    """The node's _target_ with its other keys bound. It must lie in zoo, torch, torchvision, lightning or a plugin.

    Raises ValueError if it lies elsewhere, is not there, or is no subclass of `kind`.
    """
    # plain containers: whatever keeps its options, as optimisers do, would save OmegaConf's with every checkpoint
    plain = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    options = {key: value for key, value in plain.items() if key != "_target_"}
    name = node["_target_"]
    if not name.startswith(tuple(ALLOWED)):
        raise ValueError(f"_target_={name} is refused: it must lie in {', '.join(ALLOWED)} or in a file of plugins=[…]")
    try:
        found = hydra.utils.get_object(name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(f"_target_={name} does not exist") from error
    if not f"{getattr(found, '__module__', '')}.".startswith(tuple(ALLOWED)):
        raise ValueError(f"_target_={name} is refused: it only passes through there")
    if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"_target_={name} is refused: it is no subclass of {kind.__name__}")
    return functools.partial(found, **options)


def device(accelerator: str) -> torch.device:
    """auto, cpu or gpu → torch.device, as the trainer would choose it. ValueError if there is no GPU to take."""
    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu, not {accelerator!r}")
    found = torch.accelerator.current_accelerator(check_available=True) if accelerator != "cpu" else None
    if accelerator == "gpu" and found is None:
        raise ValueError("accelerator=gpu, but there is no GPU here")
    return found or torch.device("cpu")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
