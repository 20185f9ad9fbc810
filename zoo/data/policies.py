"""Augmentation of one image after the other while files are decoded, by torchvision: image → image, PIL's.

They draw from torch's generator. What works on whole batches on the device (zoo/data/augment.py) comes after them.
"""

from collections.abc import Sequence

from PIL import Image

from zoo.data.augment import AUGMENTS

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


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

    if not (len(scale) == len(ratio) == 2 and 0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(f"random_resized_crop: scale={scale}, ratio={ratio} are no rising pairs, shares of the area")
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"random_resized_crop: interpolation must be bilinear or bicubic, not {interpolation!r}")
    how = v2.InterpolationMode(interpolation)
    return v2.RandomResizedCrop(size, scale=tuple(scale), ratio=tuple(ratio), interpolation=how)(image)


@AUGMENTS.register(each="image")
def color_jitter(
    image: Image.Image, *, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0
) -> Image.Image:
    """Brightness, contrast, saturation (factors 1 ± each) and hue (turns, ± at most 0.5), in random order."""
    from torchvision.transforms import v2

    return v2.ColorJitter(brightness, contrast, saturation, hue)(image)


@AUGMENTS.register(each="image")
def auto_augment(image: Image.Image, *, policy: str = "imagenet") -> Image.Image:
    """Cubuk et al. 2019, AutoAugment. policy: "imagenet", "cifar10" or "svhn"."""
    from torchvision.transforms import v2

    return v2.AutoAugment(v2.AutoAugmentPolicy(policy))(image)


@AUGMENTS.register(each="image")
def rand_augment(image: Image.Image, *, ops: int = 2, magnitude: int = 9) -> Image.Image:
    """Cubuk et al. 2020, RandAugment: `ops` operations drawn for each image, at `magnitude` of 0 to 30."""
    from torchvision.transforms import v2

    return v2.RandAugment(num_ops=ops, magnitude=magnitude)(image)


@AUGMENTS.register(each="image")
def trivial_augment(image: Image.Image) -> Image.Image:
    """Müller, Hutter 2021, TrivialAugment (wide): one operation, at a magnitude of its own for each image."""
    from torchvision.transforms import v2

    return v2.TrivialAugmentWide()(image)


@AUGMENTS.register(each="image")
def aug_mix(
    image: Image.Image, *, severity: int = 3, width: int = 3, depth: int = -1, alpha: float = 1.0
) -> Image.Image:
    """Hendrycks et al. 2020, AugMix: `width` chains of `depth` operations (−1: 1 to 3), mixed with the image.

    The consistency loss of the paper is not part of it.
    """
    from torchvision.transforms import v2

    return v2.AugMix(severity=severity, mixture_width=width, chain_depth=depth, alpha=alpha)(image)
