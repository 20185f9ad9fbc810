"""Others' names for a net's weights become ours, and the net then says what theirs says."""

import hashlib
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from names import assert_near, small
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as VF

import zoo
from zoo import sources
from zoo.layouts import rename

SAME = {"padding": "same"}
EPS = 1e-3  # torchvision's MobileNetV3 has TensorFlow's, timm's has it in its tf_… alone
TIMM: dict[str, tuple[str, dict[str, object]]] = {  # timm's name → ours, and what ours needs to be the same net
    "mobilenetv2_035": ("mobilenet_v2_035", {}),
    "mobilenetv2_050": ("mobilenet_v2_050", {}),
    "mobilenetv2_075": ("mobilenet_v2_075", {}),
    "mobilenetv2_100": ("mobilenet_v2", {}),
    "mobilenetv2_140": ("mobilenet_v2_140", {}),
    "mobilenetv3_large_100": ("mobilenet_v3_large", {}),
    "mobilenetv3_small_100": ("mobilenet_v3_small", {}),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", SAME),
    "tf_mobilenetv3_large_075": ("mobilenet_v3_large_075", {}),
    "tf_mobilenetv3_large_minimal_100": ("mobilenet_v3_large_minimal", {}),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", SAME),
    "tf_mobilenetv3_small_075": ("mobilenet_v3_small_075", {}),
    "tf_mobilenetv3_small_minimal_100": ("mobilenet_v3_small_minimal", {}),
    "efficientnet_b0": ("efficientnet_b0", {}),
    "efficientnet_b1": ("efficientnet_b1", {}),
    "efficientnet_b2": ("efficientnet_b2", {}),
    "efficientnet_b3": ("efficientnet_b3", {}),
    "efficientnet_b4": ("efficientnet_b4", {}),
    "efficientnet_b5": ("efficientnet_b5", {"bn_eps": 1e-5}),
    "efficientnet_b6": ("efficientnet_b6", {"bn_eps": 1e-5}),
    "efficientnet_b7": ("efficientnet_b7", {"bn_eps": 1e-5}),
    "tf_efficientnetv2_s": ("efficientnet_v2_s", SAME),
    "tf_efficientnetv2_m": ("efficientnet_v2_m", SAME),
    "tf_efficientnetv2_l": ("efficientnet_v2_l", SAME),
    "tf_efficientnet_lite0": ("efficientnet_lite0", {}),
}
QUICK = (
    "mobilenetv2_035",
    "mobilenetv3_small_100",
    "tf_mobilenetv3_small_075",
    "tf_mobilenetv3_small_minimal_100",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
)
PEERS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TIMM]


def settled(model: nn.Module) -> nn.Module:
    """In eval mode, its batch norms and biases with values of their own."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


def theirs(name: str) -> nn.Module:
    options = {"bn_eps": EPS} if name.startswith("mobilenetv3") else {}
    return settled(pytest.importorskip("timm").create_model(name, **options))


def shuffled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a reader of safetensors may give it: in no order that means anything."""
    return dict(sorted(state.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest()))


