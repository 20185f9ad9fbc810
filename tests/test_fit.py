"""What of others' tensors goes into a model: containers and prefixes, adaptation, and what does not fit."""

import logging
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo import fit
from zoo.backbones.register import BACKBONES
from zoo.registry import Entry

State = dict[str, Tensor]


@pytest.fixture
def model() -> zoo.Backbone:
    return zoo.create_model("lenet5", num_classes=3)


def small_net(**options: int) -> zoo.Backbone:
    """With batch norms."""
    return zoo.create_model("resnet18", layers=(1, 1, 1, 1), **options)


def copy(model: nn.Module) -> State:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(model: nn.Module, state: State) -> None:
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


def moved(model: nn.Module) -> State:
    """The state of a trained net: no tensor is as any fresh model has it."""
    return {key: value + 1 if key.endswith("tracked") else value * 0.9 + 0.01 for key, value in copy(model).items()}


def refused(model: zoo.Backbone, state: State, told: str, **options: bool) -> None:
    """The error, on one line; and the model is as it was."""
    before = copy(model)
    with pytest.raises(ValueError, match=told) as caught:
        zoo.load_weights(model, state, **options)
    assert "\n" not in str(caught.value)
    assert_same(model, before)


# --- containers and prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [None, "state_dict", "model", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "model.", "backbone."),
        *("module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "model.module.", "model.backbone."),
    ],
)
def test_containers_and_prefixes_are_seen_through(model, tmp_path, container, prefix):
    state = OrderedDict((prefix + key, value) for key, value in moved(model).items())
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "file.pt")
    loaded = zoo.create_model("lenet5", num_classes=3, checkpoint_path=tmp_path / "file.pt")
    assert_same(loaded, moved(model))


@pytest.mark.parametrize(("plain", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")])
@pytest.mark.parametrize("average_first", [True, False])
def test_averaged_weights_are_preferred(model, plain, average, average_first):
    pairs = {plain: copy(model), average: moved(model)}
    content = dict(reversed(pairs.items())) if average_first else pairs
    expected = moved(model)
    zoo.load_weights(model, content)
    assert_same(model, expected)


def test_a_container_that_is_there_but_empty_of_a_state_is_passed_by(model):
    content = {"state_dict_ema": None, "state_dict": moved(model)}
    expected = moved(model)
    zoo.load_weights(model, content)
    assert_same(model, expected)


def test_a_container_in_a_container_is_seen_through(model):
    expected = moved(model)
    zoo.load_weights(model, {"state_dict": {"model": {f"module.{key}": value for key, value in expected.items()}}})
    assert_same(model, expected)


def test_a_prefix_that_only_some_names_have_is_part_of_them(model):
    state = {f"model.{key}" if "conv" in key else key: value for key, value in copy(model).items()}
    assert fit.state_dict(state).keys() == state.keys()


class Inside(zoo.Backbone):
    """A net all of whose own names begin like a wrapper's."""

    num_classes, num_features, in_chans, image_size, classifier_name = 2, 4, 1, 8, "model.fc"

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3), "fc": nn.Linear(4, 2)})


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.model."])
def test_a_prefix_that_stands_in_the_models_own_names_is_kept_and_only_the_wrappers_goes(prefix):
    source, target = Inside(), Inside()
    zoo.load_weights(target, {prefix + key: value for key, value in source.state_dict().items()})
    assert_same(target, source.state_dict())


