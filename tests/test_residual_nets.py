"""What is particular to the residual nets. Formulas are written by hand over a block's own layers, in float64."""

import re

import pytest
import torch
import torch.nn.functional as F
from names import INFO, NAMES, on_meta, over, parameters, ready
from torch import Tensor, nn, relu

import zoo
from zoo.backbones import resnet, resnet_cifar
from zoo.backbones.preresnet_cifar import BLOCKS, ORDERS, SHORTCUTS, CifarPreResNet, DropoutShortcut, Unit
from zoo.backbones.stochastic_depth import MortalBlock
from zoo.backbones.wide_resnet_cifar import WideBlock

FAMILIES = ("resnet", "resnet_cifar", "preresnet_cifar", "wide_resnet_cifar", "resnext_cifar", "stochastic_depth")


def lively(module: nn.Module) -> nn.Module:
    """In float64 and eval mode; every batch norm, which is the identity when fresh, changes what it reads."""
    for norm in norms(module):
        for values in norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data:
            values.uniform_(0.2, 1.2)
    return module.double().eval()


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def maps(channels: int, side: int = 5) -> Tensor:
    """Of either sign, so that a ReLU too many or too few is seen."""
    return torch.randn(3, channels, side, side, dtype=torch.float64)


def option_a(x: Tensor, stride: int = 2, extra: int = 4) -> Tensor:
    thinned = x[:, :, ::stride, ::stride]
    zeros = torch.zeros_like(thinned[:, :1]).expand(-1, extra // 2, -1, -1)
    return torch.cat([zeros, thinned, zeros], 1)


@over(name for name in NAMES if INFO[name].family in FAMILIES)
def test_the_number_in_a_name_counts_its_layers_6n_plus_2_with_basic_blocks_9n_plus_2_with_bottlenecks(name):
    counted = nn.Conv2d if name.startswith("wrn") else nn.Conv2d | nn.Linear  # of a wrn the shortcuts' too
    layers = [k for k, m in on_meta(name).named_modules() if isinstance(m, counted)]
    depth = len([k for k in layers if "shortcut" not in k and "downsample" not in k])
    assert depth == int(re.search(r"\d+", name)[0])
    options = zoo.BACKBONES[name].options
    bottlenecks = options.get("block") == "bottleneck" or "resnext" in name
    assert "n" not in options or depth == (9 if bottlenecks else 6) * options["n"] + 2


@pytest.mark.parametrize(
    ("name", "options", "refusal"),
    [
        ("resnext50_32x4d", dict(block="basic"), r"block='basic'.* basic, of one group of width 64, and bottleneck$"),
        ("resnet50", dict(layers=(3, 4, 6)), r"layers=\(3, 4, 6\).* 4 stages"),
        ("resnet50", dict(layers=(3, 4, 0, 3)), r"layers=\(3, 4, 0, 3\).* all from 1"),
        ("resnext50_32x4d", dict(groups=0), r"groups=0.* all from 1"),
        ("resnet20", dict(n=0), r"n=0.* at least one block"),
        ("preresnet110", dict(n=0), r"n=0.* at least one unit"),
        ("preresnet110", dict(block="wide"), r"block='wide'.* basic, bottleneck$"),
        ("preresnet110", dict(order="post"), "order='post'.* " + ", ".join(ORDERS)),
        ("preresnet110", dict(shortcut="none"), "shortcut='none'.* " + ", ".join(SHORTCUTS)),
        ("wrn16_4", dict(depth=17), r"depth=17.* 6n \+ 4, as 10, 16, 22, 28"),
        ("wrn16_4", dict(k=0), r"k=0.* at least by 1"),
        ("wrn16_4", dict(dropout=1.0), r"dropout=1\.0.* at least 0 and less than 1"),
        ("resnext29_8x64d", dict(groups=0), r"groups=0.* at least 1"),
        ("resnet110_stochastic_depth", dict(survival=0.0), r"survival=0\.0.* greater than 0 and at most 1"),
    ],
)
def test_an_impossible_option_is_refused_with_what_is_possible(name, options, refusal):
    with pytest.raises(ValueError, match=refusal):
        on_meta(name, **options)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("in_planes", "stride"), [(64, 1), (12, 2)], ids=["identity", "projection"])
