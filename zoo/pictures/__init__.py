"""model → images. A picture is a registered function (model, x, y) → image (C, H, W) in [0, 1]."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.utils import make_grid

from zoo.backbones import Backbone
from zoo.pixels import OnPixels
from zoo.registry import Registry

PICTURES = Registry("picture")


def applicable(backbone: Backbone) -> list[str]:
    """The pictures that this backbone can give."""
    return [
        name
        for name in PICTURES
        if all(getattr(backbone, need, None) is not None for need in PICTURES[name].facts["needs"])
    ]


@PICTURES.register(needs=("capsules", "decoder"))
def reconstruction(model: OnPixels, x: Tensor, y: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Above the images, below what the decoder makes of the true class's capsule (Sabour et al. 2017, figure 3).

    Of two digits in an image (figure 5) each has a row.
    """
    v = model.backbone.capsules(model.normalise(x))
    kept = y["digits"].unbind(1) if isinstance(y, Mapping) else [y]
    return _beside(x, *(model.backbone.decode(v, keep=classes) for classes in kept))


@PICTURES.register(needs=("warp",))
def warp(model: OnPixels, x: Tensor, y: Tensor) -> Tensor:
    """Above the images, below what the spatial transformer hands on (Jaderberg et al. 2015, figure 1)."""
    warped, _ = model.backbone.warp(model.normalise(x))
    return _beside(x, (warped * model.std + model.mean).clamp(0, 1))


def _beside(*rows: Tensor) -> Tensor:
    return make_grid(torch.cat(rows), nrow=len(rows[0]), padding=1, pad_value=0.5)
