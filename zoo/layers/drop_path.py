"""Huang, Sun, Liu, Sedra, Weinberger 2016, Deep networks with stochastic depth, section 3; here drawn for each image.

Differs: what is kept is divided by the survival probability in training, and nothing is multiplied by it in evaluation.
"""

from torch import Tensor, nn


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """x: (N, …), a residual branch. Each of the N rows is zero with probability `rate`; its mean stays what it was."""
    if rate == 0 or not training:
        return x
    survival = 1 - rate
    kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(survival)  # (N, 1, …)
    return x * kept.div_(survival)


def rising_rates(rate: float, blocks: int) -> list[float]:
    """A rate for each block, from 0 at the first evenly up to what would be `rate` behind the last: section 3.

    Raises ValueError unless 0 <= rate < 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path={rate}: the probability to drop a block is from 0, below 1")
    return [rate * i / blocks for i in range(blocks)]


class DropPath(nn.Module):
    """The identity in evaluation and for rate 0. rate: probability that an image goes without the branch, below 1."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate}: the probability to drop a branch is from 0, below 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate, self.training)

    def extra_repr(self) -> str:
        return f"{self.rate:.4g}"
