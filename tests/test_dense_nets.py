"""What is particular to the nets whose layers hear more than the layer before: dense, highway, fractal, supervised."""

import math
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from names import assert_near, images, on_meta, ready
from torch import Tensor, nn

import zoo
from zoo.backbones.densenet import DenseBlock, DenseLayer, Transition
from zoo.backbones.densenet_cifar import PlainDenseLayer
from zoo.backbones.fractalnet import FractalBlock
from zoo.backbones.highway import HighwayConv


def of(kind: type | tuple[type, ...], model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, kind)]


@pytest.mark.parametrize(("layer", "efficient"), [(DenseLayer, False), (DenseLayer, True), (PlainDenseLayer, False)])
def test_a_dense_layer_reads_the_blocks_input_and_all_maps_before_it_in_order_and_adds_k(layer, efficient):
    block = DenseBlock(*(layer(6 + 4 * i, 4, 0.0) for i in range(3)), memory_efficient=efficient).eval()
    maps = [torch.randn(2, 6, 5, 5)]
    for dense in block:
        maps.append(dense(torch.cat(maps, 1)))
    assert [m.shape[1] for m in maps] == [6, 4, 4, 4]
    torch.testing.assert_close(block(maps[0]), torch.cat(maps, 1))


@pytest.mark.parametrize(
    ("name", "depth", "widths"),  # of the blocks' inputs and of what comes out of the last
    [
        ("densenet121", 121, [64, 128, 256, 512, 1024]),
        ("densenet161", 161, [96, 192, 384, 1056, 2208]),
        ("densenet40_k12", 40, [16, 160, 304, 448]),
        ("densenet_bc100_k12", 100, [24, 108, 150, 342]),
    ],
)
def test_a_densenet_has_the_layers_of_its_name_and_halves_channels_between_blocks_if_it_is_bc(name, depth, widths):
    model, plain = on_meta(name), name == "densenet40_k12"
    assert len(of((nn.Conv2d, nn.Linear), model)) == depth
    first = [block[0].norm if plain else block[0].norm1 for block in of(DenseBlock, model)]
    assert [norm.num_features for norm in first] + [model.num_features] == widths
    assert {t.conv.out_channels / t.conv.in_channels for t in of(Transition, model)} == {1.0 if plain else 0.5}


def test_bottlenecks_have_4k_maps_and_nets_without_bc_have_none():
    for name, k in ("densenet_bc100_k12", 12), ("densenet_bc250_k24", 24), ("densenet121", 32), ("densenet161", 48):
        layers = of(DenseLayer, on_meta(name))
        shapes = {(tuple(d.conv1.weight.shape[0::2]), tuple(d.conv2.weight.shape)) for d in layers}
        assert shapes == {((4 * k, 1), (k, 4 * k, 3, 3))}
    kernels = {m.kernel_size for layer in of(PlainDenseLayer, on_meta("densenet40_k12")) for m in of(nn.Conv2d, layer)}
    assert kernels == {(3, 3)}


@pytest.mark.parametrize(("name", "depth"), [("densenet_bc100_k12", 16), ("densenet40_k12", 10)])
def test_dropout_reads_each_convolution_but_the_first(name, depth):
    model, calls = zoo.create_model(name, depth=depth, dropout=0.2).eval(), []
    for module in of((nn.Conv2d, nn.Dropout), model):
        module.register_forward_hook(lambda module, inputs, out: calls.append((type(module), inputs[0], out)))
    model(images(model))
    (first, *_), *later = calls
    assert (first, len(later)) == (nn.Conv2d, 2 * (depth - 2))  # but for the first and the linear layer
    for (conv, _, out), (dropout, read, _) in zip(later[::2], later[1::2], strict=True):
        assert (conv, dropout) == (nn.Conv2d, nn.Dropout)
        assert read is out
    assert {m.p for m in of(nn.Dropout, model)} == {0.2}
    assert not of(nn.Dropout, on_meta(name))


