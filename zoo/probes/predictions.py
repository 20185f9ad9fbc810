"""Image files → what a model takes them for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from zoo.backbones import Backbone
from zoo.data.decode import picture
from zoo.pixels import OnPixels, bare, create_transform, preprocessing, probabilities

BATCH = 32  # images


@dataclass(frozen=True)
class Prediction:
    """One of the classes that are likeliest for an image."""

    index: int
    name: str | None  # None: the weights do not tell
    probability: float


def check_files(paths: Iterable[str | Path]) -> None:
    """FileNotFoundError for the first that is no file: to be asked before a model is fetched."""
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is a folder: name its images" if path.is_dir() else f"no such image: {path}"
            )


def predict(model: Backbone | OnPixels, paths: Sequence[str | Path], *, topk: int = 5) -> list[list[Prediction]]:
    """For each image file the `topk` likeliest classes, or all if there are fewer, likeliest first.

    The images are resized, cut and normalised as the model's weights were trained to see them; the model is left in
    eval mode. Raises ValueError for a model without classes or an image that cannot be read, OSError for one that
    is missing.
    """
    backbone = bare(model)
    if not backbone.num_classes:
        raise ValueError(f"this {type(backbone).__name__} has no classes: it gives features")
    expected = preprocessing(model)
    backbone.check_images(1 if backbone.in_chans == 1 else 3, expected.size, expected.size)
    names = expected.classes
    names = names if len(names) == backbone.num_classes else (None,) * backbone.num_classes
    transform, device = create_transform(model), next(backbone.parameters()).device
    model.eval()
    found = []
    for chunk in batches(paths):
        x = torch.stack([transform(image(path, backbone.in_chans)) for path in chunk]).to(device)
        with torch.inference_mode():
            best = probabilities(model, x).topk(min(topk, backbone.num_classes))
        for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            found.append([Prediction(i, names[i], value) for i, value in zip(indices, values, strict=True)])
    return found


def batches(paths: Sequence[str | Path]) -> Iterator[Sequence[str | Path]]:
    for start in range(0, len(paths), BATCH):
        yield paths[start : start + BATCH]


def image(path: str | Path, channels: int) -> Image.Image:
    """An image file of any kind, grey for one channel, else RGB. ValueError if it cannot be read."""
    try:
        return picture(path, channels)
    except FileNotFoundError:
        raise
    except Exception as error:  # a decoder of arbitrary bytes fails in arbitrary ways
        raise ValueError(f"unreadable image: {path} ({' '.join(str(error).split())})") from error
