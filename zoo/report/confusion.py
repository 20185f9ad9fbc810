"""A confusion matrix as CSV and as a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.files import whole

INK, PAPER, DEEP, LINE = (30, 30, 36), (255, 255, 255), (20, 70, 140), (228, 228, 232)


def save_csv(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """A row for each true class, a column for each predicted one."""
    with whole(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true \\ predicted", *classes])
        writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))


def save_png(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """Cells shaded by their share of the true class's images; counts are written where they can be read."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    written = len(classes) <= 25
    cell = 44 if written else max(3, 1100 // len(classes))
    names = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
    labelled = cell >= 14
    margin = 40 + (max(round(small.getlength(name)) for name in names) if labelled else 0)
    side = cell * len(classes)
    image = Image.new("RGB", (margin + side + 20, margin + side + 20), PAPER)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    image.paste(_shaded(share).resize((side, side), Image.Resampling.NEAREST), (margin, margin))
    pen = ImageDraw.Draw(image)
    for at in range(margin, margin + side + 1, cell) if cell > 8 else ():
        pen.line((margin, at, margin + side, at), LINE)
        pen.line((at, margin, at, margin + side), LINE)
    for row, column in counts.nonzero().tolist() if written else ():
        centre = margin + (column + 0.5) * cell, margin + (row + 0.5) * cell
        ink = PAPER if share[row, column] > 0.5 else INK
        pen.text(centre, str(counts[row, column].item()), ink, font=small, anchor="mm")
    for i, name in enumerate(names) if labelled else ():
        at = margin + (i + 0.5) * cell
        pen.text((margin - 6, at), name, INK, font=small, anchor="rm")
        _upright(image, name, small, (round(at), margin - 6))
    pen.text((margin + side / 2, 14), "predicted", INK, font=font, anchor="mm")
    _upright(image, "true", font, (14, margin + side // 2 + 16))
    image.save(path)


def _shaded(share: Tensor) -> Image.Image:
    """One pixel a cell, from paper at 0 to deep at 1."""
    paper, deep = torch.tensor(PAPER), torch.tensor(DEEP)
    shades = paper + (deep - paper) * share[..., None]
    return Image.fromarray(shades.round().to(torch.uint8).numpy())


def _upright(image: Image.Image, text: str, font: ImageFont.FreeTypeFont, foot: tuple[int, int]) -> None:
    """Text that reads from bottom to top, its foot's middle at a place."""
    width, height = round(font.getlength(text)) + 2, 20
    label = Image.new("L", (width, height))
    ImageDraw.Draw(label).text((0, height / 2), text, 255, font=font, anchor="lm")
    label = label.rotate(90, expand=True)
    image.paste(INK, (foot[0] - height // 2, foot[1] - width), label)