def test_a_resnext_bottleneck_equals_the_sum_of_its_paths_and_their_early_concatenation(in_planes, stride, training):
    block = lively(resnet.Bottleneck(in_planes, 16, stride, groups=4, width_per_group=12)).train(training)
    x, width = maps(in_planes), 3  # of a path: 16 · 12 / 64

    def bn(norm: nn.BatchNorm2d, x: Tensor, own: slice = slice(None)) -> Tensor:
        mean, var = norm.running_mean[own].clone(), norm.running_var[own].clone()
        return F.batch_norm(x, mean, var, norm.weight[own], norm.bias[own], training)

    paths, total = [], 0
    for i in range(4):
        own = slice(i * width, (i + 1) * width)
        path = relu(bn(block.bn1, F.conv2d(x, block.conv1.weight[own]), own))
        path = relu(bn(block.bn2, F.conv2d(path, block.conv2.weight[own], stride=stride, padding=1), own))
        paths.append(path)
        total = total + F.conv2d(path, block.conv3.weight[:, own])
    early = F.conv2d(torch.cat(paths, 1), block.conv3.weight)
    shortcut = x if in_planes == 64 else bn(block.downsample[1], block.downsample[0](x))
    for form in total, early:  # and the block is (c), grouped
        torch.testing.assert_close(block(x), relu(bn(block.bn3, form) + shortcut))


def test_the_large_stem_is_every_second_pixel_of_the_small_one_pooled():
    large, small = (zoo.create_model("resnet18", stem=stem, layers=(1, 1, 1, 1)) for stem in ("large", "small"))
    large.load_state_dict(lively(small).state_dict())
    x = maps(3, 33)
    small_maps, large_maps = (zoo.extract(net.double().eval(), x)["layer1"] for net in (small, large))
    stem = relu(small.bn1(small.conv1(x)))
    torch.testing.assert_close(small_maps, small.layer1(stem))
    torch.testing.assert_close(large_maps, small.layer1(F.max_pool2d(stem[:, :, ::2, ::2], 3, 2, padding=1)))


