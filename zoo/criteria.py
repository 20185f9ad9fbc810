"""(model, x, y) → Outcome: what is minimised, and the scores that the metrics read.

y is LongTensor (N,), float (N, K) for mixed labels, or a dict with `label` and what else the set knows. A criterion
declares the scores that it can read, what it needs of a backbone, and the parts of its loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo import losses
from zoo.backbones import Backbone
from zoo.pixels import OnPixels
from zoo.registry import Registry

CRITERIA = Registry("criterion")


@dataclass(frozen=True)
class Outcome:
    loss: Tensor  # scalar
    scores: Tensor  # (N, K)
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # scalars that the loss is made of, for the log


@CRITERIA.register(scores_are="logits")
def supervised(
    model: OnPixels,
    x: Tensor,
    y: Tensor,
    *,
    eps: float = 0.0,
    prior: Sequence[float] | None = None,
    class_weights: Sequence[float] | None = None,
) -> Outcome:
    """Cross-entropy with label smoothing `eps` towards `prior` (one probability a class; None: uniform).

    class_weights: one for each class; train.py also takes "balanced", by which all classes count alike, however many
    training images they have.
    """
    scores = model(x)
    told = {"prior": _tensor(prior, scores), "weights": _tensor(class_weights, scores)}
    return Outcome(losses.cross_entropy(scores, y, eps=eps, **told), scores)


@CRITERIA.register(scores_are="logits", needs=("forward_aux",), parts=("main", "auxiliary"))
def auxiliary(
    model: OnPixels,
    x: Tensor,
    y: Tensor,
    *,
    weight: float = 0.3,
    eps: float = 0.0,
    prior: Sequence[float] | None = None,
) -> Outcome:
    """Szegedy et al. 2014, section 5: cross-entropy of the scores, and `weight` times that of each auxiliary head's.

    `eps` and `prior` smooth the labels of all of them, as in `supervised`.
    """
    scores, others = model.backbone.forward_aux(model.normalise(x))
    u = _tensor(prior, scores)
    main = losses.cross_entropy(scores, y, eps=eps, prior=u)
    side = sum(losses.cross_entropy(other, y, eps=eps, prior=u) for other in others)
    return Outcome(main + weight * side, scores, {"main": main, "auxiliary": side})


@CRITERIA.register(
    scores_are="lengths",
    needs=("capsules", "decode"),
    parts=("margin", "reconstruction"),
    reads=("label", "digits", "images"),
)
def capsule(
    model: OnPixels,
    x: Tensor,
    y: Tensor | Mapping[str, Tensor],
    *,
    weight: float = 0.0005,
    m_pos: float = 0.9,
    m_neg: float = 0.1,
    lambda_: float = 0.5,
) -> Outcome:
    """Sabour et al. 2017, section 4.1: margin loss, and the image rebuilt from the true class's capsule.

    `weight` multiplies the squared error summed over pixels; 0 leaves the decoder out. Of several digits in an image
    (section 6) each is rebuilt by itself, from its own capsule, and the errors are added up.
    """
    label, classes, images = y, [y], [x]
    if isinstance(y, Mapping):
        label, classes, images = y["label"], y["digits"].unbind(1), y["images"].unbind(1)
    v = model.backbone.capsules(model.normalise(x))  # (N, K, E)
    lengths = v.norm(dim=-1)
    loss = losses.margin(lengths, label, m_pos=m_pos, m_neg=m_neg, lambda_=lambda_)
    if not weight:
        return Outcome(loss, lengths, {"margin": loss})
    rebuilt = [model.backbone.decode(v, keep=each) for each in classes]
    error = sum((a - b).square().flatten(1).sum(1).mean() for a, b in zip(rebuilt, images, strict=True))
    return Outcome(loss + weight * error, lengths, {"margin": loss, "reconstruction": error})


def _tensor(values: Sequence[float] | None, like: Tensor) -> Tensor | None:
    return (
        None
        if values is None
        else torch.tensor(values, dtype=torch.promote_types(like.dtype, torch.float32)).to(like.device)
    )


def check_serves(
    name: str,
    backbone: Backbone,
    backbone_name: str,
    options: Mapping[str, object],
    targets: Sequence[str] = ("label",),
) -> None:
    """ValueError if the criterion cannot train this backbone, with the names of those that can, or on such targets."""
    beyond = [target for target in targets if target not in CRITERIA[name].facts.get("reads", ("label",))]
    if beyond:
        others = [other for other in CRITERIA if set(targets) <= set(CRITERIA[other].facts.get("reads", ()))]
        told = f"of each image more than a label is known ({', '.join(beyond)})"
        raise ValueError(
            f"criterion {name} cannot be used with this data: {told}; criteria that can: {', '.join(others)}"
        )
    reason = _misfit(name, backbone)
    if reason:
        fitting = [other for other in CRITERIA if not _misfit(other, backbone)]
        raise ValueError(
            f"criterion {name} cannot serve backbone {backbone_name}: {reason}; criteria that can: {', '.join(fitting)}"
        )
    prior = options.get("prior")
    if prior is not None and (len(prior) != backbone.num_classes or abs(sum(prior) - 1) > 1e-6 or min(prior) < 0):
        raise ValueError(f"criterion.prior must be {backbone.num_classes} probabilities that sum to one, not {prior}")
    weights = options.get("class_weights")
    if weights is not None and (isinstance(weights, str) or len(weights) != backbone.num_classes or min(weights) < 0):
        told = f'"balanced" or {backbone.num_classes} numbers from 0'
        raise ValueError(f"criterion.class_weights must be {told}, not {weights}")
    if name == "auxiliary" and not getattr(backbone, "aux_logits", True):
        raise ValueError("criterion auxiliary needs auxiliary heads, but backbone.aux_logits=false; take supervised")
    if options.get("weight") and getattr(backbone, "decoder", True) is None:
        raise ValueError("criterion.weight asks for reconstruction, but backbone.decoder=false; set criterion.weight=0")


def _misfit(name: str, backbone: Backbone) -> str:
    facts = CRITERIA[name].facts
    if facts["scores_are"] != backbone.scores_are:
        return f"it reads {facts['scores_are']}, the scores are {backbone.scores_are}"
    lacking = [need for need in facts.get("needs", ()) if not hasattr(backbone, need)]
    return f"the backbone has no {' and no '.join(lacking)}" if lacking else ""
