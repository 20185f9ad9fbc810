"""Normalisation in front of a backbone: outside of it, images are in [0, 1] everywhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbones import Backbone


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


def on_pixels(model: Backbone, *, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> OnPixels:
    """Puts (x − mean) / std in front of a backbone, so that it takes images (N, C, H, W) in [0, 1].

    `mean` and `std` are in units of [0, 1]: one number for all channels, or one for each. Raises ValueError if their
    number is neither 1 nor the backbone's channels, or a std is not positive.
    """
    mean, std = ([v] if isinstance(v, int | float) else list(v) for v in (mean, std))
    for name, values in ("mean", mean), ("std", std):
        if len(values) not in (1, model.in_chans):
            raise ValueError(f"{name} has {len(values)} values for {model.in_chans} channels")
    if not all(value > 0 for value in std):
        raise ValueError(f"std must be positive, not {std}")
    return OnPixels(model, mean=mean, std=std)


def probabilities(model: nn.Module, x: Tensor) -> Tensor:
    """Each class's probability (N, K), whatever the model's scores are.

    Logits go through a softmax and sum to one. A capsule's length already is the probability that its class is
    present, of each class by itself: lengths are returned as they are and need not sum to one.
    """
    scores = model(x)
    backbone = model.backbone if isinstance(model, OnPixels) else model
    return scores if backbone.scores_are == "lengths" else scores.softmax(1)


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
