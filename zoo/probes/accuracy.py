"""How often a model is wrong, over which classes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.criteria import Outcome
from zoo.metrics import Totals, classes_of, confusion
from zoo.pixels import OnPixels


@dataclass(frozen=True)
class Accuracy:
    """means: loss, its parts, top1_error and top5_error in percent; confusion: counts (K, K), row the true class."""

    means: dict[str, float]
    confusion: Tensor

    def by_class(self) -> list[float]:
        """Percent of each class's images that were recognised; NaN for a class without images."""
        return (100 * self.confusion.diag().double() / self.confusion.sum(1)).tolist()


@torch.no_grad()
def accuracy(
    model: OnPixels,
    batches: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[OnPixels, Tensor, Tensor], Outcome],
) -> Accuracy:
    """Measures in eval mode and leaves the mode of the model as it was."""
    was_training = model.training
    model.eval()
    totals, counts = Totals(), None
    for x, y in batches:
        if not len(x):
            continue
        outcome = criterion(model, x, y)
        totals.add(outcome.loss, outcome.parts, outcome.scores, y)
        cells = confusion(outcome.scores, classes_of(y), outcome.scores.shape[1])
        counts = cells if counts is None else counts + cells
    model.train(was_training)
    if counts is None:
        raise ValueError("there was no image to measure on")
    return Accuracy(totals.read(), counts.cpu())
