"""Config nodes → what trains: an optimiser over parameter groups, and a Trainer with all that it is given."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from zoo.backbones import Backbone
from zoo.config.inherit import choices
from zoo.config.nodes import target
from zoo.data import ImageData
from zoo.optim import parameter_groups

if TYPE_CHECKING:
    from lightning import Trainer


def optimizer(node: DictConfig) -> Callable[[nn.Module], Optimizer]:
    """The node's _target_ over a model's parameter groups; `decay_norms` and `decay_depthwise` say which decay."""
    options = OmegaConf.to_container(node, resolve=True)
    decay = {key: options.pop(key) for key in ("decay_norms", "decay_depthwise") if key in options}
    build = target(options, Optimizer)
    return lambda model: build(parameter_groups(model, **decay))


def card(cfg: DictConfig, data: ImageData) -> Mapping[str, Any]:
    """What a checkpoint tells of its model, in plain types: how it was built, what it sees, and the whole config."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    return {
        "backbone": plain["backbone"],
        "preprocess": asdict(data.preprocess),
        "config": plain,
        "choices": choices(),
    }


def trainer(cfg: DictConfig, folder: Path, backbone: Backbone) -> "Trainer":
    """The Trainer that saves whole checkpoints to the folder, with the callbacks and loggers of their nodes."""
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from zoo.callbacks import Pictures
    from zoo.checkpoint import WholeCheckpoints
    from zoo.pictures import PICTURES, applicable

    callbacks = [target(node, Callback)() for node in cfg.callbacks.values()]
    for callback in callbacks:
        if isinstance(callback, Pictures):
            callback.draw = {name: PICTURES.bind(name) for name in applicable(backbone)}
    return target(cfg.trainer, Trainer)(
        callbacks=callbacks,
        logger=[target(node, Logger)(save_dir=folder) for node in cfg.logger.values()],
        plugins=[WholeCheckpoints()],
        default_root_dir=folder,
    )
