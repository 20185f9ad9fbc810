"""What every registered name keeps. One net of each family in the quick suite, all of them in the slow one."""

import collections
import copy
import itertools

import pytest
import torch
from names import CRITERION, NAMES, assert_near, family, images, marked, on_meta, over, ready, small
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.criteria import CRITERIA, check_serves


@pytest.fixture(scope="module", params=marked(NAMES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def shared_model(name: str) -> zoo.Backbone:
    torch.manual_seed(0)
    return ready(name, num_classes=7)


@pytest.fixture
def model(shared_model: zoo.Backbone) -> zoo.Backbone:
    """Built once for all tests of a name: they leave it as it was."""
    yield shared_model
    shared_model.eval().zero_grad()


def loss(model: zoo.OnPixels, x: Tensor) -> Tensor:
    criterion = CRITERIA.bind(type(model.backbone).criterion)
    return criterion(model, x, torch.arange(len(x)) % model.backbone.num_classes).loss


# --- scores, features, classifier -------------------------------------------------------------------------------


def test_scores_are_one_finite_number_a_class_in_either_mode(model):
    x = images(model, 3)
    for training in False, True:
        scores = copy.deepcopy(model).train(training)(x)
        assert isinstance(scores, Tensor)
        assert scores.shape == (3, 7)
        assert scores.isfinite().all()
        assert len(scores.unique(dim=0)) == 3, "the scores do not depend on the image"


def test_the_criterion_that_a_backbone_declares_serves_it(name, model):
    check_serves(model.criterion, model, name, CRITERIA[model.criterion].options)


def test_every_parameter_learns_under_the_criterion_that_the_backbone_declares(model):
    loss(zoo.on_pixels(model), images(model)).backward()  # in eval mode: nothing is dropped by chance
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_forward_is_the_head_of_the_features(model):
    x = images(model)
    features = model.forward_features(x)
    torch.testing.assert_close(model(x), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


def test_auxiliary_scores_come_beside_the_same_scores(model):
    if not hasattr(model, "forward_aux"):
        pytest.skip("has no auxiliary heads")
    x = images(model)
    scores, others = model.forward_aux(x)
    torch.testing.assert_close(scores, model(x))
    assert others
    assert [other.shape for other in others] == [(2, 7)] * len(others)
    model = zoo.create_model(family_variant(model), aux_logits=False, **small(family_variant(model))).eval()
    assert model.forward_aux(x)[1] == []
    with pytest.raises(ValueError, match=r"aux_logits=false"):
        check_serves("auxiliary", model, "net", {})


def family_variant(model: zoo.Backbone) -> str:
    return next(name for name in NAMES if zoo.BACKBONES[name].builder is type(model))


def test_without_classes_a_backbone_gives_what_its_classifier_would_read(name, model):
    pooled = zoo.create_model(name, num_classes=0, **small(name)).eval()
    assert pooled.num_classes == 0
    state = model.state_dict()
    pooled.load_state_dict({key: state[key] for key in pooled.state_dict()})
    x = images(model)
    assert pooled(x).shape == (2, pooled.num_features)
    torch.testing.assert_close(pooled(x), model.forward_head(model.forward_features(x), pre_logits=True))


def test_resetting_the_classifier_changes_the_classes_and_nothing_before_them_and_the_new_one_learns(name, model):
    model = copy.deepcopy(model)
    x = images(model)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    for num_classes in 5, 0, 3:
        model.reset_classifier(num_classes)
        assert model.num_classes == num_classes
        assert not any(module.training for module in model.modules())
        assert model(x).shape == (2, num_classes or model.num_features)
        torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), pooled)
        with torch.device("meta"):
            fresh = zoo.create_model(name, num_classes=num_classes, **small(name)).state_dict()
        assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in fresh.items()}
    loss(zoo.on_pixels(model), x).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_scores_depend_on_every_channel_of_one_or_thirteen(name):
    for in_chans in 1, 13:
        model = ready(name, in_chans=in_chans)
        assert model.input_size[0] == in_chans
        x = images(model).requires_grad_()
        model(x).square().sum().backward()
        assert (x.grad.abs().amax((0, 2, 3)) > 0).all()


