"""A confusion matrix as CSV and as a picture."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.checkpoint import replace

INK, PAPER, DEEP = (30, 30, 36), (255, 255, 255), (20, 70, 140)


def save_csv(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """A row for each true class, a column for each predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    replace(path, text.getvalue())


def save_png(counts: Tensor, classes: Sequence[str], path: Path) -> None:
    """Cells shaded by their share of the true class's images; counts are written where they can be read."""
    draw_counts = len(classes) <= 25
    cell = 44 if draw_counts else max(3, 1100 // len(classes))
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    names = [name if len(name) <= 16 else name[:15] + "…" for name in classes]
    labelled = cell >= 14
    margin = 40 + (max(round(small.getlength(name)) for name in names) if labelled else 0)
    side = cell * len(classes)
    image = Image.new("RGB", (margin + side + 20, margin + side + 20), PAPER)
    pen = ImageDraw.Draw(image)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            depth = share[row, column].item()
            shade = tuple(round(paper + (deep - paper) * depth) for paper, deep in zip(PAPER, DEEP, strict=True))
            x, y = margin + column * cell, margin + row * cell
            pen.rectangle((x, y, x + cell - 1, y + cell - 1), fill=shade, outline=(228, 228, 232) if cell > 8 else None)
            if draw_counts and counts[row, column]:
                ink = PAPER if depth > 0.5 else INK
                pen.text((x + cell / 2, y + cell / 2), str(counts[row, column].item()), ink, font=small, anchor="mm")
    if labelled:
        for i, name in enumerate(names):
            at = margin + i * cell + cell / 2
            pen.text((margin - 6, at), name, INK, font=small, anchor="rm")
            _upright(image, name, small, (round(at), margin - 6))
    pen.text((margin + side / 2, 14), "predicted", INK, font=font, anchor="mm")
    _upright(image, "true", font, (14, margin + side // 2 + 16))
    image.save(path)


def _upright(image: Image.Image, text: str, font: ImageFont.FreeTypeFont, foot: tuple[int, int]) -> None:
    """Text that reads from bottom to top, its foot's middle at a place."""
    width, height = round(font.getlength(text)) + 2, 20
    label = Image.new("L", (width, height))
    ImageDraw.Draw(label).text((0, height / 2), text, 255, font=font, anchor="lm")
    label = label.rotate(90, expand=True)
    image.paste(INK, (foot[0] - height // 2, foot[1] - width), label)
