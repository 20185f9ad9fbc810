"""What of a file is adapted to a model of other classes, heads or channels; all the rest is taken bit for bit."""

import functools
from copy import deepcopy

import pytest
import torch
from names import assert_near, small
from test_fit import assert_same, copy, moved, refused
from torch import nn

import zoo

# --- other numbers of classes -----------------------------------------------------------------------------------

HEADS = {  # net → its layers whose rows are classes
    "resnet18": ("fc",),
    "vgg11": ("classifier.6",),
    "squeezenet1_1": ("classifier.1",),
    "densenet121": ("classifier",),
    "mobilenet_v2": ("classifier.1",),
    "efficientnet_b0": ("classifier.1",),
    "inception_v3": ("fc", "AuxLogits.fc"),
    "googlenet": ("fc", "aux1.fc2", "aux2.fc2"),
    "dsn": ("classifier", "companions.0", "companions.1", "companions.2"),
    "stn_cnn": ("fc",),
    "lenet5_original": ("output",),
}
TINY = {
    "densenet121": {"layers": (1, 1, 1, 1)},
    "resnet18": {"layers": (1, 1, 1, 1)},
    "efficientnet_b0": {"depth": 0.3},
}


@functools.cache
def built(name: str, **options: object) -> zoo.Backbone:
    return zoo.create_model(name, **{**small(name), **TINY.get(name, {}), **options})


def tiny(name: str, **options: object) -> zoo.Backbone:
    """Of random numbers: initial weights as published take their time to draw."""
    model = deepcopy(built(name, **options))
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape))
    return model