def test_the_scores_of_an_image_do_not_depend_on_its_batch_mates(model):
    model = copy.deepcopy(model).double()  # deep nets magnify what the order of a sum rounds to
    x = images(model, 3).double()
    with torch.no_grad():
        together, mixed = model(x), model(torch.stack([x[1], 1 - x[0], x[2] / 2]))
        assert_near(model(x[:1]), together[:1], relative=1e-5)
        assert_near(mixed[:1], together[1:2], relative=1e-5)


# --- taps -------------------------------------------------------------------------------------------------------


def test_taps_are_feature_maps_that_shrink_from_shallow_to_deep(model):
    x = images(model)
    seen = zoo.extract(model, x)
    assert model.taps
    assert tuple(seen) == model.taps == zoo.on_pixels(model).taps
    assert [tap for tap, maps in seen.items() if maps.ndim != 4] == [], "not maps (N, C, H, W)"
    sides = [x.shape[2:], *(maps.shape[2:] for maps in seen.values())]
    assert all(after[0] <= before[0] and after[1] <= before[1] for before, after in itertools.pairwise(sides))
    assert sides[-1][0] < sides[0][0]


def test_what_is_extracted_is_not_overwritten_and_hears_its_gradient_and_no_trace_is_left(model):
    x = images(model)
    in_place = [getattr(module, "inplace", None) for module in model.modules()]
    before = model(x)
    with zoo.tapped(model) as seen:
        scores = model(x)
        kept = {tap: maps.detach().clone() for tap, maps in seen.items()}
    torch.testing.assert_close(scores, before)
    assert [tap for tap in model.taps if not torch.equal(seen[tap], kept[tap])] == []
    gradients = torch.autograd.grad(scores.square().sum(), list(seen.values()), allow_unused=True)
    silent = [tap for tap, gradient in zip(seen, gradients, strict=True) if gradient is None or not gradient.any()]
    assert silent == []
    assert not any(module._forward_hooks for module in model.modules())
    assert [getattr(module, "inplace", None) for module in model.modules()] == in_place


# --- sizes ------------------------------------------------------------------------------------------------------


def test_what_is_no_batch_of_images_is_refused_by_its_shape(model):
    for shape in model.input_size, model.input_size[1:]:
        with pytest.raises(ValueError, match=r"takes images \(N, C, H, W\), not a tensor of shape \("):
            model(torch.rand(shape))


@pytest.mark.parametrize("number", [-1, 2.5, True, "10"])
def test_a_number_of_classes_that_is_none_is_refused_and_the_classifier_stays(model, number):
    before = model.get_submodule(model.classifier_name)
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 0, not "):
        model.reset_classifier(number)
    assert model.get_submodule(model.classifier_name) is before


