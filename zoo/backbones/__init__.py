"""Images → scores. One paper family a file; importing the package registers them all."""

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from zoo.backbones.backbone import Backbone
from zoo.backbones.register import BACKBONES
from zoo.registry import suggest
from zoo.sources import tags

for _module in pkgutil.iter_modules(__path__):  # each family registers itself
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["BACKBONES", "Backbone", "ModelInfo", "is_model", "list_models", "model_info"]


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a registered name without building it. Figures are percent and millions, as in the papers."""

    name: str
    family: str
    paper: str
    input_size: tuple[int, int, int]
    num_classes: int
    published: dict[str, Any]  # parameters, mult_adds_m, errors: a row of published.yaml

    @property
    def weights(self) -> tuple[str, ...]:
        """Tags for create_model(pretrained=…), the default first. Imports torchvision if it has the net."""
        return tags(self.name)


def list_models(pattern: str = "*", *, family: str | None = None, pretrained: bool = False) -> list[str]:
    """Registered names that match an fnmatch pattern, in natural order; those of one family, or with weights, only."""
    families = {BACKBONES[name].family for name in BACKBONES}
    if family is not None and family not in families:
        raise ValueError(f"no family is named {family!r}{suggest(family, families)}")
    names = [name for name in BACKBONES.names(pattern) if family in (None, BACKBONES[name].family)]
    return [name for name in names if model_info(name).weights] if pretrained else names


def is_model(name: str) -> bool:
    """Whether create_model knows the name."""
    return name in BACKBONES


def model_info(name: str) -> ModelInfo:
    """Family, paper, input size, classes, published figures and weights of a name. ValueError if it is unknown."""
    entry = BACKBONES[name]
    options, published = entry.options, _published().get(name, {})
    side = options.get("image_size", getattr(entry.builder, "image_size", None))
    return ModelInfo(
        name=name,
        family=entry.family,
        paper=published.get("paper", ""),
        input_size=(options["in_chans"], side, side),
        num_classes=options["num_classes"],
        published={key: value for key, value in published.items() if key != "paper"},
    )


@functools.cache
def _published() -> dict[str, Any]:
    import yaml  # only who asks for figures pays for it

    return yaml.safe_load((files("zoo") / "published.yaml").read_text())["models"]
