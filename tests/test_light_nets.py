"""What is particular to MobileNets and EfficientNets: formulas over a block's own layers in float64, and tables."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from names import on_meta
from torch import Tensor, nn
from torch.nn.functional import hardsigmoid, hardswish, relu, relu6, silu

import zoo
from zoo.backbones import efficientnet_lite, mobilenet_v1
from zoo.backbones.efficientnet import MBConv, compound
from zoo.backbones.efficientnet_v2 import FusedMBConv
from zoo.backbones.mobilenet_v2 import InvertedResidual
from zoo.backbones.mobilenet_v3 import Bneck
from zoo.layers.drop_path import DropPath
from zoo.layers.rounding import make_divisible
from zoo.layers.squeeze_excitation import SqueezeExcitation


def of(kind: type | tuple[type, ...], model: nn.Module) -> list:
    return [m for m in model.modules() if isinstance(m, kind)]


def shape(block: nn.Module) -> tuple[int, ...]:
    """Channels in, expanded and out; side and stride of the filter that is not 1×1."""
    first, *_, last = [*of(nn.Conv2d, block)] * 2  # a block may have one alone
    spatial = next(conv for conv in of(nn.Conv2d, block) if conv.kernel_size != (1, 1))
    return first.in_channels, spatial.out_channels, last.out_channels, spatial.kernel_size[0], spatial.stride[0]


def lively(module: nn.Module) -> nn.Module:
    """In float64 and eval mode; every batch norm, which is the identity when fresh, changes what it reads."""
    for bn in of(nn.BatchNorm2d, module):
        for values in bn.running_mean, bn.running_var, bn.weight.data, bn.bias.data:
            values.uniform_(0.2, 1.2)
    return module.double().eval()


def maps(channels: int, side: int = 7, count: int = 3) -> Tensor:
    return 3 * torch.randn(count, channels, side, side, dtype=torch.float64)  # of either sign, some beyond 6


def recalibrated(se: SqueezeExcitation, x: Tensor, delta, sigma) -> Tensor:  # equations 2 to 4
    z = torch.einsum("nchw->nc", x) / (x.shape[2] * x.shape[3])
    s = delta(z @ se.fc1.weight[..., 0, 0].T + se.fc1.bias) @ se.fc2.weight[..., 0, 0].T + se.fc2.bias
    return torch.einsum("nc,nchw->nchw", sigma(s), x)


def test_make_divisible_gives_the_nearest_multiple_halves_up_at_least_nine_tenths_and_the_divisor():
    by_hand = {0.1: 8, 8.8: 8, 8.9: 16, 11.2: 16, 17.7: 16, 18: 24, 91.9: 88, 92: 96, 100: 104, 1792: 1792}
    assert {channels: make_divisible(channels) for channels in by_hand} == by_hand
    assert [make_divisible(channels, 4) for channels in (1, 18, 21.9)] == [4, 20, 20]


def test_drop_path_zeroes_whole_images_at_its_rate_and_divides_the_others_so_that_the_mean_stays_in_training_only():
    n, rate, x = 4000, 0.25, torch.ones(4000, 3, 2, 2)
    assert torch.equal(DropPath(rate).eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)
    factors = DropPath(rate).train()(x).flatten(1)
    assert (factors == factors[:, :1]).all()  # an image as a whole
    assert {round(factor, 4) for factor in factors.unique().tolist()} == {0, 1.3333}
    three_deviations = 3 * math.sqrt(rate * (1 - rate) / n)
    assert (factors[:, 0] == 0).double().mean().item() == pytest.approx(rate, abs=three_deviations)
    assert factors.mean().item() == pytest.approx(1, abs=three_deviations / (1 - rate))


BOTTLENECKS = {  # channels in, out, stride
    "v2": lambda c, d, s: InvertedResidual(c, d, s, 6),
    "v3": lambda c, d, s: Bneck(c, 20, d, 5, s, se=True, activation=nn.Hardswish),
    "mbconv": lambda c, d, s: MBConv(c, d, 5, s, 6, norm=nn.BatchNorm2d, drop_path=0.4),
    "fused": lambda c, d, s: FusedMBConv(c, d, 3, s, 4, norm=nn.BatchNorm2d, drop_path=0.4),
    "lite": lambda c, d, s: efficientnet_lite.InvertedResidual(c, d, 5, s, 6, 0.4),
    "lite_first": lambda c, d, s: efficientnet_lite.DepthwiseSeparable(c, d, 3, s, 1, 0.4),
}


@pytest.mark.parametrize("kind", BOTTLENECKS)
@pytest.mark.parametrize(("channels", "stride"), [((8, 8), 1), ((8, 8), 2), ((8, 12), 1)])
def test_bottlenecks_are_linear_and_have_a_shortcut_only_with_stride_1_and_as_many_channels(kind, channels, stride):
    block, x, projected = lively(BOTTLENECKS[kind](*channels, stride)), maps(8), []
    of(nn.BatchNorm2d, block)[-1].register_forward_hook(lambda bn, inputs, out: projected.append(out.clone()))
    out = block(x)
    assert (projected[0] < 0).any()
    torch.testing.assert_close(out, projected[0] + (x if channels == (8, 8) and stride == 1 else 0))


@pytest.mark.parametrize("kind", ["mbconv", "fused", "lite", "lite_first"])
def test_in_training_an_image_has_a_blocks_branch_divided_by_its_survival_or_only_the_shortcut(kind):
    block, x = lively(BOTTLENECKS[kind](8, 8, 1)), maps(8, count=24)
    branch = block(x) - x
    of(DropPath, block)[0].train()
    out = block(x)
    dead = (out == x).flatten(1).all(1)
    assert 0 < dead.sum() < 24
    torch.testing.assert_close(out[~dead], (x + branch / 0.6)[~dead])


def test_a_depthwise_separable_block_has_k2_m_plus_m_n_weights_instead_of_k2_m_n_and_filters_each_channel_alone():
    m, n, k = 6, 10, 3
    block, x = lively(mobilenet_v1.DepthwiseSeparable(m, n, 2)), maps(m)
    assert sum(conv.weight.numel() for conv in of(nn.Conv2d, block)) == k * k * m + m * n
    filters = block.conv_dw.weight
    alone = [F.conv2d(x[:, i : i + 1], filters[i : i + 1], stride=2, padding=1) for i in range(m)]
    mixed = torch.einsum("nmhw,dm->ndhw", relu6(block.bn1(torch.cat(alone, 1))), block.conv_pw.weight[..., 0, 0])
    torch.testing.assert_close(block(x), relu6(block.bn2(mixed)))


def convolved(layer: nn.Conv2d, x: Tensor, stride: int = 1) -> Tensor:
    """Padded by half the filter, grouped as the weights say."""
    groups = x.shape[1] // layer.weight.shape[1]
    return F.conv2d(x, layer.weight, stride=stride, padding=layer.weight.shape[-1] // 2, groups=groups)


FORMS = [("v2", relu6, None), ("lite", relu6, None), ("v3", hardswish, (relu, hardsigmoid))]
FORMS += [("mbconv", silu, (silu, torch.sigmoid))]


@pytest.mark.parametrize(("kind", "swish", "gate"), FORMS)
def test_bottlenecks_are_1x1_up_depthwise_squeeze_and_excitation_in_v3_and_mbconv_and_1x1_down(kind, swish, gate):
    block, x = lively(BOTTLENECKS[kind](8, 8, 1)), maps(8)
    (up, filters, *_, down), (bn1, bn2, bn3) = of(nn.Conv2d, block), of(nn.BatchNorm2d, block)
    inner = swish(bn2(convolved(filters, swish(bn1(convolved(up, x))))))
    if gate:
        inner = recalibrated(*of(SqueezeExcitation, block), inner, *gate)
    torch.testing.assert_close(block(x), x + bn3(convolved(down, inner)))


def test_a_fused_mbconv_is_3x3_up_then_1x1_down_and_without_expansion_a_single_3x3_convolution():
    block, x = lively(BOTTLENECKS["fused"](8, 12, 2)), maps(8)
    (up, bn1, _), (down, bn2) = block.block
    assert (up.weight.shape, down.weight.shape) == ((32, 8, 3, 3), (12, 32, 1, 1))
    torch.testing.assert_close(block(x), bn2(convolved(down, silu(bn1(convolved(up, x, stride=2))))))
    block = lively(FusedMBConv(8, 8, 3, 1, 1, norm=nn.BatchNorm2d, drop_path=0.0))
    (only,), (bn,) = of(nn.Conv2d, block), of(nn.BatchNorm2d, block)
    assert only.weight.shape == (8, 8, 3, 3)
    torch.testing.assert_close(block(x), x + silu(bn(convolved(only, x))))


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_lite_pads_as_tensorflow_the_larger_half_at_the_end_to_the_side_by_the_stride_rounded_up(k, stride):
    filters = efficientnet_lite.InvertedResidual(2, 2, k, stride, 6, 0.0).conv_dw
    for sides in (9, 12), (8, 7), (11, 5), (6, 6):
        x = torch.randn(2, 12, *sides)
        total = [max((math.ceil(n / stride) - 1) * stride + k - n, 0) for n in sides]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
        out = F.conv2d(F.pad(x, (left, right, top, bottom)), filters.weight, stride=stride, groups=12)
        assert out.shape[2:] == tuple(math.ceil(n / stride) for n in sides)
        torch.testing.assert_close(filters(x), out)


def mult_adds(name: str, side: int) -> int:
    model, counts = on_meta(name), []
    for conv in of(nn.Conv2d, model):
        conv.register_forward_hook(lambda conv, _, out: counts.append(out[0].numel() * conv.weight[0].numel()))
    model.forward_features(torch.empty(1, 3, side, side, device="meta"))
    return sum(counts)


def test_alpha_multiplies_all_channels_and_mult_adds_about_by_its_square_and_rho_mult_adds_by_its_own():
    full, cost = of(nn.Conv2d, on_meta("mobilenet_v1")), mult_adds("mobilenet_v1", 224)
    for name, alpha in ("mobilenet_v1_075", 0.75), ("mobilenet_v1_050", 0.5), ("mobilenet_v1_025", 0.25):
        thin = [conv.out_channels for conv in of(nn.Conv2d, on_meta(name))]
        assert thin == [alpha * conv.out_channels for conv in full]
        assert alpha**2 < mult_adds(name, 224) / cost < alpha**2 + 0.0125  # 3×3 filters cost α times as much
    assert 224**2 * mult_adds("mobilenet_v1", 128) == 128**2 * cost


V2, B, S = ("1666666", "3333333", "1222121"), ("1666666", "3353553", "1222121"), ("144466", "333333", "122212")
TABLES = {  # channels of stem and head; of each stage expansion, kernel, first stride, channels, layers
    "mobilenet_v2": (32, 1280, *V2, [16, 24, 32, 64, 96, 160, 320], [1, 2, 3, 4, 3, 3, 1]),
    "mobilenet_v2_035": (16, 1280, *V2, [8, 8, 16, 24, 32, 56, 112], [1, 2, 3, 4, 3, 3, 1]),
    "mobilenet_v2_140": (48, 1792, *V2, [24, 32, 48, 88, 136, 224, 448], [1, 2, 3, 4, 3, 3, 1]),
    "efficientnet_b0": (32, 1280, *B, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]),
    "efficientnet_b2": (32, 1408, *B, [16, 24, 48, 88, 120, 208, 352], [2, 3, 3, 4, 4, 5, 2]),
    "efficientnet_b5": (48, 2048, *B, [24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3]),
    "efficientnet_b7": (64, 2560, *B, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4]),
    "efficientnet_lite0": (32, 1280, *B, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1]),
    "efficientnet_lite4": (32, 1280, *B, [24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1]),
    "efficientnet_v2_s": (24, 1280, *S, [24, 48, 64, 128, 160, 256], [2, 4, 4, 6, 9, 15]),
}


@pytest.mark.parametrize("name", TABLES)
def test_blocks_are_the_papers_tables_depths_round_up_no_width_narrows_v2s_head_and_lite_keeps_all_ends(name):
    (channels, head, *columns), rows, model = TABLES[name], [], on_meta(name)
    assert (of(nn.Conv2d, model)[0].out_channels, of(nn.Conv2d, model)[-1].out_channels) == (channels, head)
    for expansion, kernel, first, out, layers in zip(*columns, strict=True):
        for j in range(layers):
            rows.append((channels, int(expansion) * channels, out, int(kernel), 1 if j else int(first)))
            channels = out
    assert [shape(block) for block in model.modules() if hasattr(block, "residual")] == rows


V3 = {  # Tables 1 and 2, a column a line: kernel, h-swish?, stride; expanded, out; and what a gate squeezes to
    "large": (
        *("333555333333555", "000000111111111", "121211211111211"),
        [16, 64, 72, 72, 120, 120, 240, 200, 184, 184, 480, 672, 672, 960, 960],
        [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
        [0, 0, 0, 24, 32, 32, 0, 0, 0, 0, 120, 168, 168, 240, 240],  # 72 / 4 would be 16, below nine tenths
    ),
    "small": (
        *("33355555555", "00011111111", "22121111211"),
        [16, 72, 88, 96, 240, 240, 120, 144, 288, 576, 576],
        [16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
        [8, 0, 0, 24, 64, 64, 32, 40, 72, 144, 144],
    ),
}


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("size", ["large", "small"])
def test_v3_squeezes_to_a_quarter_swishes_and_has_5x5_filters_by_the_tables_and_never_if_minimal(size, minimal):
    model, rows = on_meta(f"mobilenet_v3_{size}" + "_minimal" * minimal), []
    for block in of(Bneck, model):
        _, *channels, kernel, stride = shape(block)
        squeezed = [se.fc1.out_channels for se in of(SqueezeExcitation, block)]
        rows.append((kernel, bool(of(nn.Hardswish, block)), stride, *channels, sum(squeezed)))
    table = [tuple(map(int, row)) for row in zip(*V3[size], strict=True)]
    assert rows == [(3, 0, *row[2:-1], 0) if minimal else row for row in table]
    ends = {type(layer) for layer in (model.features[0][-1], model.features[-1][-1], model.classifier[1])}
    assert ends == {nn.ReLU if minimal else nn.Hardswish}


def test_compound_raises_its_constants_to_phi_doubles_the_cost_about_and_along_leaves_other_dimensions_at_1():
    assert compound(2) == pytest.approx((1.44, 1.21, 1.3225))
    assert compound(3, alpha=1.5, beta=2, gamma=1) == pytest.approx((3.375, 8, 1))
    alone = [compound(2, along=[name]) for name in ("depth", "width", "resolution")]
    assert alone == [(1.2**2, 1, 1), (1, 1.1**2, 1), (1, 1, 1.15**2)]
    assert compound(1).depth * (compound(1).width * compound(1).resolution) ** 2 == pytest.approx(2, rel=0.05)
    assert compound(1).image_size == 258  # 224 · 1.15 = 257.6


def test_compound_refuses_unknown_dimensions_and_constants_below_1_by_their_names():
    for along in "depth", ["depht"], ():
        with pytest.raises(ValueError, match=re.escape(f"along={along!r}: a sequence of depth, width, resolution")):
            compound(1, along=along)
    with pytest.raises(ValueError, match=r"beta=0\.9.* at least 1"):
        compound(1, beta=0.9)


def test_some_phi_gives_the_tables_factors_within_5_percent_up_to_b4_and_none_does_from_b5_on():
    rules = [compound(phi / 100) for phi in range(801)]
    for i in range(1, 8):
        row = zoo.BACKBONES[f"efficientnet_b{i}"].options
        table = row["depth"], row["width"], row["image_size"] / 224
        part = min(max(abs(r / t - 1) for r, t in zip(rule, table, strict=True)) for rule in rules)
        assert (part < 0.05) == (i <= 4)


def test_lite_has_no_gate_and_no_activation_but_relu6_which_follows_all_but_the_bottlenecks():
    for model in (on_meta(f"efficientnet_lite{i}") for i in range(5)):
        assert not of((SqueezeExcitation, nn.AdaptiveAvgPool2d, nn.SiLU, nn.Sigmoid, nn.Hardswish), model)
        assert len(of(nn.ReLU6, model)) == len(of(nn.BatchNorm2d, model)) - sum(map(len, model.blocks))


def test_efficientnet_v2_s_fuses_three_stages_then_squeezes_to_a_quarter_of_what_comes_in():
    model = on_meta("efficientnet_v2_s")
    kinds = [{type(block) for block in stage} for stage in model.features[1:-1]]
    assert kinds == [{FusedMBConv}] * 3 + [{MBConv}] * 3
    squeezed = [se.fc1.out_channels for se in of(SqueezeExcitation, model)]
    assert squeezed == [shape(block)[0] // 4 for block in of(MBConv, model)]


@pytest.mark.parametrize(("name", "blocks"), [("b0", 16), ("lite0", 16), ("v2_s", 40)])
def test_drop_path_rises_evenly_from_0_over_the_blocks_and_rates_of_1_or_below_0_are_refused(name, blocks):
    name = f"efficientnet_{name}"
    for rate, options in (0.2, {}), (0.5, dict(drop_path=0.5)):
        rates = [drop.rate for drop in of(DropPath, on_meta(name, **options))]
        assert rates == pytest.approx([rate * i / blocks for i in range(blocks)])
    for rate in 1.0, -0.1:
        with pytest.raises(ValueError, match=re.escape(f"drop_path={rate}")):
            on_meta(name, drop_path=rate)


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "mobilenet_v2_035", "mobilenet_v3_small_075"])
def test_mobilenets_start_from_a_normal_of_deviation_9_percent_cut_at_two_deviations_and_biases_of_zero(name):
    layers = of((nn.Conv2d, nn.Linear), zoo.create_model(name))
    for weight in (layer.weight.flatten() for layer in layers if layer.weight.numel() > 1000):
        assert weight.abs().max() <= 0.18 + 1e-6
        error = 4 / math.sqrt(len(weight))  # of shares, above four deviations
        assert weight.std().item() == pytest.approx(0.0792, rel=error)
        assert (weight.abs() < 0.09).double().mean().item() == pytest.approx(0.6827 / 0.9545, abs=error)
    assert not any(layer.bias.any() for layer in layers if layer.bias is not None)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_s"])
def test_efficientnets_start_with_variance_2_by_fan_out_of_a_depthwise_filter_k2_and_a_uniform_classifier(name):
    model = zoo.create_model(name, num_classes=400)
    for weight in (conv.weight for conv in of(nn.Conv2d, model)):
        area, is_depthwise = weight[0, 0].numel(), weight.shape[1] == 1 and weight[0, 0].numel() > 1
        variance = 2 / area if is_depthwise else 2 / (area * weight.shape[0])
        assert weight.square().mean().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / weight.numel()))
    (linear,) = of(nn.Linear, model)
    assert 0.0499 < linear.weight.abs().max() <= 0.05  # 1 / √400
    assert linear.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.01)
    assert not any(layer.bias.any() for layer in of((nn.Conv2d, nn.Linear), model) if layer.bias is not None)