class SumsInPlace(TorchDispatchMode):
    """Counts what is added to feature maps where they lie."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.add_.Tensor and args[0].ndim == 4
        return func(*args, **(kwargs or {}))


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.PReLU, nn.Sigmoid, nn.Hardsigmoid)


def test_an_activation_serves_one_place_and_no_residual_is_added_in_place(model):
    calls = collections.Counter()
    activations = [module for module in model.modules() if isinstance(module, ACTIVATIONS)]
    hooks = [module.register_forward_hook(lambda module, *_: calls.update([module])) for module in activations]
    with torch.no_grad(), SumsInPlace() as sums:
        model(images(model))
    for hook in hooks:
        hook.remove()
    assert set(calls.values()) <= {1}
    assert sums.count == 0


def test_images_with_other_channels_are_refused_with_both_numbers(model):
    channels = model.in_chans + 1
    with pytest.raises(ValueError, match=rf"in_chans={model.in_chans}.* {channels} channels"):
        model(torch.rand(2, channels, *model.input_size[1:]))


@over(name for name in NAMES if zoo.BACKBONES[name].builder.any_size)
def test_a_net_of_any_size_scores_small_and_oblong_images_and_refuses_smaller_ones(name):
    for stem in [{"stem": "large"}, {"stem": "small"}] if small(name) else [{}]:
        with torch.device("meta"):
            model = zoo.create_model(name, **stem).eval()
            least = model.smallest
            for height, width in (least, least), (least, 2 * least + 1), (2 * least + 1, least):
                assert model(torch.rand(2, 3 if model.in_chans == 3 else 1, height, width)).shape[0] == 2
            with pytest.raises(ValueError, match=f"at least {least}×{least}, not {least}×{least - 1}") as refusal:
                model(torch.rand(2, model.in_chans, least, least - 1))
        assert ("stem=small" in str(refusal.value)) == (stem == {"stem": "large"})
    model = ready(name)
    assert model(images(model, side=model.smallest)).isfinite().all()


@over(name for name in NAMES if not zoo.BACKBONES[name].builder.any_size)
def test_a_net_of_fixed_size_is_built_down_to_its_smallest_and_refuses_other_images(name):
    with torch.device("meta"):
        least = zoo.create_model(name).smallest
    with pytest.raises(ValueError, match=f"at least {least}×{least}, not {least - 1}×{least - 1}"):
        zoo.create_model(name, image_size=least - 1)
    model = ready(name, image_size=least)
    assert model(images(model)).isfinite().all()
    for height, width in (least, least + 1), (least + 1, least), (least - 1, least):
        with pytest.raises(ValueError, match=f"image_size={least}, the images are {height}×{width}"):
            model(torch.rand(2, model.in_chans, height, width))


@over(name for name in NAMES if small(name))
def test_the_small_stem_keeps_parameters_but_for_globally_pooled_dense_layers_and_resolution(name):
    with torch.device("meta"):
        large, little = (zoo.create_model(name, stem=stem).eval() for stem in ("large", "small"))
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (large, little)]
    assert shapes[0].keys() == shapes[1].keys()
    other = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    dense = {"alexnet": {"classifier.1.weight", "fc6.weight"}, "vgg": {"classifier.0.weight"}}
    assert other <= dense.get(family(name), set())
    assert little.smallest <= min(28, large.smallest)
    with torch.device("meta"):
        maps = little.forward_features(torch.rand(1, 3, 28, 28))
    given = zoo.BACKBONES[name].options.get("image_size")  # by the row, where sizes belong to the net's scale
    assert little.input_size[1:] == (given or 32, given or 32)
    assert maps.shape[2] >= 1


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_s"])
def test_the_side_that_a_net_is_built_for_is_the_one_given_whatever_its_stem(name):
    for stem in "large", "small":
        assert on_meta(name, stem=stem, image_size=64).input_size == (3, 64, 64)


def test_a_stem_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"stem='tiny'.*large.*small"):
        zoo.create_model("resnet18", stem="tiny")


# --- compiling --------------------------------------------------------------------------------------------------

DEEP = {
    "resnet1202",
    "resnet1202_stochastic_depth",
    "preresnet1001",
}  # minutes of tracing the blocks of a shallower net


# Tracing takes seconds: quickly for one backbone of each criterion.
@over(set(NAMES) - DEEP, one_for=CRITERION.get)
def test_the_criterion_compiles_as_one_graph_to_the_same_loss(name):
    model = zoo.on_pixels(ready(name, num_classes=7))
    x = images(model.backbone)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: loss(model, x), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), loss(model, x))
    model.train()
    assert compiled(x).isfinite()  # traced anew, for training


@over([name for name in NAMES if name in {p.values[0] for p in marked(NAMES) if not p.marks}], one_for=CRITERION.get)
def test_a_net_of_each_family_exports_to_the_same_scores(name):
    model = ready(name, num_classes=7)
    x = images(model)
    with torch.no_grad():
        assert_near(torch.export.export(model, (x,)).module()(x), model(x), relative=1e-5)
