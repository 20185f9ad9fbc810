"""How image files are shown: the options that every set of them has."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from zoo.data.sets import Sets

How = dict[str, Any]  # as Files takes it


def image_files(*, size: int, resize: int | None = None) -> Callable[[Callable[..., Sets]], Callable[..., Sets]]:
    """Decorator of a set that takes `how`: adds the options of `shown` to the set's own, and hands on what they say.

    size, resize: what None stands for; of another size the same share of the image.
    """

    def decorate(build: Callable[..., Sets]) -> Callable[..., Sets]:
        signature = inspect.signature(build)
        own = [parameter for name, parameter in signature.parameters.items() if name != "how"]
        common = [p for name, p in inspect.signature(shown).parameters.items() if name != "usual"]

        @functools.wraps(build)
        def built(**options: Any) -> Sets:
            rest = {parameter.name: options.pop(parameter.name) for parameter in own if parameter.name in options}
            return build(**rest, how=shown((size, resize), **options))

        built.__signature__ = signature.replace(parameters=[*own, *common])  # what the registry reads
        return built

    return decorate


def shown(
    usual: tuple[int, int | None],
    *,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    squash: bool | None = None,
    channels: int = 3,
    workers: int = 2,
    on_error: str = "error",
) -> How:
    """Of an image the shorter side becomes `resize` pixels (with `squash` both do) by `interpolation`, bilinear or
    bicubic; the size×size pixels at its centre are kept.

    None: what the weights expect that training starts from, else `usual`, bilinear. channels: 1 or 3. workers:
    processes that decode. on_error: "error", or "skip" for files that cannot be read. Raises ValueError.
    """
    if on_error not in ("error", "skip"):
        raise ValueError(f"data.on_error must be error or skip, not {on_error!r}")
    if channels not in (1, 3):
        raise ValueError(f"data.channels must be 1 or 3, not {channels}")
    usual_size, usual_resize = usual
    size, interpolation = size or usual_size, interpolation or "bilinear"
    if usual_resize and not resize:
        resize = round(size * usual_resize / usual_size)
    if (resize or size) < size or interpolation not in ("bilinear", "bicubic"):
        told = f"data.size={size}, data.resize={resize}, data.interpolation={interpolation}"
        raise ValueError(f"{told}: resize is at least size, interpolation is bilinear or bicubic")
    how = {"resize": resize, "interpolation": interpolation, "squash": bool(squash)}
    return {"size": size, "channels": channels, "workers": workers, "on_error": on_error, **how}