def keep(storages: dict[int, int], saved: Tensor) -> Tensor:
    storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
    return saved


def test_a_memory_efficient_densenet_keeps_less_and_has_the_same_scores_and_gradients_but_norms_count_twice():
    scores, gradients, kept, counts = [], [], [], []
    for memory_efficient in False, True:
        torch.manual_seed(0)
        options = dict(layers=(2, 3, 2, 2), growth_rate=4, stem_width=8, stem="small", num_classes=3)
        model = zoo.create_model("densenet121", memory_efficient=memory_efficient, **options).double().train()
        storages: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(partial(keep, storages), lambda t: t):
            scores.append(model(torch.rand(4, 3, 32, 32, dtype=torch.float64)))
        scores[-1].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        kept.append(sum(storages.values()))
        counts.append({layer.norm1.num_batches_tracked.item() for layer in of(DenseLayer, model)})
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < 0.8 * kept[0]
    assert counts == [{1}, {2}]


def highway(**weights: tuple[float, float]) -> HighwayConv:
    """Of one channel and 1×1 filters, with these weights and biases."""
    layer = HighwayConv(1, 1, "free" if "carry" in weights else "coupled", gate_bias=-1.0)
    with torch.no_grad():
        for name, (weight, bias) in weights.items():
            layer.get_submodule(name).weight.fill_(weight)
            layer.get_submodule(name).bias.fill_(bias)
    return layer


@pytest.mark.parametrize("c", ["coupled", "free"])
def test_a_highway_gives_h_times_t_plus_x_times_1_minus_t_or_times_a_carry_gate_of_its_own(c):
    a = math.log(3)  # σ(±a) is ¾ and ¼
    layer = highway(plain=(2, 1), transform=(1, 0), **{"carry": (0, a)} if c == "free" else {})
    y = layer(torch.tensor([a, 0, -a]).view(3, 1, 1, 1)).flatten()
    carried = [a * (0.75 if c == "free" else 0.25), 0, -a * 0.75]
    torch.testing.assert_close(y, torch.tensor([(2 * a + 1) * 0.75, 0.5, 0]) + torch.tensor(carried))


@pytest.mark.parametrize("carry", ["coupled", "free"])
@pytest.mark.parametrize("name", ["highway10_w16", "highway32"])
def test_a_strongly_negative_gate_bias_makes_each_stage_its_plain_layer_alone(name, carry):
    model = zoo.create_model(name, carry=carry, gate_bias=-100.0)
    for stage in model.stage2, model.stage3:
        highways = nn.Sequential(*of(HighwayConv, stage))
        x = torch.randn(2, highways[0].plain.in_channels, 4, 4)
        assert torch.equal(highways(x), x)


@pytest.mark.parametrize(("name", "bias"), [("highway10_w16", -1), ("highway19", -2), ("highway32", -2)])
def test_transform_gates_start_at_the_published_bias_carry_gates_at_its_opposite_and_the_rest_at_zero(name, bias):
    for layer in of(HighwayConv, zoo.create_model(name, carry="free")):
        biases = [conv.bias.unique().tolist() for conv in (layer.plain, layer.transform, layer.carry)]
        assert biases == [[0], [bias], [-bias]]
    model = zoo.create_model(name, gate_bias=-7.0)
    assert all((layer.transform.bias == -7).all() for layer in of(HighwayConv, model))
    assert all(layer.carry is None for layer in of(HighwayConv, model))


@pytest.mark.parametrize(("name", "depth"), [("highway10_w16", 10), ("highway19", 19), ("highway32", 32)])
def test_a_highway_net_has_the_layers_of_its_name_and_3x3_and_1x1_in_turn_in_highway32(name, depth):
    model = on_meta(name)
    assert len(of((nn.Conv2d, nn.Linear), model)) - len(of(HighwayConv, model)) == depth  # a gate is no layer
    sides = [m.plain.kernel_size[0] for m in of(HighwayConv, model.stage2)]
    assert sides == ([1, 3, 1, 3, 1, 3, 1, 3, 1] if name == "highway32" else [3] * len(sides))


