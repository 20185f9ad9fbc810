from dataclasses import replace
from typing import Any

import pytest
import torch
from names import on_meta
from PIL import Image
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.transforms.functional import normalize

import zoo
from zoo.pixels import preprocessing, see_through
from zoo.sources import source


@pytest.fixture
def model() -> zoo.OnPixels:
    torch.manual_seed(0)
    return zoo.on_pixels(zoo.create_model("resnet20", n=1), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0)).eval()


def fresh() -> zoo.OnPixels:
    return zoo.on_pixels(zoo.create_model("resnet20", n=1)).eval()


def test_the_backbone_sees_each_channel_minus_its_mean_over_its_std(model):
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, 0] - 0.1) / 0.5, (x[:, 1] - 0.2) / 0.25, x[:, 2] - 0.3], dim=1)
    torch.testing.assert_close(model.normalise(x), by_hand)
    torch.testing.assert_close(model(x), model.backbone(by_hand))


@pytest.mark.parametrize(("mean", "std"), [(0.25, 0.5), ([0.25], [0.5]), ((0.25, 0.25, 0.25), 0.5)])
def test_one_number_serves_all_channels(mean, std):
    model = zoo.on_pixels(zoo.create_model("resnet20", n=1), mean=mean, std=std)
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(model.normalise(x), (x - 0.25) / 0.5)


def test_without_mean_and_std_the_backbone_sees_the_pixels_themselves():
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(fresh().normalise(x), x)


class Nested(nn.Module):
    """A model on pixels two levels down, beside another module."""

    def __init__(self, model: zoo.OnPixels) -> None:
        super().__init__()
        self.pair = nn.ModuleDict({"model": model, "modelled": nn.Linear(2, 2)})


class Seen(nn.Module):
    """A module that is seen through, as the model in it is."""

    def __init__(self, model: zoo.OnPixels) -> None:
        super().__init__()
        self.model = model
        see_through(self, "model")


def test_the_saved_keys_are_the_backbones_own_without_mean_and_std(model):
    state, own = model.state_dict(), model.backbone.state_dict()
    assert list(state) == list(own)
    assert all(torch.equal(state[key], own[key]) for key in own)
    assert "mean" in dict(model.named_buffers())


def test_a_model_seen_through_twice_saves_the_backbones_own_keys_too(model):
    assert list(Seen(model).state_dict()) == list(model.backbone.state_dict())


def test_nested_in_another_module_only_the_modules_own_prefix_is_added(model):
    state = Nested(model).state_dict()
    own = {f"pair.model.{key}" for key in model.backbone.state_dict()}
    assert set(state) == {*own, "pair.modelled.weight", "pair.modelled.bias"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (lambda m: m, lambda m: m.backbone),
        (lambda m: m.backbone, lambda m: m),
        (lambda m: m.backbone, Seen),
        (Seen, lambda m: m),
        (Nested, Nested),
    ],
    ids=["pixels to backbone", "backbone to pixels", "backbone to twice", "twice to pixels", "nested"],
)
def test_weights_load_strictly_from_one_to_the_other(model, source, target):
    other = fresh()
    target(other).load_state_dict(source(model).state_dict(), strict=True)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(other.backbone(x), model.backbone(x))
    assert model.mean.flatten().tolist() != other.mean.flatten().tolist()


@pytest.mark.parametrize("wrap", [lambda m: m, Seen, Nested])
def test_strict_loading_still_tells_missing_and_unexpected_keys(model, wrap):
    state = wrap(model).state_dict()
    (bias,) = (key for key in state if key.endswith("linear.bias"))
    state[bias.replace("bias", "gain")] = state.pop(bias)
    with pytest.raises(RuntimeError, match=r"(?s)Missing.*linear\.bias.*Unexpected.*linear\.gain"):
        wrap(fresh()).load_state_dict(state)


