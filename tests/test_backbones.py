"""What every registered name keeps, found by asking the registry: a net that is added later is held to it unasked."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.backbones.resnet_cifar import Shortcut
from zoo.criteria import CRITERIA, check_serves

NAMES = zoo.list_models()
INFO = {name: zoo.model_info(name) for name in NAMES}


def over(names: Iterable[str], one_for: Callable[[str], str] = lambda name: INFO[name].family) -> pytest.MarkDecorator:
    """Parametrizes `name`: in the quick suite the cheapest of each family, or kind, in the slow one the others."""
    by_cost = sorted(sorted(names), key=lambda name: INFO[name].published.get("mult_adds_m", math.inf))
    quick = {one_for(name): name for name in reversed(by_cost)}.values()
    marked = [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in by_cost]
    return pytest.mark.parametrize("name", marked)


every_name = over(NAMES)


def images(model: zoo.Backbone, count: int = 2) -> Tensor:
    return torch.rand(count, *model.input_size)


def ready(name: str, **options: object) -> zoo.Backbone:
    """In eval mode, batch norms with the statistics of a batch: those of a fresh net belong to no image."""
    model = zoo.create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model(images(model, 4))
    return model.eval()


def assert_near(actual: Tensor, expected: Tensor, relative: float) -> None:
    """Equal up to a share of the largest expected value."""
    assert expected.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=0, atol=relative * expected.abs().max().item())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- what the papers say ----------------------------------------------------------------------------------------


@over(name for name in NAMES if "parameters" in INFO[name].published)
def test_the_number_of_parameters_is_the_published_one(name):
    with torch.device("meta"):
        assert parameters(zoo.create_model(name)) == INFO[name].published["parameters"]


def without_routing(model: nn.Module, x: Tensor) -> None:
    """Convolutions, votes and decoder: the capsule papers' count leaves the routing's own sums out."""
    u_hat = model.digits.votes(model.forward_features(x))
    model.decoder(u_hat.sum(1).flatten(1))


COUNTED: dict[str, Callable[[nn.Module, Tensor], object]] = {"capsnet": without_routing}  # by family; others: all


@over(name for name in NAMES if "mult_adds_m" in INFO[name].published)
def test_the_multiply_adds_of_one_image_are_the_published_ones(name):
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        model = zoo.create_model(name).eval()
        x = torch.empty(1, *model.input_size)
        with counter:
            COUNTED.get(INFO[name].family, nn.Module.__call__)(model, x)
    mult_adds_m = counter.get_total_flops() / 2 / 1e6
    assert mult_adds_m == pytest.approx(INFO[name].published["mult_adds_m"], rel=0.005)


@every_name
def test_model_info_is_true_of_what_is_built(name):
    info = INFO[name]
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert (info.name, info.input_size, info.num_classes) == (name, model.input_size, model.num_classes)
    assert info.family == inspect.getmodule(type(model)).__name__.rpartition(".")[2]
    assert info.paper[-4:].strip() or not info.published


# --- scores, features, classifier -------------------------------------------------------------------------------


@every_name
def test_scores_are_one_finite_number_a_class_in_either_mode(name):
    model = ready(name, num_classes=7)
    for training in False, True:
        scores = model.train(training)(images(model, 3))
        assert isinstance(scores, Tensor)
        assert scores.shape == (3, 7)
        assert scores.isfinite().all()
        assert len(scores.unique(dim=0)) == 3, "the scores do not depend on the image"


@every_name
def test_the_criterion_that_a_backbone_declares_serves_it(name):
    with torch.device("meta"):
        model = zoo.create_model(name)
    check_serves(model.criterion, model, name, CRITERIA[model.criterion].options)


@every_name
def test_every_parameter_learns_under_the_criterion_that_the_backbone_declares(name):
    model = zoo.create_model(name)
    with torch.no_grad():  # layers that start at zero hide those before them from the gradient
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    criterion = CRITERIA.bind(type(model).criterion)
    criterion(zoo.on_pixels(model), images(model), torch.tensor([1, 0])).loss.backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_name
def test_forward_is_the_head_of_the_features(name):
    model = ready(name)
    x = images(model)
    features = model.forward_features(x)
    torch.testing.assert_close(model(x), model.forward_head(features))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)


@every_name
def test_without_classes_a_backbone_gives_what_its_classifier_would_read(name):
    model = ready(name, num_classes=5)
    pooled = zoo.create_model(name, num_classes=0).eval()
    assert pooled.num_classes == 0
    state = model.state_dict()
    pooled.load_state_dict({key: state[key] for key in pooled.state_dict()})
    x = images(model)
    assert pooled(x).shape == (2, pooled.num_features)
    torch.testing.assert_close(pooled(x), model.forward_head(model.forward_features(x), pre_logits=True))


@every_name
def test_resetting_the_classifier_changes_the_classes_and_nothing_before_them(name):
    model = ready(name)
    x = images(model)
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    for num_classes in 5, 0, 3:
        model.reset_classifier(num_classes)
        assert model.num_classes == num_classes
        assert not any(module.training for module in model.modules())
        assert model(x).shape == (2, num_classes or model.num_features)
        torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), pooled)
        with torch.device("meta"):
            fresh = zoo.create_model(name, num_classes=num_classes)
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in fresh.state_dict().items()
        }


@every_name
def test_after_a_reset_the_new_classifier_learns(name):
    model = zoo.create_model(name)
    model.reset_classifier(3)
    criterion = CRITERIA.bind(type(model).criterion)
    criterion(zoo.on_pixels(model), images(model), torch.tensor([2, 0])).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@every_name
@pytest.mark.parametrize("in_chans", [1, 2, 3, 4])
def test_scores_depend_on_every_channel(name, in_chans):
    model = zoo.create_model(name, in_chans=in_chans)
    assert model.in_chans == model.input_size[0] == in_chans
    x = images(model).requires_grad_()
    model(x).square().sum().backward()
    assert (x.grad.abs().amax((0, 2, 3)) > 0).all()


@every_name
def test_the_scores_of_an_image_do_not_depend_on_its_batch_mates(name):
    model = ready(name)
    x = images(model, 3)
    with torch.no_grad():
        together, mixed = model(x), model(torch.stack([x[1], 1 - x[0], x[2] / 2]))
        assert_near(model(x[:1]), together[:1], relative=1e-5)
        assert_near(mixed[:1], together[1:2], relative=1e-5)


# --- taps -------------------------------------------------------------------------------------------------------


@every_name
def test_taps_are_feature_maps_that_shrink_from_shallow_to_deep(name):
    model = ready(name)
    seen: list[tuple[str, torch.Size]] = []
    for tap in model.taps:
        module = model.get_submodule(tap)
        module.register_forward_hook(lambda _, __, output, tap=tap: seen.append((tap, output.shape)))
    with torch.no_grad():
        model(images(model))
    assert model.taps
    assert tuple(tap for tap, _ in seen) == model.taps
    assert [tap for tap, shape in seen if len(shape) != 4] == [], "not maps (N, C, H, W)"
    sides = [model.input_size[1:], *(shape[2:] for _, shape in seen)]
    assert all(after[0] <= before[0] and after[1] <= before[1] for before, after in itertools.pairwise(sides))
    assert sides[-1][0] < sides[0][0]
    assert zoo.on_pixels(model).taps == model.taps


@every_name
def test_what_a_tap_gives_to_a_hook_is_not_overwritten_and_hears_its_gradient(name):
    model = ready(name)
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    gradients: dict[str, Tensor] = {}

    def keep(tap: str, out: Tensor) -> None:
        kept[tap] = out, out.detach().clone()
        out.register_hook(lambda gradient: gradients.update({tap: gradient}))

    for tap in model.taps:
        model.get_submodule(tap).register_forward_hook(lambda _, __, out, tap=tap: keep(tap, out))
    model(images(model)).square().sum().backward()
    assert [tap for tap, (now, then) in kept.items() if not torch.equal(now, then)] == []
    assert [tap for tap in model.taps if not gradients[tap].any()] == []


# --- sizes ------------------------------------------------------------------------------------------------------


@every_name
def test_images_with_other_channels_are_refused_with_both_numbers(name):
    model = zoo.create_model(name, in_chans=2)
    with pytest.raises(ValueError, match=r"in_chans=2.* 3 channels"):
        model(torch.rand(2, 3, *model.input_size[1:]))


@over(name for name in NAMES if "image_size" not in zoo.BACKBONES[name].options)
def test_a_net_of_any_size_scores_small_and_oblong_images_and_refuses_smaller_ones(name):
    model = ready(name)
    least = model.smallest
    for height, width in (least, least), (least, 2 * least + 1), (2 * least + 1, least):
        scores = model(torch.rand(2, model.in_chans, height, width))
        assert scores.shape == (2, model.num_classes)
        assert scores.isfinite().all()
    with pytest.raises(ValueError, match=f"at least {least}×{least}, not {least}×{least - 1}"):
        model(torch.rand(2, model.in_chans, least, least - 1))


@over(name for name in NAMES if "image_size" in zoo.BACKBONES[name].options)
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


# --- compiling --------------------------------------------------------------------------------------------------


# Tracing takes seconds: quickly for one backbone of each criterion, and never for 1202 layers, which are resnet20's.
@over(set(NAMES) - {"resnet1202"}, one_for=lambda name: zoo.BACKBONES[name].builder.criterion)
def test_the_criterion_compiles_as_one_graph_to_the_same_loss(name):
    model = zoo.on_pixels(ready(name))
    criterion = CRITERIA.bind(type(model.backbone).criterion)
    x, y = images(model.backbone), torch.tensor([1, 0])
    torch.compiler.reset()
    compiled = torch.compile(lambda x, y: criterion(model, x, y).loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, y), criterion(model, x, y).loss)


# --- one family -------------------------------------------------------------------------------------------------


def test_option_a_takes_every_second_pixel_and_pads_zero_channels_on_both_sides_without_parameters():
    shortcut = Shortcut(stride=2, extra=4)
    x = torch.rand(2, 6, 5, 5)
    out = shortcut(x)
    assert not list(shortcut.parameters())
    assert torch.equal(out[:, 2:8], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not out[:, :2].any()
    assert not out[:, 8:].any()
    assert out.shape[1] == 10


@pytest.mark.parametrize("n", [1, 3])
def test_a_cifar_resnet_has_6n_plus_2_layers_and_no_convolution_on_a_shortcut(n):
    model = zoo.create_model("resnet20", n=n)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * n + 2
    assert not any("shortcut" in key for key in model.state_dict())
    assert sum(isinstance(m, Shortcut) for m in model.modules()) == 2


def test_a_cifar_resnet_without_a_block_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        zoo.create_model("resnet20", n=0)


def test_a_new_stn_cnn_shows_its_cnn_the_image_as_it_is_and_theta_learns():
    model = zoo.create_model("stn_cnn", in_chans=3)
    x = images(model)
    warped, theta = model.warp(x)
    assert theta.tolist() == [[[1, 0, 0], [0, 1, 0]]] * 2
    torch.testing.assert_close(warped, x, rtol=0, atol=1e-5)
    CRITERIA.bind("supervised")(zoo.on_pixels(model), x, torch.tensor([1, 0])).loss.backward()
    regression = model.transformer.regression
    assert regression.bias.grad.all()
    assert regression.weight.grad.any(1).all()


def test_the_cnn_of_stn_cnn_sees_the_warped_image():
    model = zoo.create_model("stn_cnn").eval()
    x = images(model)
    mirrored = model(x.flip(-1))
    with torch.no_grad():
        model.transformer.regression.bias.copy_(torch.tensor([-1.0, 0, 0, 0, 1, 0]))
    assert_near(model(x), mirrored, relative=1e-4)


@pytest.fixture
def capsnet() -> zoo.Backbone:
    return zoo.create_model("capsnet", num_classes=4, in_chans=2, image_size=19).eval()


def test_capsnet_scores_are_lengths_from_zero_below_one(capsnet):
    with torch.no_grad():
        for scale in 0.0, 1.0, 100.0:
            x = scale * images(capsnet)
            lengths = capsnet(x)
            torch.testing.assert_close(lengths, capsnet.capsules(x).norm(dim=-1))
            assert (lengths >= 0).all()
            assert (lengths < 1).all()


def test_capsnet_draws_only_what_the_kept_capsule_says(capsnet):
    v, keep = torch.randn(3, 4, 16, requires_grad=True), torch.tensor([2, 0, 3])
    image = capsnet.decode(v, keep=keep)
    assert image.shape == (3, *capsnet.input_size)
    assert (image > 0).all()
    assert (image < 1).all()
    rows = torch.arange(3)
    others = torch.randn(3, 4, 16)
    others[rows, keep] = v[rows, keep].detach()
    assert torch.equal(capsnet.decode(others, keep=keep), image)
    image.square().sum().backward()
    assert v.grad[rows, keep].all()
    assert v.grad.count_nonzero() == 3 * 16


def test_capsnet_draws_weighted_capsules_as_it_draws_a_class(capsnet):
    v = torch.randn(2, 4, 16)
    keep = torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]])
    assert torch.equal(capsnet.decode(v, keep=keep), capsnet.decode(v, keep=torch.tensor([2, 0])))
    both = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    scaled = torch.einsum("nke,nk->nke", v, both)
    torch.testing.assert_close(capsnet.decode(v, keep=both), capsnet.decode(scaled, keep=torch.ones(2, 4)))


def test_capsnet_without_its_decoder_has_6804224_parameters_scores_and_says_that_it_cannot_draw():
    with torch.device("meta"):
        model = zoo.create_model("capsnet", decoder=False)
    assert parameters(model) == 6_804_224
    v = model.capsules(torch.empty(2, 1, 28, 28, device="meta"))
    assert v.shape == (2, 10, 16)
    with pytest.raises(ValueError, match=r"without a decoder.*backbone\.decoder=true"):
        model.decode(v, keep=torch.zeros(2, dtype=torch.long))


def test_capsnet_learns_from_an_all_black_image():
    model = zoo.create_model("capsnet", num_classes=3, image_size=17)
    with torch.no_grad():
        for conv in model.conv1, model.primary.conv:
            conv.bias.zero_()
    outcome = CRITERIA.bind("capsule")(zoo.on_pixels(model), torch.zeros(2, 1, 17, 17), torch.tensor([0, 2]))
    outcome.loss.backward()
    assert outcome.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())
