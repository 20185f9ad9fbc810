"""Augmentation of one image after the other while files are decoded, by torchvision: image → image, PIL's.

They draw from torch's generator. What works on whole batches on the device (zoo/data/augment.py) comes after them.
A ValueError tells which option is not possible, whatever is drawn: of a file it would be taken for damage.
"""

from collections.abc import Sequence

import torch
from PIL import Image

from zoo.data.augment import AUGMENTS, check, check_word

INTERPOLATIONS = ("bilinear", "bicubic")


@AUGMENTS.register(each="file")
def random_resized_crop(
    image: Image.Image,
    size: int,
    *,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
) -> Image.Image:
    """A part of the image of random area (a share in `scale`) and aspect (in `ratio`), resized to size×size.

    Szegedy et al. 2014, section 6: 8 to 100 percent of the area, sides 3/4 to 4/3.
    """
    from torchvision.transforms import v2

    check("random_resized_crop", strict=True, most=1, pair=True, scale=scale)
    check("random_resized_crop", strict=True, pair=True, ratio=ratio)
    check_word("random_resized_crop", INTERPOLATIONS, interpolation=interpolation)
    how = v2.InterpolationMode(interpolation)
    return v2.RandomResizedCrop(size, scale=tuple(scale), ratio=tuple(ratio), interpolation=how)(image)


@AUGMENTS.register(each="file")
def random_scaled_crop(
    image: Image.Image,
    size: int,
    *,
    scale: Sequence[float] = (256 / 224, 480 / 224),
    interpolation: str = "bilinear",
) -> Image.Image:
    """The shorter side becomes `size` times a number in `scale`, and any size×size of the pixels are cut out.

    He et al. 2015, section 3.4: 224 pixels of 256 to 480. Simonyan, Zisserman 2014, section 3.1: of 256 to 512.
    """
    check("random_scaled_crop", least=1, pair=True, scale=scale)
    check_word("random_scaled_crop", INTERPOLATIONS, interpolation=interpolation)
    least, most = (round(size * share) for share in scale)
    shorter = int(torch.randint(least, most + 1, ()))
    box = []  # in the file's pixels: nothing beside it is resized
    for length in image.size:
        resized = max(length * shorter // min(image.size), shorter)
        first = int(torch.randint(resized - size + 1, ()))
        box.append((first * length / resized, (first + size) * length / resized))
    (left, right), (top, bottom) = box
    return image.resize((size, size), Image.Resampling[interpolation.upper()], box=(left, top, right, bottom))


@AUGMENTS.register(each="image")
def color_jitter(
    image: Image.Image, *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0
) -> Image.Image:
    """Brightness, contrast, saturation (factors 1 ± each) and hue (turns, ± at most 0.5), in random order."""
    from torchvision.transforms import v2

    check("color_jitter", brightness=brightness, contrast=contrast, saturation=saturation)
    check("color_jitter", most=0.5, hue=hue)
    return v2.ColorJitter(brightness, contrast, saturation, hue)(image)


@AUGMENTS.register(each="image")
def auto_augment(image: Image.Image, *, policy: str = "imagenet") -> Image.Image:
    """Cubuk et al. 2019, AutoAugment. policy: "imagenet", "cifar10" or "svhn"."""
    from torchvision.transforms import v2

    check_word("auto_augment", [known.value for known in v2.AutoAugmentPolicy], policy=policy)
    return v2.AutoAugment(v2.AutoAugmentPolicy(policy))(image)


@AUGMENTS.register(each="image")
def rand_augment(image: Image.Image, *, ops: int = 2, magnitude: int = 9) -> Image.Image:
    """Cubuk et al. 2020, RandAugment: `ops` operations drawn for each image, at `magnitude` of 0 to 30."""
    from torchvision.transforms import v2

    check("rand_augment", whole=True, ops=ops)
    check("rand_augment", most=30, whole=True, magnitude=magnitude)
    return v2.RandAugment(num_ops=ops, magnitude=magnitude)(image)


@AUGMENTS.register(each="image")
def trivial_augment(image: Image.Image) -> Image.Image:
    """Müller, Hutter 2021, TrivialAugment (wide): one operation, at a magnitude of its own for each image."""
    from torchvision.transforms import v2

    return v2.TrivialAugmentWide()(image)


@AUGMENTS.register(each="image")
def aug_mix(
    image: Image.Image,
    *,
    severity: int = 3,
    width: int = 3,
    depth: int = 0,
    alpha: float = 1.0,
    all_ops: bool = False,
) -> Image.Image:
    """Hendrycks et al. 2020, AugMix: `width` chains of `depth` operations (0: 1 to 3), mixed with the image.

    all_ops: the paper leaves out those of colour, which its tests of robustness are made of.
    Differs: the consistency loss of the paper is not part of it.
    """
    from torchvision.transforms import v2

    check("aug_mix", least=1, most=10, whole=True, severity=severity)
    check("aug_mix", least=1, whole=True, width=width)
    check("aug_mix", whole=True, depth=depth)
    check("aug_mix", strict=True, alpha=alpha)
    mixed = v2.AugMix(severity=severity, mixture_width=width, chain_depth=depth, alpha=alpha, all_ops=all_ops)
    return mixed(image)