def test_option_a_takes_every_second_pixel_and_pads_zero_channels_on_both_sides_without_parameters():
    shortcut = resnet_cifar.Shortcut(stride=2, extra=4)
    x = torch.rand(2, 6, 5, 5)
    out = shortcut(x)
    assert not list(shortcut.parameters())
    assert torch.equal(out[:, 2:8], x[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not out[:, [0, 1, 8, 9]].any()
    assert out.shape == (2, 10, 3, 3)


@pytest.mark.parametrize("n", [1, 3])
def test_a_cifar_resnet_has_6n_plus_2_layers_and_no_convolution_on_a_shortcut(n):
    model = on_meta("resnet20", n=n)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * n + 2
    assert not any("shortcut" in key for key in model.state_dict())
    assert sum(isinstance(m, resnet_cifar.Shortcut) for m in model.modules()) == 2


@pytest.mark.parametrize(("planes", "stride"), [(6, 1), (10, 2)])
def test_a_cifar_block_adds_what_it_reads_and_a_plain_one_does_not(planes, stride):
    block = lively(resnet_cifar.BasicBlock(6, planes, stride))
    plain = resnet_cifar.BasicBlock(6, planes, stride, shortcut=False).double().eval()
    plain.load_state_dict(block.state_dict())
    x, (c1, c2), (bn1, bn2) = maps(6), convs(block), norms(block)
    f = bn2(c2(relu(bn1(c1(x)))))
    torch.testing.assert_close(block(x), relu(f + option_a(x, stride, planes - 6)))
    torch.testing.assert_close(plain(x), relu(f))


@pytest.mark.parametrize(("name", "passes"), [("resnet20", True), ("plain20", False)])
def test_a_zero_block_passes_the_image_through_a_resnet_and_nothing_through_a_plain_net_of_its_parameters(name, passes):
    model = ready(name)
    model.load_state_dict(ready("resnet20").state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert not torch.equal(*model(x))
    nn.init.zeros_(model.layer2[1].bn2.weight)
    nn.init.zeros_(model.layer2[1].bn2.bias)
    before = model.layer2[0](zoo.extract(model, x)["layer1"])
    assert torch.equal(model.layer2[1](before), before * passes)
    assert torch.equal(*model(x)) is not passes


UNITS = {  # order, block, whether it begins a stage and widens → Figure 4, of x, convolutions and batch norms
    ("original", "basic", False): lambda x, c, d, m, n: relu(x + n(d(relu(m(c(x)))))),
    ("bn_after_addition", "basic", False): lambda x, c, d, m, n: relu(n(x + d(relu(m(c(x)))))),
    ("relu_before_addition", "basic", False): lambda x, c, d, m, n: x + relu(n(d(relu(m(c(x)))))),
    ("relu_only_preactivation", "basic", False): lambda x, c, d, m, n: x + n(d(relu(m(c(relu(x)))))),
    ("full_preactivation", "basic", False): lambda x, c, d, m, n: x + d(relu(n(c(relu(m(x)))))),
    ("relu_only_preactivation", "basic", True): lambda x, c, d, m, n: option_a(relu(x)) + n(d(relu(m(c(relu(x)))))),
    ("full_preactivation", "basic", True): lambda x, c, d, m, n: option_a(relu(m(x))) + d(relu(n(c(relu(m(x)))))),
    ("original", "bottleneck", True): lambda x, c, d, e, s, m, n, o, p: relu(p(s(x)) + o(e(relu(n(d(relu(m(c(x))))))))),
    ("full_preactivation", "bottleneck", True): lambda x, c, d, e, s, m, n, o: (
        s(relu(m(x))) + e(relu(o(d(relu(n(c(relu(m(x)))))))))
    ),
}
FIGURE_2 = {  # of the shortcut h, the residual f and the gate g, when testing
    "identity": lambda h, f, g: h + f,
    "constant_scaling": lambda h, f, g: 0.5 * h + 0.5 * f,
    "exclusive_gating": lambda h, f, g: (1 - g) * h + g * f,
    "shortcut_only_gating": lambda h, f, g: (1 - g) * h + f,
    "conv": lambda h, f, g: h + f,
    "dropout": lambda h, f, g: 0.5 * h + f,
}


@pytest.mark.parametrize(("order", "block", "first"), UNITS)
def test_a_unit_of_each_order_equals_its_formula(order, block, first):
    width, stride = (10, 2) if first else (6, 1)
    unit = lively(Unit(6, width, stride, block=block, order=order, shortcut="identity", first=first))
    x = maps(6)
    torch.testing.assert_close(unit(x.clone()), UNITS[order, block, first](x, *convs(unit), *norms(unit)))


@pytest.mark.parametrize("planes", [6, 10], ids=["same", "wider"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_a_unit_of_each_shortcut_equals_its_formula_and_gates_begin_at_minus_6(shortcut, planes):
    stride = 1 if planes == 6 else 2
    unit = Unit(6, planes, stride, block="basic", order="original", shortcut=shortcut, first=True)
    lively(unit.apply(CifarPreResNet.init))
    x, (c1, c2, *extra), (bn1, bn2, *extra_bn) = maps(6), convs(unit), norms(unit)
    assert (len(extra), len(extra_bn)) == ("gating" in shortcut or shortcut == "conv", shortcut == "conv")
    assert all(conv.bias.unique().tolist() == [-6] for conv in extra if "gating" in shortcut)
    h = extra_bn[0](extra[0](x)) if shortcut == "conv" else option_a(x, stride, planes - 6)
    g = extra[0](x).sigmoid() if "gating" in shortcut else None
    torch.testing.assert_close(unit(x), relu(FIGURE_2[shortcut](h, bn2(c2(relu(bn1(c1(x))))), g)))


def test_a_net_of_preactivated_units_ends_with_their_activation_and_the_others_begin_with_theirs():
    x = maps(3, 8)
    for order in ORDERS:
        model = lively(zoo.create_model("preresnet110", n=1, order=order))
        units, first = nn.Sequential(model.layer1, model.layer2, model.layer3), model.conv1(x)
        if order == "full_preactivation":
            expected = relu(model.activation[0](units(first)))
        elif order == "relu_only_preactivation":
            expected = relu(units(model.stem_activation[0](first)))
        else:
            expected = units(relu(model.stem_activation[0](first)))
        torch.testing.assert_close(model.forward_features(x), expected)


def test_the_five_orders_arrange_the_same_parts_but_for_the_896_parameters_of_norms_after_projections():
    nets = [on_meta("preresnet110", n=2, order=order) for order in ORDERS]
    assert [sorted(norm.num_features for norm in norms(net)) for net in nets] == [[16] * 5 + [32] * 4 + [64] * 4] * 5
    assert [sum(isinstance(m, nn.ReLU) for m in net.modules()) for net in nets] == [1 + 2 * 6] * 5
    deep = [on_meta("preresnet164", n=1, order=order) for order in ORDERS]
    assert [parameters(net) - parameters(deep[-1]) for net in deep] == [896, 0, 896, 896, 0]


def test_dropout_on_a_shortcut_drops_half_of_it_in_training_and_does_not_scale_up_the_rest():
    x, f = maps(6, 20), maps(6, 20)
    kept = (DropoutShortcut(nn.Identity(), 6, 6, 1)(x, f) - f) / x
    assert kept.mul(1e6).round().unique().tolist() == [0, 1e6]
    assert kept.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_with_every_shortcut_and_block_learns_with_all_its_parameters(order, shortcut, block):
    model = ready("preresnet110", n=2, order=order, shortcut=shortcut, block=block)
    F.cross_entropy(model(torch.rand(4, 3, 8, 8)), torch.arange(4)).backward()
    assert [key for key, p in model.named_parameters() if not p.grad.any()] == []


def test_the_original_order_with_basic_blocks_and_the_weights_of_resnet20_gives_its_scores():
    old, new = ready("resnet20"), ready("preresnet110", n=3, order="original")
    new.load_state_dict(dict(zip(new.state_dict(), old.state_dict().values(), strict=True)))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(new(x), old(x))


def test_k_multiplies_the_channels_of_every_block_and_not_of_the_first_convolution_and_every_block_drops_as_asked():
    for k, options, drops in (1, {}, []), (3, {"dropout": 0.4}, [0.4] * 6):
        model = on_meta("wrn16_4", k=k, **options)
        planes = [conv.out_channels for conv in convs(model) if conv.kernel_size == (3, 3)]
        assert planes == [16] + [16 * k] * 4 + [32 * k] * 4 + [64 * k] * 4
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == drops


@pytest.mark.parametrize("planes", [6, 12], ids=["same", "wider"])
@pytest.mark.parametrize("training", [False, True])
def test_dropout_of_a_wide_block_sits_between_its_convolutions(planes, training):
    block = lively(WideBlock(6, planes, 1, dropout=0.3)).train(training)
    x, (c1, c2, *projection), (bn1, bn2) = maps(6), convs(block), norms(block)
    torch.manual_seed(1)
    out = block(x)
    torch.manual_seed(1)
    a = relu(bn1(x))
    dropped = F.dropout(relu(bn2(c1(a))), 0.3, training)
    torch.testing.assert_close(out, c2(dropped) + (projection[0](a) if projection else x))


def test_survival_falls_by_equal_steps_from_nearly_1_to_a_half_and_40_and_a_quarter_of_54_blocks_are_expected():
    survival = [m.survival for m in on_meta("resnet110_stochastic_depth").modules() if isinstance(m, MortalBlock)]
    assert survival == pytest.approx([1 - 0.5 * block / 54 for block in range(1, 55)])
    assert sum(survival) == pytest.approx(40.25)


@pytest.mark.parametrize("survival", [0.4, 1.0])
def test_when_testing_the_net_is_a_resnet_whose_residuals_are_scaled_by_their_survival(survival):
    mortal, net = ready("resnet110_stochastic_depth", n=2, survival=survival), ready("resnet20", n=2)
    net.load_state_dict(mortal.state_dict())
    x = torch.rand(4, 3, 8, 8)
    assert torch.allclose(mortal(x), net(x)) is (survival == 1)
    for i, norm in enumerate(net.get_submodule(f"layer{i + 1}.{j}.bn2") for i in range(3) for j in range(2)):
        for values in norm.weight.data, norm.bias.data:
            values *= 1 - (i + 1) / 6 * (1 - survival)
    torch.testing.assert_close(mortal(x), net(x))
    assert torch.allclose(mortal.train()(x), net.train()(x)) is (survival == 1)


@pytest.mark.parametrize(("planes", "stride"), [(6, 1), (10, 2)])
def test_in_training_a_block_is_dead_for_the_whole_mini_batch_or_lives_unscaled_as_often_as_it_should(planes, stride):
    mortal = lively(MortalBlock(6, planes, stride)).train()
    mortal.survival = 0.7
    immortal = resnet_cifar.BasicBlock(6, planes, stride).double()
    immortal.load_state_dict(mortal.state_dict())
    x = maps(6).abs()  # as after a ReLU
    living, dead = immortal(x), option_a(x, stride, planes - 6)
    outs = [mortal(x) for _ in range(500)]
    lives = [torch.allclose(out, living) for out in outs]
    assert all(lived or torch.equal(out, dead) for out, lived in zip(outs, lives, strict=True))
    assert sum(lives) / 500 == pytest.approx(0.7, abs=0.06)  # three standard deviations