@pytest.mark.parametrize("name", PEERS)
def test_timms_weights_load_strictly_in_any_order_and_give_timms_scores(name):
    ours, options = TIMM[name]
    expected, model = theirs(name), zoo.create_model(ours, **options).eval()
    model.load_state_dict(rename(shuffled(expected.state_dict()), model))
    for side in sorted({65, 96, min(224, model.image_size)}):  # SAME padding is another than symmetric at even sides
        x = torch.randn(1, 3, side, side)
        with torch.no_grad():
            assert_near(model(x), expected(x), relative=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small_075", "efficientnet_v2_s"])
def test_with_the_other_padding_the_scores_of_tensorflows_weights_are_others(name):
    tags = {"mobilenet_v3_small_075": "tf_mobilenetv3_small_075", "efficientnet_v2_s": "tf_efficientnetv2_s"}
    expected, model = theirs(tags[name]), zoo.create_model(name, padding="symmetric").eval()
    model.load_state_dict(rename(expected.state_dict(), model))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert (model(x) - expected(x)).abs().max() > 0.01 * expected(x).abs().max()


def as_lukemelas(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our EfficientNet-Lite's state under the names of efficientnet_lite_pytorch, block for block by its numbers."""
    numbers = sorted({tuple(map(int, key.split(".")[1:3])) for key in state if key.startswith("blocks.")})
    inner = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inner |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    named = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        if head == "blocks":
            stage, block, layer, leaf = rest
            names = first if stage == "0" else inner
            key = f"_blocks.{numbers.index((int(stage), int(block)))}.{names[layer]}.{leaf}"
        else:
            key = f"{outer[head]}.{rest[0]}"
        named[key] = value
    return named


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_the_names_of_efficientnet_lite_pytorch_become_ours(name):
    model = zoo.create_model(name)
    state = settled(model).state_dict()
    foreign = shuffled(as_lukemelas(state))
    assert not foreign.keys() & state.keys()
    back = rename(foreign, model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_state_under_our_names_stays_as_it_is():
    for name in "mobilenet_v2", "efficientnet_lite0", "lenet5":
        model = zoo.create_model(name)
        state = model.state_dict()
        del state[next(iter(state))]
        again = rename(state, model)
        assert list(again) == list(state)
        assert all(again[key] is state[key] for key in state)


def test_a_state_that_no_layout_explains_stays_as_it_is():
    model = zoo.create_model("mobilenet_v3_small", **small("mobilenet_v3_small"))
    state = theirs("mobilenetv3_small_100").state_dict()
    deeper = {**state, "blocks.3.2.conv_dw.weight": torch.zeros(1), "blocks.3.2.bn1.weight": torch.zeros(1)}
    extra = {**state, "ema.decay": torch.zeros(1)}
    lacking = {key: value for key, value in state.items() if not key.startswith("blocks.1.0.bn2")}
    other = zoo.create_model("resnet20", n=1).state_dict()
    for unknown in deeper, extra, lacking, other, {"a": torch.zeros(1)}:
        assert rename(unknown, model).keys() == unknown.keys()


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2_035"])
def test_the_classifier_is_found_for_other_classes_and_without_one(name):
    state = theirs({v: k for k, (v, _) in TIMM.items() if not k.startswith("tf_")}[name]).state_dict()
    for num_classes in 0, 7:
        model = zoo.create_model(name, num_classes=num_classes)
        again = rename(state, model)
        assert again[f"{model.classifier_name}.weight"].shape[0] == 1000
        others = {key for key in model.state_dict() if not key.startswith(model.classifier_name)}
        assert others == {key for key in again if not key.startswith(model.classifier_name)}
    without = {key: value for key, value in state.items() if not key.startswith("classifier")}
    assert rename(without, model).keys() == others


def test_weights_of_efficientnet_that_need_same_padding_are_not_taken_for_ours():
    model = zoo.create_model("efficientnet_b0", **small("efficientnet_b0"))
    foreign = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_bn0.weight": torch.zeros(32)}
    assert rename(foreign, model).keys() == foreign.keys()


LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


@pytest.fixture
def lite() -> Callable[[str], dict[str, Tensor]]:
    """The real weights out of an installed package of the extra `lite`, which is not imported."""

    def weights(name: str) -> dict[str, Tensor]:
        package = sources.source(name).url.removeprefix("package:")
        if not (spec := find_spec(package)):
            pytest.skip(f"needs the package {package}, of the extra lite")
        (file,) = Path(spec.origin).parent.glob("models/*.pth")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == sources.source(name).sha256
        return torch.load(file, weights_only=True)

    return weights


@pytest.mark.parametrize("name", LITE)
def test_the_packages_weights_are_those_of_the_source_and_know_real_images(name, lite, shared):
    model = zoo.create_model(name).eval()
    model.load_state_dict(rename(lite(name), model))
    wnids = (shared / "data" / "imagenet_wnids.txt").read_text().split()
    facts = sources.source(name).preprocess
    mean, std = (torch.tensor(values)[:, None, None] for values in (facts.mean, facts.std))
    folders = sorted((shared / "data" / "imagenet-sample").iterdir())[::25]
    right = 0
    for folder in folders:
        image = Image.open(next(folder.iterdir())).convert("RGB")
        image = VF.resize(image, facts.resize, InterpolationMode(facts.interpolation))
        x = VF.to_tensor(VF.center_crop(image, facts.size))
        with torch.no_grad():
            right += model(((x - mean) / std)[None]).argmax().item() == wnids.index(folder.name)
    assert right >= 0.75 * len(folders), f"{right} of {len(folders)}"


def test_a_densenet_takes_torchvisions_released_names_which_are_older_than_its_own():
    model = zoo.create_model("densenet121", num_classes=7, stem="small")
    own = model.state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value for key, value in own.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert rename(old, model).keys() == own.keys()
