"""An image file → pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def picture(path: str | Path | Tensor, channels: int) -> Image.Image:
    """An image file of any kind, upright, grey for one channel, else RGB; or pixels, uint8 (C, H, W).

    Raises OSError or ValueError if it cannot be read.
    """
    if isinstance(path, Tensor):
        pixels = path.permute(1, 2, 0).numpy()
        return Image.fromarray(pixels[:, :, 0] if path.shape[0] == 1 else pixels)
    with Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)  # a camera that was held on its side says so
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # Pillow would clip 16 bits, not scale
        elif image.mode in ("I", "F"):
            raise ValueError("32 bits for a pixel, of which nothing says what is white")
        elif "transparency" in image.info:  # its colours are kept, as are those of other transparent pixels
            image = image.convert("RGBA")
        return image.convert("L" if channels == 1 else "RGB")


def centred(
    image: Image.Image, size: int, *, resize: int | None = None, interpolation: str = "bilinear", squash: bool = False
) -> Image.Image:
    """The shorter side becomes `resize`, None for `size`; the size×size pixels at the centre are cut out.

    interpolation: "bilinear" or "bicubic". squash: both sides become `resize`.
    """
    resize, shorter = resize or size, min(image.size)
    box = []  # of the square, in the file's pixels: nothing beside it is resized
    for length in image.size:
        resized = resize if squash else int(resize * length / shorter)
        first = round((resized - size) / 2)
        box.append((first * length / resized, (first + size) * length / resized))
    (left, right), (top, bottom) = box
    return image.resize((size, size), Image.Resampling[interpolation.upper()], box=(left, top, right, bottom))


def pixels(image: Image.Image) -> Tensor:
    """uint8 (C, H, W)"""
    width, height = image.size
    return torch.from_numpy(np.array(image)).view(height, width, -1).permute(2, 0, 1).contiguous()


def decode(path: str | Path | Tensor, size: int, channels: int, **how: Any) -> Tensor:
    """An image file → uint8 (C, size, size). how: as `centred` has it. Raises OSError or ValueError, as `picture`."""
    return pixels(centred(picture(path, channels), size, **how))
