"""Normalisation in front of a backbone: outside of it, images are in [0, 1] everywhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbones import Backbone
from zoo.sources import Preprocess


class OnPixels(nn.Module):
    """A backbone that is shown pixels in [0, 1]. It saves and loads under the backbone's own names.

    `classes` and `config` are filled by load_checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1), persistent=False)
        self.classes: tuple[str, ...] = ()
        self.config: dict[str, Any] = {}
        see_through(self, "backbone")

    @property
    def taps(self) -> tuple[str, ...]:
        return self.backbone.taps

    def normalise(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] → what the backbone's weights expect."""
        return (x - self.mean) / self.std

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(self.normalise(x))


def on_pixels(
    model: Backbone, *, mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None
) -> OnPixels:
    """Puts (x − mean) / std in front of a backbone, so that it takes images (N, C, H, W) in [0, 1].

    `mean` and `std` are in units of [0, 1]: one number for all channels, or one for each; None for what the model's
    weights expect, 0 and 1 if it has none. Raises ValueError if their number is neither 1 nor the backbone's channels,
    or a std is not positive.
    """
    if mean is None or std is None:
        expected = preprocessing(model)
        mean, std = expected.mean if mean is None else mean, expected.std if std is None else std
    mean, std = ([v] if isinstance(v, int | float) else list(v) for v in (mean, std))
    for name, values in ("mean", mean), ("std", std):
        if len(values) not in (1, model.in_chans):
            raise ValueError(f"{name} has {len(values)} values for {model.in_chans} channels")
    if not all(value > 0 for value in std):
        raise ValueError(f"std must be positive, not {std}")
    return OnPixels(model, mean=mean, std=std)


def bare(model: Backbone | OnPixels) -> Backbone:
    return model.backbone if isinstance(model, OnPixels) else model


def preprocessing(model: Backbone | OnPixels) -> Preprocess:
    """What the model's weights were trained to see; without weights, its image size and pixels as they are.

    For a model of other channels than the weights' mean and std are their average (one channel) or repeated in turn;
    for one of another number of classes their names are unknown.
    """
    backbone = bare(model)
    side = backbone.image_size
    facts = backbone.preprocess or Preprocess(
        side, side, "bilinear", (0.0,) * backbone.in_chans, (1.0,) * backbone.in_chans
    )
    told = {"classes": facts.classes if len(facts.classes) == backbone.num_classes else ()}
    for name in "mean", "std":
        told[name] = for_channels(getattr(facts, name), backbone.in_chans)
        if isinstance(model, OnPixels):  # what it was given, if that is not what its weights expect
            given = getattr(model, name).flatten().float().cpu()
            if not torch.equal(given, torch.tensor(told[name])):
                told[name] = for_channels(given.tolist(), backbone.in_chans)
    return replace(facts, **told)


def for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """A mean or a standard deviation of each channel → of another number of channels."""
    if channels == 1 < len(values):
        return (round(sum(values) / len(values), 6),)
    return tuple(values[i % len(values)] for i in range(channels))


def create_transform(model: Backbone | OnPixels, *, train: bool = False) -> Callable[[Any], Tensor]:
    """PIL images (or uint8 tensors (…, C, H, W)) → what the model takes, as its weights were trained to see it.

    For a bare backbone it ends with the normalisation, for an `on_pixels` model with pixels in [0, 1]. The shorter side
    is resized and the centre square cut out; with `train` it is a random part of the image, mirrored half the time.
    """
    from torchvision.transforms import ConvertImageDtype, InterpolationMode, v2

    facts = preprocessing(model)
    channels = bare(model).in_chans
    how = {"interpolation": InterpolationMode(facts.interpolation), "antialias": True}
    if train:
        cut = [v2.RandomResizedCrop(facts.size, **how), v2.RandomHorizontalFlip()]
    else:
        whole = [facts.resize, facts.resize] if facts.squash else facts.resize
        cut = [v2.Resize(whole, **how), v2.CenterCrop(facts.size)]
    colours = [v2.Grayscale(1) if channels == 1 else v2.RGB()] if channels in (1, 3) else []
    # PIL changes colours and sizes, bytes are divided by 255 (ToDtype multiplies): bit for bit as torchvision has it
    steps = [*colours, *cut, v2.ToImage(), v2.ToPureTensor(), ConvertImageDtype(torch.float32)]
    if not isinstance(model, OnPixels):
        mean, std = (list(values) * (channels // len(values)) for values in (facts.mean, facts.std))
        steps.append(v2.Normalize(mean, std))
    return v2.Compose(steps)


def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Each class's probability (N, K), whatever the model's scores are.

    Logits go through a softmax and sum to one. A capsule's length already is the probability that its class is
    present, of each class by itself: lengths are returned as they are and need not sum to one.
    """
    scores = model(x)
    return scores if bare(model).scores_are == "lengths" else scores.softmax(1)


def see_through(module: nn.Module, child: str) -> None:
    """Makes `module` save and load its one child's parameters under the child's own names, without a prefix."""
    inner = f"{child}."

    def strip(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        for key in [key for key in state if key.startswith(prefix + inner)]:
            state[prefix + key[len(prefix + inner) :]] = state.pop(key)

    def restore(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            state[prefix + inner + key[len(prefix) :]] = state.pop(key)

    module.register_state_dict_post_hook(strip)
    module.register_load_state_dict_pre_hook(restore)
