"""(scores, y) → scalar. y is LongTensor (N,) of classes, or float (N, K) of probabilities for mixed labels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def spread(y: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Labels as probabilities (N, K): one-hot of classes, or what they already are."""
    one_hot = F.one_hot(y, num_classes) if y.ndim == 1 else y
    return one_hot.to(like.dtype)


def cross_entropy(
    scores: Tensor, y: Tensor, *, eps: float = 0.0, prior: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy with label smoothing: q'(k) = (1 − ε) q(k) + ε u(k) (Szegedy et al. 2016, section 7).

    scores: logits (N, K). prior: u (K,), uniform if None. weights: of the classes (K,); an image's loss counts by the
    weight of its label, and the mean is still over images.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # targets of 1 − ε + ε/K need the digits
    q = spread(y, scores.shape[1], scores)
    u = torch.full_like(scores[0], 1 / scores.shape[1]) if prior is None else prior
    each = -(((1 - eps) * q + eps * u) * scores.log_softmax(1)).sum(1)
    return each.mean() if weights is None else (q @ weights * each).mean()


def margin(lengths: Tensor, y: Tensor, *, m_pos: float = 0.9, m_neg: float = 0.1, lambda_: float = 0.5) -> Tensor:
    """Margin loss for digit existence (Sabour et al. 2017, equation 4), summed over classes, averaged over images.

    lengths: (N, K) of class capsules, in [0, 1).
    """
    lengths = lengths.to(torch.promote_types(lengths.dtype, torch.float32))
    t = spread(y, lengths.shape[1], lengths)
    present = t * F.relu(m_pos - lengths).square()
    absent = lambda_ * (1 - t) * F.relu(lengths - m_neg).square()
    return (present + absent).sum(1).mean()
