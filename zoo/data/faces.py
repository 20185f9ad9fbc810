"""Drawn faces: is one whose eyes, nose and mouth have changed places still a face?

The question that capsules were proposed for (Sabour et al. 2017; Hinton et al. 2018): a net that looks for parts calls
a scrambled face a face, a net that knows how parts lie in the whole does not. Lengths are in half heights of the head,
from its centre, y downwards; distances are negative inside a shape.
"""

import itertools
import math

import torch
from torch import Generator, Tensor

from zoo.data.images import Arrays
from zoo.data.sets import DATASETS, Sets

PLACES = torch.tensor([[-0.36, -0.26], [0.36, -0.26], [0.0, 0.14], [0.0, 0.54]])  # of eyes, nose and mouth
SPOTS = torch.tensor([[x, y] for y, x in ((-0.66, 0), *itertools.product((-0.26, 0.14), (-0.4, 0, 0.4)), (0.54, 0))])
FACE = (0, 0, 1, 2)  # which of KINDS is in which place
SHAPES = 3  # from an eye, nose or mouth in KINDS to the shape that stands for it
SCRAMBLED = torch.tensor(sorted(set(itertools.permutations(FACE)) - {FACE}))  # the eleven other arrangements
LOOK = {  # of one image: least and most
    "height": (0.33, 0.43),  # of the head, from its centre, as a share of the image's side
    "width": (0.74, 0.92),
    "across": (-0.05, 0.05),  # as a share of the side
    "down": (-0.05, 0.05),
    "tilt": (-0.2, 0.2),  # radians
    "behind": (0.0, 0.35),  # this and the next are shades of grey
    "skin": (0.5, 0.8),
    "light": (0.9, 1.0),
    "dark": (0.0, 0.15),
    "eye": (0.17, 0.22),
    "gaze": (-0.07, 0.07),
    "nose": (0.17, 0.22),
    "mouth": (0.24, 0.32),
    "smile": (-0.3, 0.6),
}
Look = dict[str, Tensor]  # each (N, 1, 1)