@pytest.fixture
def fractal() -> zoo.Backbone:
    """In double precision, with statistics in its batch norms; without dropout, so only paths are dropped."""
    return ready("fractalnet20", widths=(4,) * 5, dropout=(0.0,) * 5, num_classes=3).double()


def trained_but_for_norms(model: zoo.Backbone) -> zoo.Backbone:
    """In training mode, but for batch norm, which would mix the samples."""
    model.train()
    for norm in of(nn.BatchNorm2d, model):
        norm.eval()
    return model


def test_a_fractal_block_of_three_columns_joins_by_means_where_columns_end_together(fractal):
    block, x = fractal.blocks[1], torch.rand(2, 4, 8, 8, dtype=torch.float64)
    a, b, c = block.columns
    assert [len(column) for column in block.columns] == [1, 2, 4]
    middle = (b[0](x) + c[1](c[0](x))) / 2
    ends = [F.max_pool2d(end, 2) for end in (a[0](x), b[1](middle), c[3](c[2](middle)))]
    torch.testing.assert_close(block(x), sum(ends) / 3)
    assert sum(len(block.columns[-1]) for block in fractal.blocks) == 20


def test_a_join_is_the_mean_of_the_inputs_that_are_kept(monkeypatch):
    block = FractalBlock(1, 1, 3, dropout=0.0, drop_path=0.5)
    paths = [torch.full((3, 1, 1, 1), value) for value in (1.0, 2.0, 6.0)]
    assert block.join(paths, None).flatten().tolist() == [3, 3, 3]
    monkeypatch.setattr(block, "kept", lambda inputs, only: torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 1]]).bool())
    torch.testing.assert_close(block.join(paths, torch.tensor([-1, 1, -1])).flatten(), torch.tensor([3.5, 2, 3]))


def test_a_sample_that_drops_globally_takes_one_column_through_the_whole_net(fractal):
    x, heard = torch.rand(24, 3, 32, 32, dtype=torch.float64), []
    for block in fractal.blocks:
        block.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[1]))
    scores = trained_but_for_norms(fractal)(x)
    only = heard[0]
    assert [torch.equal(only, other) for other in heard] == [True] * 5
    assert {0, 1, 2} <= set(only.tolist())
    fractal.eval()
    for column in range(3):
        fractal.column = column
        torch.testing.assert_close(scores[only == column], fractal(x[only == column]))


def test_half_of_the_samples_drop_globally_each_column_as_often_and_the_other_half_locally(fractal):
    def hear(module: nn.Module, inputs: tuple) -> None:
        raise RuntimeError(inputs[1])  # the maps of so many samples would take seconds

    fractal.blocks[0].register_forward_pre_hook(hear)
    with pytest.raises(RuntimeError) as heard:
        fractal.train()(torch.empty(1, 3, 32, 32).expand(12_000, 3, 32, 32))
    (only,) = heard.value.args
    assert [(only == column).sum().item() for column in range(3)] == pytest.approx([2000] * 3, abs=200)
    assert (only < 0).sum().item() == pytest.approx(6000, abs=250)


@pytest.mark.parametrize(("rate", "inputs", "column"), [(0.15, 3, -1), (0.15, 2, -3), (0.6, 2, 0), (0.99, 3, -1)])
def test_local_drop_path_drops_inputs_at_its_rate_but_leaves_at_least_one_to_each_join(rate, inputs, column):
    only = torch.full((20_000,), column)  # column 0 has no end where two columns join: dropped locally there
    kept = FractalBlock(1, 1, 3, 0.0, drop_path=rate).kept(inputs, only)
    assert kept.any(1).all()
    dropped = rate - rate**inputs / inputs  # where all were to be dropped one survives, any with the same chance
    torch.testing.assert_close(1 - kept.float().mean(0), torch.full((inputs,), dropped), rtol=0, atol=0.015)


