"""A sheet of pictures to look at: what each augmentation does to a photograph, and what the drawn sets show."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.data import DATASETS, create_data
from zoo.data.images import Arrays

TILE, COUNT, MARGIN, GAP = 96, 10, 250, 4  # pixels of a picture, pictures in a row, width of the titles, between two
# What is shown of each augmentation: its name and options that can be seen.
AUGMENTATIONS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("crop", {"padding": 16}),
    ("crop", {"padding": 16, "fill": "reflect"}),
    ("flip", {}),
    ("affine", {"rotate": 30}),
    ("affine", {"translate": 16}),
    ("affine", {"scale": (0.7, 1.4)}),
    ("affine", {"shear": 25}),
    ("affine", {"rotate": 30, "scale": (0.7, 1.4), "fill": "reflect"}),
    ("color", {"brightness": 0.4, "contrast": 0.4, "saturation": 0.8}),
    ("lighting", {"std": 0.5}),
    ("erase", {"p": 1.0}),
    ("erase", {"p": 1.0, "fill": "noise"}),
    ("cutout", {"size": 32}),
    ("mixup", {"alpha": 1.0}),
    ("cutmix", {}),
    ("mixup_or_cutmix", {}),
    ("random_resized_crop", {}),
    ("random_scaled_crop", {}),
    ("color_jitter", {"hue": 0.1}),
    ("auto_augment", {}),
    ("rand_augment", {}),
    ("trivial_augment", {}),
    ("aug_mix", {}),
)
# What is shown of the sets that are drawn: name, options and parts.
BOTH = ("train", "test")
SETS: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]] = (
    *(("distorted_mnist", {"kind": kind}, BOTH) for kind in ("R", "RTS", "P", "E", "TC")),
    ("mnist_addition", {}, BOTH),
    ("affnist", {}, BOTH),
    ("multi_mnist", {}, BOTH),
    ("faces", {"size": 48}, ("train",)),
    ("faces", {"size": 48, "permuted": 1.0}, ("test",)),
    ("textures", {"size": 48}, ("train",)),
)


def sheet(*, root: str = "data") -> Image.Image:
    """Every augmentation and every drawn set, a row each. root: where MNIST is, or is downloaded to."""
    rows = [(titled(name, options), augmented(name, options)) for name, options in AUGMENTATIONS]
    for name, options, parts in SETS:
        place = {"root": root} if "root" in DATASETS[name].options else {}
        data = create_data(name, batch_size=COUNT, **options, **place)
        for part in parts:
            batches = data.training(epoch=int) if part == "train" else data.batches(part)
            rows.append((f"{titled(name, options)}, {part}", next(iter(batches))[0]))
    return pasted(rows)


def titled(name: str, options: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def photographs() -> Tensor:
    """Two photographs that scikit-learn carries, in turn: uint8 (COUNT, 3, TILE, TILE)."""
    from sklearn.datasets import load_sample_image

    found = []
    for name in "china.jpg", "flower.jpg":
        pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None]
        side = min(pixels.shape[2:])
        square = pixels[:, :, :side, -side:].float()
        found.append(F.interpolate(square, (TILE, TILE), mode="bilinear", antialias=True).round().to(torch.uint8))
    return torch.cat(found * (COUNT // 2))


def augmented(name: str, options: Mapping[str, Any]) -> Tensor:
    """What the batches of a training show of the photographs, in their order: float (COUNT, 3, TILE, TILE)."""
    data = create_data("textures", size=TILE, batch_size=COUNT, augment={name: options})
    data.parts["train"] = Arrays(photographs(), torch.arange(COUNT) % 2)
    return next(iter(data.training(epoch=int, shuffle=False)))[0]


def pasted(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """A title and a row of images (N, C, H, W) in [0, 1] each; two channels are shown in red and green."""
    cell = TILE + GAP
    canvas = Image.new("RGB", (MARGIN + COUNT * cell, len(rows) * cell), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for row, (title, images) in enumerate(rows):
        pen.multiline_text((GAP, row * cell + GAP), wrapped(title, font), "black", font=font)
        for column, x in enumerate(images[:COUNT]):
            canvas.paste(tile(x), (MARGIN + column * cell, row * cell))
    return canvas


def tile(x: Tensor) -> Image.Image:
    x = x.expand(3, -1, -1) if x.shape[0] == 1 else x if x.shape[0] == 3 else torch.cat([x, torch.zeros_like(x[:1])])
    image = Image.fromarray((x * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    return image.resize((TILE, TILE), Image.Resampling.NEAREST)


def wrapped(title: str, font: ImageFont.FreeTypeFont) -> str:
    lines = [""]
    for word in title.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) < MARGIN - 2 * GAP else [*lines, word]
    return "\n".join(lines)