def layers(keys: set[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys}


@pytest.mark.parametrize("name", HEADS)
def test_other_classes_keep_the_models_own_heads_and_everything_else_bit_for_bit(name, caplog):
    state = moved(tiny(name))
    old = tiny(name).num_classes
    model = tiny(name, num_classes=7)
    fresh = copy(model)
    report = zoo.load_weights(model, state)
    own = {key for key in fresh if key.startswith(tuple(f"{head}." for head in HEADS[name]))}
    assert_same(model, {**state, **{key: fresh[key] for key in own}})
    assert report.adapted == dict.fromkeys(HEADS[name], f"{old} → 7 classes, the model's own stays")
    assert set(report.loaded) == state.keys() - own
    assert report.missing == report.unexpected == ()
    for head in HEADS[name]:  # never silent
        assert f"the state dict: {head}: {old} → 7 classes" in caplog.text


@pytest.mark.parametrize("name", HEADS)
def test_a_model_without_classes_leaves_the_heads_out_and_one_with_classes_keeps_its_own(name):
    with_head, without = tiny(name, num_classes=7), tiny(name, num_classes=0)
    state = moved(with_head)
    report = zoo.load_weights(without, state)
    own = without.state_dict()
    body = {key: value for key, value in state.items() if key in own}
    assert_same(without, body)
    assert report.adapted == dict.fromkeys(with_head.heads, "left out, the model has none")
    model = tiny(name, num_classes=7)
    fresh = copy(model)
    report = zoo.load_weights(model, body)
    assert_same(model, {**fresh, **body})
    assert report.adapted == dict.fromkeys(model.heads, "not in the file, the model's own stays")


@pytest.mark.parametrize("name", ["inception_v3", "googlenet", "dsn"])
def test_auxiliary_heads_are_loaded_left_out_or_missing_without_harm(name):
    whole = tiny(name, num_classes=7)
    state = moved(whole)
    assert zoo.load_weights(whole, state).adapted == {}
    assert_same(whole, state)
    bare = tiny(name, num_classes=7, aux_logits=False)
    report = zoo.load_weights(bare, state)
    assert report.adapted == dict.fromkeys(whole.auxiliary_heads, "left out, the model has none")
    body = {key: value for key, value in state.items() if not key.startswith(whole.auxiliary_heads)}
    assert_same(bare, body)
    fresh = copy(tiny(name, num_classes=7))
    whole.load_state_dict(fresh)
    report = zoo.load_weights(whole, body)
    assert report.adapted == dict.fromkeys(whole.auxiliary_heads, "not in the file, the model's own stays")
    assert_same(whole, {**fresh, **body})


def test_capsules_of_other_classes_and_their_decoder_stay_and_the_rest_is_loaded():
    state, model = (
        moved(zoo.create_model("capsnet", image_size=17)),
        zoo.create_model("capsnet", image_size=17, num_classes=3),
    )
    fresh = copy(model)
    report = zoo.load_weights(model, state)
    stays = "the model's own stays"
    assert report.adapted == {
        "digits": f"10 → 3 classes, {stays}",
        "decoder": f"for other classes or channels, {stays}",
    }
    assert report.missing == report.unexpected == ()
    own = {key for key in fresh if key.startswith(("digits.", "decoder."))}
    assert_same(model, {**state, **{key: fresh[key] for key in own}})


def test_capsules_of_other_images_are_refused():
    told = r"of another shape: digits\.W \(32, "
    refused(zoo.create_model("capsnet", image_size=20), copy(zoo.create_model("capsnet", image_size=17)), told)


# --- other numbers of channels ----------------------------------------------------------------------------------

FIRST = {"stn_cnn": ("transformer.localisation.1", "conv1"), "lenet5": ("conv1",)}  # more than one layer reads images


def first_layers(name: str, model: zoo.Backbone) -> tuple[str, ...]:
    found = next(key for key, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return FIRST.get(name, (found,))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *((name, channels) for name in ("resnet18", "squeezenet1_1", "mobilenet_v2") for channels in (1, 2, 4, 6, 13)),
        *((name, channels) for name in ("densenet121", "efficientnet_b0", "stn_cnn") for channels in (1, 3, 4)),
        *((name, 1) for name in ("vgg11", "inception_v3", "googlenet", "dsn")),
    ],
)
def test_other_channels_change_the_first_layers_alone_and_a_grey_image_stays_what_it_was(name, channels):
    model, other = tiny(name), tiny(name, in_chans=channels)
    state = moved(model)
    model.load_state_dict(state)
    old = model.in_chans
    report = zoo.load_weights(other, state)
    first = first_layers(name, model)
    how = "summed" if channels == 1 else "repeated and scaled"
    if old == channels:
        assert report.adapted == {}
        return
    assert report.adapted == {f"{layer}.weight": f"{old} → {channels} channels, {how}" for layer in first}
    kept = {key: value for key, value in state.items() if layers({key}) - set(first)}
    loaded = other.state_dict()
    for key, value in kept.items():
        assert torch.equal(loaded[key], value), key
    for layer in first:
        theirs, ours = model.get_submodule(layer), other.get_submodule(layer)
        grey = torch.rand(1, 1, 12, 12)
        expected, given = theirs(grey.expand(-1, old, -1, -1)), ours(grey.expand(-1, channels, -1, -1))
        if channels == 1 or channels % old == 0:
            assert_near(given, expected, relative=1e-5)
        for i in range(channels if channels > 1 else 0):
            torch.testing.assert_close(ours.weight[:, i], theirs.weight[:, i % old] * old / channels)


def test_one_channel_becomes_three_that_see_a_grey_image_as_it_was():
    model, other = (zoo.create_model("lenet5", in_chans=channels).eval() for channels in (1, 3))
    zoo.load_weights(other, model.state_dict())
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(other(x.expand(-1, 3, -1, -1)), model(x))


def test_channels_of_a_capsnet_are_adapted_and_a_decoder_that_draws_others_stays():
    one, three = (zoo.create_model("capsnet", in_chans=channels, image_size=17).eval() for channels in (1, 3))
    own = copy(three.decoder)
    report = zoo.load_weights(three, one.state_dict())
    x = torch.rand(2, 1, 17, 17)
    torch.testing.assert_close(three(x.expand(-1, 3, -1, -1)), one(x))
    assert report.adapted["decoder"] == "for other classes or channels, the model's own stays"
    assert_same(three.decoder, own)