def test_loading_leaves_the_state_dict_that_it_was_given_as_it_was(model):
    state = model.state_dict()
    keys = list(state)
    fresh().load_state_dict(state)
    assert list(state) == keys


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for 3 channels"),
        ({"std": (1.0,) * 4}, "std has 4 values for 3 channels"),
        ({"mean": ()}, "mean has 0 values for 3 channels"),
        ({"std": 0.0}, r"std must be positive, not \[0\.0\]"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"std": (1.0, -1.0, 1.0)}, "std must be positive"),
    ],
)
def test_mean_and_std_that_fit_no_channels_or_divide_by_zero_are_refused(numbers, told):
    with torch.device("meta"):
        backbone = zoo.create_model("resnet20", n=1)
    with pytest.raises(ValueError, match=told):
        zoo.on_pixels(backbone, **numbers)


def test_mean_and_std_move_with_the_model_and_take_its_precision(model):
    double = model.double()
    assert double.mean.dtype == double.std.dtype == torch.float64
    assert double(torch.rand(2, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64
    assert model.to("meta").mean.is_meta


@pytest.mark.parametrize("wrapped", [True, False], ids=["on pixels", "bare"])
def test_probabilities_of_logits_are_their_softmax_and_of_capsules_their_lengths(model, wrapped):
    x = torch.rand(3, 3, 8, 8)
    logits = model if wrapped else model.backbone
    chances = zoo.probabilities(logits, x)
    torch.testing.assert_close(chances.sum(1), torch.ones(3))
    torch.testing.assert_close(chances.log() - chances.log()[:, :1], logits(x) - logits(x)[:, :1])
    capsnet = zoo.create_model("capsnet", num_classes=3, image_size=17)
    lengths = zoo.on_pixels(capsnet, mean=0.5) if wrapped else capsnet
    x = torch.rand(2, 1, 17, 17)
    torch.testing.assert_close(zoo.probabilities(lengths, x), lengths(x))


# --- preprocessing that belongs to the weights --------------------------------------------------------------------


def of_weights(name: str, tag: str | bool = True, **options: Any) -> zoo.Backbone:
    """As pretrained weights leave it, without them."""
    model = on_meta(name, **options)
    model.preprocess = source(name, tag).preprocess
    return model


def picture(side: tuple[int, int] = (290, 345), mode: str = "RGB") -> Image.Image:
    width, height = side
    return Image.fromarray(torch.randint(256, (height, width, 3), dtype=torch.uint8).numpy()).convert(mode)


def test_mean_and_std_are_those_of_the_weights_unless_others_are_given():
    backbone = zoo.create_model("resnet20", n=1)
    backbone.preprocess = source("resnet20").preprocess
    model, x = zoo.on_pixels(backbone), torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(model.normalise(x), normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    other = zoo.on_pixels(backbone, mean=0.5)
    assert torch.equal(other.mean.flatten(), torch.tensor([0.5]))
    assert torch.equal(other.std, model.std)


def test_preprocessing_tells_what_the_model_really_does():
    backbone = zoo.create_model("resnet20", n=1)
    assert preprocessing(backbone) == zoo.Preprocess(32, 32, "bilinear", (0.0,) * 3, (1.0,) * 3)
    backbone.preprocess = facts = source("resnet20").preprocess
    assert preprocessing(backbone) == preprocessing(zoo.on_pixels(backbone)) == facts
    assert preprocessing(zoo.on_pixels(backbone, mean=0.25)) == replace(facts, mean=(0.25,) * 3)
    assert preprocessing(zoo.on_pixels(backbone).double()) == facts


@pytest.mark.parametrize("size", [(290, 345), (500, 260), (100, 90)])
@pytest.mark.parametrize(
    ("name", "tag"),
    [
        *(("resnet50", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("efficientnet_b0", "IMAGENET1K_V1")),
        *(("efficientnet_b1", "IMAGENET1K_V2"), ("efficientnet_v2_s", "IMAGENET1K_V1")),
    ],
)
def test_the_transform_is_torchvisions_preset_bit_for_bit(name, tag, size):
    image = picture(size)
    expected = get_model_weights(name)[tag].transforms()(image)
    given = zoo.create_transform(of_weights(name, tag))(image)
    assert type(given) is Tensor
    assert torch.equal(given, expected)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "efficientnet_lite0"])
def test_for_a_model_on_pixels_it_stops_before_the_normalisation_that_the_model_does(name):
    backbone, image = of_weights(name), picture()
    model = zoo.on_pixels(backbone)
    pixels = zoo.create_transform(model)(image)
    assert 0 <= pixels.min() < 0.1
    assert 0.9 < pixels.max() <= 1
    facts = backbone.preprocess
    torch.testing.assert_close(normalize(pixels, facts.mean, facts.std), zoo.create_transform(backbone)(image))


def test_without_weights_it_gives_pixels_of_the_nets_own_size():
    given = zoo.create_transform(zoo.create_model("resnet20", n=1))(picture((50, 40)))
    assert given.shape == (3, 32, 32)
    assert 0 <= given.min() < given.max() <= 1


def test_weights_that_saw_squashed_images_are_shown_all_of_one():
    image = Image.new("RGB", (600, 300))
    image.paste((255, 0, 0), (0, 0, 60, 300))  # the left tenth: a centre square of 300 would leave it out
    squashed, cut = (of_weights(name) for name in ("resnet50", "resnet50"))
    squashed.preprocess = replace(squashed.preprocess, size=100, resize=100, squash=True)
    cut.preprocess = replace(cut.preprocess, size=100, resize=100)
    given = zoo.create_transform(zoo.on_pixels(squashed))(image)
    assert given.shape == (3, 100, 100)
    assert (given[0, :, :9] > 0.9).all()
    assert (given[0, :, 12:] < 0.1).all()
    assert zoo.create_transform(zoo.on_pixels(cut))(image).max() == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_mode_become_colours_or_greys_as_the_model_takes(mode, channels):
    model = zoo.on_pixels(of_weights("resnet20", in_chans=channels))
    image = Image.new("RGB", (40, 40), (255, 0, 0)).convert(mode)
    expected = image.convert("RGB" if channels == 3 else "L").getpixel((9, 9))
    given = zoo.create_transform(model)(image)
    assert given.shape == (channels, 32, 32)
    if mode != "1":  # which draws red as dots
        assert (255 * given[:, 16, 16]).round().tolist() == torch.tensor(expected).flatten().tolist()


def test_grey_images_are_normalised_with_the_mean_of_the_channels_means():
    given = zoo.create_transform(of_weights("resnet20", in_chans=1))(Image.new("L", (32, 32), 255))
    torch.testing.assert_close(given, torch.full((1, 32, 32), (1 - 0.449) / 0.226))


def test_batches_of_bytes_are_taken_as_images_are():
    transform = zoo.create_transform(of_weights("resnet20"))
    images = torch.randint(256, (2, 3, 40, 50), dtype=torch.uint8)
    assert transform(images).shape == (2, 3, 32, 32)
    assert torch.equal(transform(images)[1], transform(images[1]))


def test_training_shows_random_parts_some_of_them_mirrored():
    model = of_weights("resnet50", in_chans=3)
    image = picture()
    transform = zoo.create_transform(model, train=True)
    first, second = transform(image), transform(image)
    assert first.shape == second.shape == (3, 224, 224)
    assert not torch.equal(first, second)
    ramp = Image.linear_gradient("L").rotate(90)  # bright at one side
    shown = zoo.create_transform(zoo.on_pixels(of_weights("resnet20")), train=True)
    rises = {bool(view[0, 16, -1] > view[0, 16, 0]) for view in (shown(ramp) for _ in range(30))}
    assert rises == {True, False}
