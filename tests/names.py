"""Every registered name, for tests that hold them all to something; a net that is added later is held to it unasked."""

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

import zoo

NAMES = zoo.list_models()
INFO = {name: zoo.model_info(name) for name in NAMES}
CRITERION = {name: zoo.BACKBONES[name].builder.criterion for name in NAMES}


def family(name: str) -> str:
    return INFO[name].family


def marked(names: Iterable[str], one_for: Callable[[str], str] = family) -> list:
    """As pytest parameters: in the quick suite the cheapest of each family, or kind, in the slow one the others."""
    by_cost = sorted(sorted(names), key=lambda name: INFO[name].published.get("mult_adds_m", math.inf))
    quick = {one_for(name): name for name in reversed(by_cost)}.values()
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in by_cost]


def over(names: Iterable[str], one_for: Callable[[str], str] = family) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", marked(names, one_for))


def small(name: str) -> dict[str, str]:
    """The options of a net for images of a few pixels, on which tests are quick."""
    return {"stem": "small"} if "stem" in zoo.BACKBONES[name].options else {}


def on_meta(name: str, **options: object) -> zoo.Backbone:
    """In eval mode, without memory or numbers."""
    with torch.device("meta"):
        return zoo.create_model(name, **options).eval()


def images(model: zoo.Backbone, count: int = 2, side: int | None = None) -> Tensor:
    """Random images in [0, 1], as small as leaves the last maps more than one position."""
    if side is None:
        side = min(2 * model.smallest, model.image_size) if model.any_size else model.image_size
    return torch.rand(count, model.in_chans, side, side)


def ready(name: str, **options: object) -> zoo.Backbone:
    """In eval mode, no weight at zero, batch norms with the statistics of a batch: a fresh net's belong to no image."""
    model = zoo.create_model(name, **small(name), **options)
    with torch.no_grad():
        for parameter in model.parameters():  # layers that start at zero hide those before them
            parameter += 0.01 * torch.randn_like(parameter)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        model(images(model, 8))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Equal up to a share of the largest expected value."""
    assert expected.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=0, atol=relative * expected.abs().max().item())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
