"""Classes of data in the numbers of a model that learnt them elsewhere."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from zoo.sources import imagenet_classes


def positions(found: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """Where each class of the data stands among the model's; None if the model does not know them all.

    They are the same names, or the data's are WordNet ids ("n01440764", as ImageNet's folders are called) and the
    model's are ImageNet's 1000 classes.
    """
    if tuple(found) == tuple(known):
        return list(range(len(known)))
    if len(set(known)) == len(known) and set(found) <= set(known):
        return [list(known).index(name) for name in found]
    if set(found) <= set(wnids()) and len(known) == 1000 and tuple(known) == imagenet_classes():
        return [wnids().index(name) for name in found]
    return None


@cache
def wnids() -> tuple[str, ...]:
    """The ids of ImageNet's 1000 classes, sorted, which is their order (ILSVRC 2012)."""
    return tuple((files("zoo.data") / "imagenet_wnids.txt").read_text(encoding="ascii").split())