def test_a_fractalnet_has_the_published_rates_15_percent_of_paths_and_0_to_40_percent_of_maps():
    blocks = on_meta("fractalnet20").blocks
    assert {block.drop_path for block in blocks} == {0.15}
    assert [{m.p for m in of(nn.Dropout, block)} for block in blocks] == [set(), {0.1}, {0.2}, {0.3}, {0.4}]


def test_an_evaluated_fractalnet_uses_all_paths_and_a_training_one_does_at_a_rate_of_zero(fractal):
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    scores = fractal(x)
    assert torch.equal(fractal(x), scores)
    scores.square().sum().backward()
    assert all(p.grad.any() for p in fractal.parameters())
    trained_but_for_norms(fractal)
    assert not torch.allclose(fractal(x), scores)
    fractal.drop_path = 0.0
    torch.testing.assert_close(fractal(x), scores)


def test_column_minus_1_evaluates_the_deepest_column_alone_and_trains_all(fractal):
    maps = x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    for block in fractal.blocks:
        maps = F.max_pool2d(block.columns[2](maps), 2)
    fractal.column = -1
    torch.testing.assert_close(fractal(x), fractal.fc(maps.mean((2, 3))))
    fractal.drop_path = 0.0
    trained = trained_but_for_norms(fractal)(x)
    fractal.column = None
    assert torch.equal(fractal.eval()(x), trained)


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("densenet40_k12", "depth", [41, 4]),  # three equal blocks cannot have it
        ("densenet40_k12", "dropout", [1.0, -0.1]),
        ("densenet121", "layers", [(6, 12, 24), (6, 12, 0, 16)]),
        ("densenet121", "growth_rate", [0]),
        ("highway10_w16", "dropout", [(0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 1.0), (0.1, 0.2, 0.3, -0.1)]),
        ("highway19", "carry", ["open"]),
        ("fractalnet20", "column", [3, -4]),
        ("fractalnet20", "columns", [0]),
        ("fractalnet20", "widths", [(8, 8)]),
        ("fractalnet20", "drop_path", [1.0, -0.1]),
    ],
)
def test_options_that_a_net_cannot_have_are_refused_by_name_and_value(name, option, values):
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"{option}={value!r}")):
            on_meta(name, **{option: value})


@pytest.fixture
def dsn() -> zoo.Backbone:
    return ready("dsn", image_size=8, num_classes=5)


def test_each_companion_is_linear_on_all_that_its_stages_first_convolution_gives_before_its_relu(dsn):
    hidden = []
    for conv in dsn.conv1, dsn.conv2, dsn.conv3:
        conv.register_forward_hook(lambda module, inputs, out: hidden.append(out.clone()))
    _, others = dsn.forward_aux(images(dsn, side=8))
    assert all((h < 0).any() for h in hidden)
    for h, other, linear in zip(hidden, others, dsn.companions, strict=True):
        torch.testing.assert_close(other, h.flatten(1) @ linear.weight.T + linear.bias)


def test_a_companion_teaches_its_layer_and_those_below_it_and_none_above(dsn):
    _, others = dsn.forward_aux(images(dsn, side=8))
    for depth, other in enumerate(others):
        dsn.zero_grad()
        other.square().sum().backward(retain_graph=True)
        heard = [conv.weight.grad is not None for conv in (dsn.conv1, dsn.conv2, dsn.conv3, dsn.classifier)]
        assert heard == [i <= depth for i in range(4)]


def test_companions_do_not_change_the_scores_which_are_the_means_of_the_class_maps(dsn):
    plain = zoo.create_model("dsn", aux_logits=False, image_size=8, num_classes=5).eval()
    state = dsn.state_dict()
    assert {key.split(".")[0] for key in state.keys() - plain.state_dict().keys()} == {"companions"}
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    x = images(dsn, side=8)
    scores = dsn(x)
    assert torch.equal(plain(x), scores)
    assert_near(scores, dsn.classifier(dsn.forward_features(x)).mean((2, 3)), relative=1e-6)
    assert (scores < 0).any()  # not rectified, as in NIN
