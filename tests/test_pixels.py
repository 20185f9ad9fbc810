import pytest
import torch
from torch import nn

import zoo
from zoo.pixels import see_through


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