@DATASETS.register
def faces(
    *,
    size: int = 32,
    channels: int = 1,
    count: int = 2048,
    against: str = "shapes",
    permuted: float = 0.0,
    noise: float = 0.04,
) -> Sets:
    """Heads with two eyes, a nose and a mouth, of all sizes, shades and looks, and heads that are no faces.

    against: what is no face. "shapes": other shapes in the places of the parts, never as in a face, so that parts tell
    the two apart and so does their arrangement, and a net may learn either; "scattered": a face's parts at random
    spots; "permuted": a face's parts in each other's places, so that nothing but the arrangement tells, which shows
    whether a net can learn it at all.
    permuted: share of the test part's faces whose parts are permuted. They stay labelled as faces: the recall of that
    class is how many of them are still called faces. The same faces are drawn for every share, and training faces are
    whole: python train.py data=faces, then python evaluate.py checkpoint=… data=faces data.permuted=1.
    `count` training images and a quarter as many test images, in equal shares, always the same; noise: its standard
    deviation.
    """
    if against not in ("shapes", "scattered", "permuted"):
        raise ValueError(f"data.against must be shapes, scattered or permuted, not {against!r}")
    if not 0 <= permuted <= 1:
        raise ValueError(f"data.permuted={permuted} must be from 0 to 1")
    if size < 16 or channels < 1 or count < 8 or noise < 0:
        told = f"size={size}, channels={channels}, count={count}, noise={noise}"
        raise ValueError(f"faces need 16 pixels, a channel, eight images and noise from 0, not {told}")
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, share: float) -> Arrays:
        labels = torch.arange(n) % 2
        kinds, centres = arranged(labels, against, share, generator)
        drawn = painted(kinds, centres, looks(n, generator), size)
        images = torch.randn(n, channels, size, size, generator=generator).mul_(noise).add_(drawn[:, None])
        return Arrays(images.clamp_(0, 1).mul_(255).round_().to(torch.uint8), labels)

    return Sets(draw(count, 0), None, draw(count // 4, float(permuted)), ("face", "no face"))


def arranged(labels: Tensor, against: str, share: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Which kind of part lies where: (N, 4) and (N, 4, 2); `share` of the faces are permuted, in even steps."""
    n = len(labels)
    scrambled = SCRAMBLED[torch.randint(len(SCRAMBLED), (n,), generator=generator)]
    spots = SPOTS[torch.rand(n, len(SPOTS), generator=generator).argsort(1)[:, :4]]
    shake = 0.03 * (2 * torch.rand(n, 4, 2, generator=generator) - 1)
    face, other = labels == 0, labels == 1
    steps = (face.cumsum(0) * share + 1e-9).floor()
    changed = face & (steps.diff(prepend=torch.zeros(1)) > 0)
    kinds, centres = torch.tensor(FACE).repeat(n, 1), PLACES.repeat(n, 1, 1)
    if against == "shapes":
        kinds[other] = scrambled[other] + SHAPES
    elif against == "scattered":
        centres[other] = spots[other]
    else:
        changed = changed | other
    kinds[changed] = scrambled[changed]
    return kinds, centres + shake


def looks(n: int, generator: Generator) -> Look:
    drawn = torch.rand(len(LOOK), n, 1, 1, generator=generator)
    return {name: low + (high - low) * u for (name, (low, high)), u in zip(LOOK.items(), drawn, strict=True)}


def painted(kinds: Tensor, centres: Tensor, look: Look, size: int) -> Tensor:
    """(N, size, size) in [0, 1]: a head on a plain ground, then the parts, each with smooth edges."""
    if len(kinds) > 256:  # some at a time: as many images again are needed for each step of the drawing
        some = [{name: value[i : i + 256] for name, value in look.items()} for i in range(0, len(kinds), 256)]
        blocks = zip(kinds.split(256), centres.split(256), some, strict=True)
        return torch.cat([painted(*block, size) for block in blocks])
    at = (torch.arange(size) + 0.5) / size - 0.5
    down, across = (at[:, None] - look["down"]) / look["height"], (at - look["across"]) / look["height"]
    cos, sin = look["tilt"].cos(), look["tilt"].sin()
    x, y = cos * across + sin * down, cos * down - sin * across  # (N, size, size), upright on the head
    edge = size * look["height"]  # pixels in a unit of length
    image = over(look["behind"].expand_as(x), ellipse(x, y, look["width"], torch.ones(())), look["skin"], edge)
    for place in range(kinds.shape[1]):
        for kind, part in enumerate(KINDS):
            which = (kinds[:, place] == kind).nonzero().flatten()
            own = {name: value[which] for name, value in look.items()}
            centre = centres[which, place, :, None, None]
            for distance, shade in part(x[which] - centre[:, 0], y[which] - centre[:, 1], own):
                image[which] = over(image[which], distance, shade, edge[which])
    return image


def over(image: Tensor, distance: Tensor, shade: Tensor, edge: Tensor) -> Tensor:
    """A shape painted over an image, its border blended over one pixel."""
    cover = (0.5 - distance * edge).clamp(0, 1)
    return image + cover * (shade - image)


def ellipse(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance to first order: the value of (x/a)² + (y/b)² − 1 over its slope."""
    slope = 2 * ((x / a**2).square() + (y / b**2).square()).sqrt()
    return ((x / a).square() + (y / b).square() - 1) / slope.clamp_min(1e-6)


def box(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(x.abs() - a, y.abs() - b)


def eye(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    a = look["eye"]
    pupil = ellipse(x - look["gaze"], y, 0.42 * a, 0.42 * a)
    return [(ellipse(x, y, a, 0.68 * a), look["light"]), (pupil, look["dark"])]


def nose(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    """A wedge that widens downwards."""
    b = look["nose"]
    side = (x.abs() - 0.3 * (y + b) - 0.02) / math.hypot(1, 0.3)
    return [(torch.maximum(side, y.abs() - b), 0.55 * look["skin"])]


def mouth(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    """An ellipse, bent."""
    a = look["mouth"]
    bent = y + look["smile"] * (x.square() / a - 0.4 * a)
    return [(ellipse(x, bent, a, 0.26 * a), look["dark"])]


def window(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    """The other shapes have the shades of the parts: this one an eye's, then a nose's, then a mouth's."""
    a = 0.8 * look["eye"]
    return [(box(x, y, a, a), look["light"]), (box(x, y, 0.4 * a, 0.4 * a), look["dark"])]


def cross(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    b = look["nose"]
    return [(torch.minimum(box(x, y, b, 0.25 * b), box(x, y, 0.25 * b, b)), 0.55 * look["skin"])]


def diamond(x: Tensor, y: Tensor, look: Look) -> list[tuple[Tensor, Tensor]]:
    a = 0.6 * look["mouth"]
    return [((x.abs() + y.abs() - a) / math.sqrt(2), look["dark"])]


KINDS = (eye, nose, mouth, window, cross, diamond)