# --- other types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_the_models_and_it_is_told(dtype, caplog):
    model = small_net()
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in moved(model).items()}
    report = zoo.load_weights(model, state)
    assert report.adapted == {"dtype": f"{dtype} → float32".replace("torch.", "")}
    assert str(report.adapted["dtype"]) in caplog.text
    assert_same(model, {key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    assert model.conv1.weight.dtype == torch.float32


def test_half_precision_is_widened_before_channels_are_summed():
    model = small_net(in_chans=1)
    state = {key: value.half() if value.is_floating_point() else value for key, value in moved(small_net()).items()}
    zoo.load_weights(model, state)
    assert torch.equal(model.conv1.weight, state["conv1.weight"].float().sum(1, keepdim=True))


def test_a_model_of_another_type_takes_weights_in_its_own(model):
    expected = {key: value.double() for key, value in moved(model).items()}
    state = moved(model)
    report = zoo.load_weights(model.double(), state)
    assert_same(model, expected)
    assert report.adapted == {"dtype": "float32 → float64"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_another_device_stays_there(model):
    expected = moved(model)
    report = zoo.load_weights(model.to("cuda"), expected)
    assert all(value.is_cuda for value in model.state_dict().values())
    assert_same(model.to("cpu"), expected)
    assert report.adapted == {}


def test_whole_numbers_are_no_weights(model):
    state = {**copy(model), "fc1.weight": torch.ones(120, 400, dtype=torch.int8)}
    refused(model, state, r"1 of another type: fc1\.weight int8 for float32")


# --- numbers that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("strict", [True, False])
def test_one_number_that_is_not_finite_is_refused_by_name(model, value, strict):
    state = copy(model)
    state["conv2.weight"][3, 2, 1, 0] = value
    refused(model, state, r"the weights in the state dict are not all finite numbers: conv2\.weight$", strict=strict)


def test_a_running_variance_that_is_not_a_number_is_refused_too():
    model = small_net()
    state = copy(model)
    state["bn1.running_var"][0] = float("nan")
    refused(model, state, r"not all finite numbers: bn1\.running_var")


@pytest.mark.parametrize("options", [{"num_classes": 4}, {"num_classes": 0}])
def test_a_head_that_is_left_out_may_hold_any_number(model, options):
    state = moved(model)
    state["fc3.weight"][0, 0] = float("nan")
    other = zoo.create_model("lenet5", **options)
    zoo.load_weights(other, state)
    assert torch.equal(other.conv1.weight, state["conv1.weight"])


# --- what does not fit ------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_listed_and_the_model_stays_as_it_was(model):
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    state["conv9.weight"] = state.pop("conv2.weight")
    state["fc1.weight"] = torch.zeros(120, 4)
    told = (
        r"the weights in the state dict do not fit \(1 missing: conv2\.weight; 1 unexpected: conv9\.weight; "
        r"1 of another shape: fc1\.weight \(120, 4\) for \(120, 400\)\)"
    )
    refused(model, state, told)


def test_a_long_list_of_faults_is_cut_after_three(model):
    told = r"8 missing: conv1\.weight, conv1\.bias, conv2\.weight …; 4 unexpected: a, b, c …\)"
    refused(model, {name: torch.zeros(1) for name in "abcd"}, told)


def test_only_the_batch_norms_counters_may_be_missing():
    model = small_net()
    state = {key: value for key, value in moved(model).items() if not key.endswith("num_batches_tracked")}
    assert zoo.load_weights(model, state).missing == ()
    assert torch.equal(model.bn1.running_var, state["bn1.running_var"])
    del state["bn1.running_var"]
    refused(model, state, r"1 missing: bn1\.running_var")


@pytest.mark.parametrize(
    ("file", "options"),
    [({}, {}), ({}, {"num_classes": 10}), ({"num_classes": 10, "in_chans": 1}, {}), ({}, {"in_chans": 1})],
    ids=str,
)
def test_weights_of_another_architecture_are_told_with_the_names_that_they_would_fit(file, options):
    state = zoo.create_model("resnet34", **file).state_dict()
    refused(zoo.create_model("resnet18", **options), state, r"; they would fit resnet34$")


def test_weights_of_another_architecture_in_a_foreign_layout_are_recognised_too():
    timm = pytest.importorskip("timm")
    state = timm.create_model("mobilenetv2_050").state_dict()
    refused(small_net(), state, r"; they would fit mobilenet_v2_050$")


def test_weights_that_fit_no_registered_name_are_not_given_one(model):
    with pytest.raises(ValueError, match=r"do not fit \(.*\)$"):
        zoo.load_weights(model, {"a": torch.zeros(1)})


def test_a_plugins_net_that_cannot_be_built_does_not_hide_the_error(model, monkeypatch):
    def broken(*, num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> zoo.Backbone:
        raise RuntimeError("not like this")

    monkeypatch.setitem(BACKBONES._entries, "broken", Entry("broken", broken, {}, {}))
    refused(model, {"a": torch.zeros(1)}, "do not fit")


# --- strict=False and the report --------------------------------------------------------------------------------


def test_without_strict_what_is_missing_and_unexpected_is_reported(model):
    before, state = copy(model), moved(model)
    state["extra"] = torch.zeros(2)
    del state["fc1.weight"]
    report = zoo.load_weights(model, state, strict=False)
    assert (report.missing, report.unexpected) == (("fc1.weight",), ("extra",))
    del state["extra"]
    assert set(report.loaded) == state.keys()
    assert_same(model, {**state, "fc1.weight": before["fc1.weight"]})


def test_without_strict_shapes_must_fit_all_the_same(model):
    refused(model, {**copy(model), "conv1.weight": torch.zeros(6, 1, 3, 3)}, "1 of another shape", strict=False)


def test_without_strict_a_state_of_which_nothing_fits_is_an_error_all_the_same(model):
    refused(model, {"a": torch.zeros(1)}, r"8 missing.*; 1 unexpected: a", strict=False)


def test_the_report_reads_as_one_line_that_leaves_nothing_out(model):
    state = moved(zoo.create_model("lenet5", in_chans=3))
    state["extra"] = torch.zeros(2)
    del state["fc1.weight"]
    assert str(zoo.load_weights(model, state, strict=False)) == (
        "the state dict: 7 tensors loaded; conv1.weight: 3 → 1 channels, summed; "
        "fc3: 10 → 3 classes, the model's own stays; 1 missing: fc1.weight; 1 unexpected: extra"
    )


def test_a_state_that_fits_as_it_is_is_loaded_without_a_word(model, caplog):
    with caplog.at_level(logging.DEBUG):
        report = zoo.load_weights(model, moved(model))
    assert str(report) == "the state dict: 10 tensors loaded"
    assert not caplog.records


def test_the_model_shares_no_memory_with_what_it_was_given_and_changes_nothing_of_it(model):
    state = moved(model)
    before = {key: value.clone() for key, value in state.items()}
    zoo.load_weights(model, state)
    with torch.no_grad():
        model.conv1.weight.zero_()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in state)


def test_what_trainers_keep_beside_and_around_a_state_dict_is_seen_through():
    model = zoo.create_model("lenet5", num_classes=3)
    own = model.state_dict()
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in own.items()}}
    for content in {"model_ema": averaged}, {"model": {"state_dict": own}}:
        assert_same(model, fit.state_dict(content, own))
    beside = {**{f"model.{key}": value for key, value in own.items()}, "criterion.weight": torch.ones(3)}
    assert fit.state_dict(beside, own).keys() == {*own, "criterion.weight"}
    with pytest.raises(ValueError, match=r"1 unexpected: criterion\.weight"):
        zoo.load_weights(model, beside)
    assert zoo.load_weights(model, beside, strict=False).unexpected == ("criterion.weight",)


@pytest.mark.parametrize("change", [lambda v: v.to("meta"), lambda v: v.to_sparse()], ids=["meta", "sparse"])
def test_tensors_without_numbers_and_sparse_ones_are_refused_by_name(change):
    model = zoo.create_model("lenet5")
    with pytest.raises(ValueError, match=r"holds tensors without numbers, or sparse ones: fc1\.weight"):
        zoo.load_weights(model, {**model.state_dict(), "fc1.weight": change(model.fc1.weight.detach())})


def test_an_option_that_the_weights_were_not_made_for_is_refused_before_anything_is_fetched():
    with pytest.raises(ValueError, match=r"padding=symmetric, but the weights in1k of .* need padding=same"):
        zoo.create_model("efficientnet_v2_s", pretrained="in1k", padding="symmetric")
