"""Scores and labels → errors in percent, counted on the device and read once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def classes_of(y: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The label (N,) that an error is counted against; of mixed labels the heavier."""
    label = y["label"] if isinstance(y, Mapping) else y
    return label if label.ndim == 1 else label.argmax(1)


def found_in(scores: Tensor, y: Tensor | Mapping[str, Tensor], k: int) -> Tensor:
    """(N,) whether the class is among the k best; of images that show several, whether all of them are."""
    several = y["digits"] if isinstance(y, Mapping) and "digits" in y else classes_of(y)[:, None]
    best = scores.topk(min(max(k, several.shape[1]), scores.shape[1])).indices
    return (best[:, :, None] == several[:, None, :]).any(1).all(1)


class Totals:
    """Sums over the images of an epoch, kept on the device: adding never waits for it.

    `read` gives means: `loss`, each part of it, `top1_error` and `top5_error` in percent.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, loss: Tensor, parts: Mapping[str, Tensor], scores: Tensor, y: Tensor | Mapping[str, Tensor]) -> None:
        """loss and its parts: means over a batch; scores: (N, K)."""
        n = len(scores)
        first, five = (found_in(scores.detach(), y, k) for k in (1, 5))
        values = {
            "loss": loss.detach().float() * n,
            **{name: part.detach().float() * n for name, part in parts.items()},
            "top1_error": n - first.sum(),
            "top5_error": n - five.sum(),
        }
        self.images += n
        for name, value in values.items():
            # Sums in double: an epoch's small losses must not drown in single precision. MPS has none.
            value = value.to(torch.float32 if value.device.type == "mps" else torch.float64)
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.images = state["images"]
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}

    def tensor(self, device: torch.device) -> Tensor:
        """Everything that must be added up over processes, as one vector."""
        sums = [value.to(device) for value in self._sums.values()]
        return torch.stack([torch.full_like(sums[0], self.images), *sums])

    def read(self, summed: Tensor | None = None) -> dict[str, float]:
        """The means; of the vector that all processes' `tensor` sum to, if given. Waits for the device."""
        images, *sums = (summed if summed is not None else self.tensor(self._sums["loss"].device)).tolist()
        per = {name: 100 if name.endswith("_error") else 1 for name in self._sums}
        return {name: per[name] * value / images for name, value in zip(self._sums, sums, strict=True)}


def confusion(scores: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K): row the true class, column the predicted one."""
    cells = y * num_classes + scores.argmax(1)
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)
