"""Looking at what modules give, and leaving no trace."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from zoo.backbones import Backbone
from zoo.pixels import OnPixels
from zoo.registry import suggest


@contextmanager
def tapped(model: Backbone | OnPixels, taps: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """While it is open, each forward fills the dictionary: dotted module name → what the module gave.

    taps: names of the backbone's modules; None for those that it declares. Activations do not work in place meanwhile,
    so what is seen stays as it was given, with its gradient's history. On leaving, hooks are gone and the modules are
    as they were. Raises ValueError for a name that the backbone has not.
    """
    backbone = model.backbone if isinstance(model, OnPixels) else model
    modules = dict(backbone.named_modules())
    taps = backbone.taps if taps is None else taps
    for tap in taps:
        if tap not in modules:
            raise ValueError(f"{type(backbone).__name__} has no module {tap!r}{suggest(tap, modules)}")
    seen: dict[str, Tensor] = {}
    in_place = [module for module in modules.values() if getattr(module, "inplace", False)]
    hooks = [
        modules[tap].register_forward_hook(lambda _, __, output, tap=tap: seen.__setitem__(tap, output)) for tap in taps
    ]
    for module in in_place:
        module.inplace = False
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for module in in_place:
            module.inplace = True


def extract(model: Backbone | OnPixels, x: Tensor, taps: Sequence[str] | None = None) -> dict[str, Tensor]:
    """One forward of x (N, C, H, W) → the feature maps of the named modules, in the order of `taps`.

    taps: dotted names of the backbone's modules; None for `model.taps`. The model's mode is left as it is, gradients
    flow. Raises ValueError for an unknown name, or for one that the forward does not pass.
    """
    with tapped(model, taps) as seen:
        model(x)
    names = model.taps if taps is None else taps
    for name in names:
        if name not in seen:
            raise ValueError(f"the forward does not pass {name!r}, so there is nothing to see")
    return {name: seen[name] for name in names}
