"""What is particular to the nets that are chains of layers or of modules with branches: AlexNet to Inception-ResNet."""

import pytest
import torch
import torch.nn.functional as F
from names import assert_near, images, on_meta, parameters, ready, small
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.backbones.googlenet import Auxiliary
from zoo.backbones.inception_resnet import block8
from zoo.backbones.lenet import RBF, PartialConvolution, Squash, Subsampling
from zoo.backbones.prelunet import SpatialPyramidPooling
from zoo.backbones.squeezenet import Fire
from zoo.criteria import CRITERIA
from zoo.layers.class_maps import ClassMaps


def sees(layer: nn.Module, x: Tensor, outputs: slice | int) -> list[int]:
    """The channels of x that some of the layer's output channels depend on."""
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[:, outputs].square().sum(), x)
    return gradient.abs().sum((0, 2, 3)).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("name", "norm", "k", "alpha"),
    [
        *(("alexnet_2012", "norm1", 2, 1e-4), ("alexnet_2012", "norm2", 2, 1e-4), ("vgg11_lrn", "features.2", 2, 1e-4)),
        ("googlenet_2014", "norm1", 1, 1e-4 / 5),  # Caffe divides α by the window
    ],
)
def test_response_normalisation_is_the_papers_formula_over_five_channels_with_beta_0_75(name, norm, k, alpha):
    a = 100 * torch.randn(2, 8, 3, 3, dtype=torch.float64)  # large: k alone would hide the sum
    squares = [sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(7, i + 2) + 1)) for i in range(8)]
    b = torch.stack([a[:, i] / (k + alpha * squares[i]) ** 0.75 for i in range(8)], 1)
    torch.testing.assert_close(on_meta(name).get_submodule(norm)(a), b)


def test_alexnet_2012_starts_from_normal_weights_of_0_01_and_biases_of_one_in_conv2_4_5_fc6_7_else_zero():
    model = zoo.create_model("alexnet_2012", stem="small", num_classes=10)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert len(layers) == 8
    for name, layer in layers.items():
        assert layer.bias.unique().tolist() == [name in ("conv2", "conv4", "conv5", "fc6", "fc7")], name
        assert layer.weight.mean().abs() < 3e-4, name
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02), name
        assert (layer.weight.abs() > 0.02).float().mean().item() == pytest.approx(0.0455, abs=0.006), "not normal"


def test_either_half_of_alexnet_2012_sees_its_own_half_of_the_maps_and_both_meet_in_conv3():
    model = zoo.create_model("alexnet_2012", stem="small", num_classes=2)
    for name in "conv2", "conv3", "conv4", "conv5":
        conv = model.get_submodule(name)
        maps, half = list(range(conv.in_channels)), conv.in_channels // 2
        x, middle = torch.rand(1, len(maps), 5, 5), conv.out_channels // 2
        assert sees(conv, x, slice(0, middle)) == (maps if name == "conv3" else maps[:half]), name
        assert sees(conv, x, slice(middle, None)) == (maps if name == "conv3" else maps[half:]), name


TABLE_I = "012 123 234 345 045 015 0123 1234 2345 0345 0145 0125 0134 1245 0235 012345"


def test_each_map_of_c3_sees_the_maps_of_s2_that_table_i_names():
    c3, x = PartialConvolution(), torch.rand(1, 6, 6, 6)
    assert ["".join(map(str, sees(c3, x, i))) for i in range(16)] == TABLE_I.split()
    assert parameters(c3) == 1516  # the paper's count


def test_rbf_scores_are_minus_squared_distances_to_codes_of_plus_and_minus_one_that_no_seed_and_no_step_changes():
    rbf = RBF(84, 10)
    assert set(rbf.codes.unique().tolist()) == {-1, 1}
    differ = (rbf.codes[:, None] != rbf.codes).sum(2)
    assert torch.equal(rbf(rbf.codes), -4.0 * differ)  # (1 − (−1))² for each sign that differs
    assert (differ + 84 * torch.eye(10) > 20).all(), "two classes have nearly the same code"
    torch.manual_seed(7)
    assert torch.equal(zoo.create_model("lenet5_original").state_dict()["output.codes"], rbf.codes)
    assert not list(rbf.parameters())


def test_subsampling_is_a_coefficient_times_the_sum_of_four_neighbours_plus_a_bias_and_one_is_squashed_to_one():
    layer = Subsampling(2)
    with torch.no_grad():
        layer.coefficient[:] = torch.tensor([0.5, 2]).view(2, 1, 1)
        layer.bias[:] = torch.tensor([1.0, -1]).view(2, 1, 1)
    x = torch.tensor([[1.0, 2], [3, 4]]).expand(1, 2, 2, 2)
    assert layer(x).flatten().tolist() == [6, 19]
    torch.testing.assert_close(Squash()(torch.tensor([1.0, -1, 100])), torch.tensor([1, -1, 1.7159]), rtol=0, atol=1e-4)


def test_vgg11_lrn_normalises_once_after_its_first_convolution_and_vgg11_never():
    kinds = [type(m) for m in on_meta("vgg11_lrn").features]
    assert kinds[:3] == [nn.Conv2d, nn.ReLU, nn.LocalResponseNorm]
    assert kinds.count(nn.LocalResponseNorm) == 1
    assert [type(m) for m in on_meta("vgg11").features] == kinds[:2] + kinds[3:]


def test_the_third_convolutions_of_vgg16_c_are_1x1_and_keep_the_maps_size():
    model = on_meta("vgg16_c")
    kernels = [m.kernel_size[0] for m in model.features if isinstance(m, nn.Conv2d)]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    assert model.forward_features(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 512, 7, 7)


@pytest.mark.parametrize("name", ["nin", "all_cnn_a", "all_cnn_c", "squeezenet1_1"])
def test_scores_are_the_means_of_a_rectified_map_a_class_no_layer_is_dense_and_all_cnn_pools_nowhere(name):
    model, maps = ready(name, num_classes=7), []
    classifier = model.get_submodule(model.classifier_name)
    classifier.register_forward_hook(lambda module, inputs, out: maps.append(out.clone()))
    scores = model(images(model, side=32))
    assert maps[0].shape[:2] == (2, 7)
    assert maps[0].shape[2] > 1
    torch.testing.assert_close(scores, maps[0].clamp(min=0).mean((2, 3)))
    kinds = {type(m) for m in model.modules()}
    assert nn.Linear not in kinds
    assert kinds.isdisjoint({nn.MaxPool2d, nn.AvgPool2d}) == name.startswith("all_cnn")


@pytest.mark.parametrize("name", ["nin", "all_cnn_a", "squeezenet1_1"])
def test_every_rectified_map_starts_above_zero_so_that_each_class_has_a_gradient_also_after_a_reset(name):
    model = zoo.create_model(name, **small(name))
    for classes in model.num_classes, 7:
        model.reset_classifier(classes)
        others = [m.bias for m in model.modules() if isinstance(m, nn.Conv2d) and not isinstance(m, ClassMaps)]
        assert not any(bias.any() for bias in others)
        classifier = model.get_submodule(model.classifier_name)
        assert torch.equal(classifier.bias, torch.ones(classes))
        x = images(model, side=32)
        F.cross_entropy(model(x), torch.arange(len(x))).backward()
        assert (classifier.weight.grad.flatten(1).norm(dim=1) > 0).all()


def fires(model: zoo.Backbone) -> dict[int, Fire]:
    """fire2 to fire9"""
    return dict(enumerate((m for m in model.features if isinstance(m, Fire)), start=2))


@pytest.mark.parametrize(("ratio", "share"), [(0.125, 0.5), (0.75, 0.25), (0.5, 0.99), (1.0, 0.5)])
def test_fire_modules_have_the_filters_of_the_papers_metaparameters(ratio, share):
    modules = fires(on_meta("squeezenet1_0", squeeze_ratio=ratio, share_3x3=share)).values()
    for i, fire in zip(range(8), modules, strict=True):
        expand = 128 + 128 * (i // 2)  # base 128, increment 128, frequency 2
        wide = round(share * expand)
        widths = [layer.out_channels for layer in (fire.squeeze, fire.expand1x1, fire.expand3x3)]
        assert widths == [ratio * expand, expand - wide, wide]


@pytest.mark.parametrize(
    ("option", "value"),
    [("squeeze_ratio", 0.0), ("squeeze_ratio", 1.01), ("share_3x3", -0.5), ("share_3x3", 0.0), ("share_3x3", 1.0)],
)
def test_a_squeeze_ratio_or_a_share_of_3x3_filters_that_leaves_none_is_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}={value}"):
        on_meta("squeezenet1_0", **{option: value})


@pytest.mark.parametrize(("bypass", "odd", "even"), [("simple", "x", "0"), ("complex", "x", "1x1"), ("none", "0", "0")])
def test_bypasses_add_the_input_around_fire_3_5_7_9_and_complex_ones_a_1x1_around_the_others(bypass, odd, even):
    for number, fire in fires(zoo.create_model("squeezenet1_0", stem="small", bypass=bypass)).items():
        x = torch.randn(1, fire.squeeze.in_channels, 3, 3)
        without = torch.cat([conv(fire.squeeze(x).relu()).relu() for conv in (fire.expand1x1, fire.expand3x3)], 1)
        kind = odd if number % 2 else even
        added = F.conv2d(x, fire.bypass.weight, fire.bypass.bias) if kind == "1x1" else {"x": x, "0": 0 * without}[kind]
        assert added.any() == (kind != "0")
        torch.testing.assert_close(fire(x), without + added)


HEADS = {"googlenet_2014": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


@pytest.mark.parametrize("name", HEADS)
def test_auxiliary_heads_teach_the_layers_below_them_and_do_not_change_the_scores(name):
    model = zoo.create_model(name, num_classes=5, **small(name)).eval()
    x = images(model)
    with torch.no_grad():
        before, others = model.forward_aux(x)
        for head in HEADS[name]:
            for parameter in model.get_submodule(head).parameters():
                parameter += 0.1
        after, changed = model.forward_aux(x)
    assert torch.equal(after, before)
    assert torch.equal(model(x), before)
    assert not any(torch.equal(a, b) for a, b in zip(others, changed, strict=True))
    model.forward_aux(x)[1][0].square().sum().backward()
    assert next(model.parameters()).grad.any()
    assert model.fc.weight.grad is None


@pytest.mark.parametrize("norm", ["lrn", "batch"])
def test_maps_that_are_not_14x14_reach_googlenets_auxiliary_heads_by_adaptive_pooling_to_4x4(norm):
    head, seen = Auxiliary(8, 3, norm).eval(), []
    head.conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    small, wide, full = torch.rand(2, 8, 1, 2), torch.rand(2, 8, 14, 20), torch.rand(2, 8, 14, 14)
    assert [head(x).shape for x in (small, wide, full)] == [(2, 3)] * 3
    assert torch.equal(seen[0], F.adaptive_avg_pool2d(small, 4))
    assert torch.equal(seen[1], F.adaptive_avg_pool2d(wide, 4))
    assert torch.equal(seen[2], F.avg_pool2d(full, 5, 3) if norm == "lrn" else F.adaptive_avg_pool2d(full, 4))


@pytest.mark.parametrize(
    ("entry", "kernels", "mult_adds"), [("3x3", [3, 3, 3, 3, 3, 3], 5.9e9), ("7x7", [7, 3, 3, 3], 5.5e9)]
)
def test_inception_v2_gives_its_first_module_table_1s_maps_with_its_7x7_factorised_or_whole(entry, kernels, mult_adds):
    model, seen = on_meta("inception_v2", entry=entry), []
    model.Mixed_5b.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 299, 299, device="meta"))
    assert seen == [(1, 288, 35, 35)]
    assert counter.get_total_flops() / 2 == pytest.approx(mult_adds, rel=0.01)
    assert [m.kernel_size[0] for m in model.modules() if isinstance(m, nn.Conv2d)][: len(kernels)] == kernels
    with pytest.raises(ValueError, match=r"entry='5x5'.*released, 3x3, 7x7"):
        on_meta("inception_v2", entry="5x5")


@pytest.mark.parametrize(
    ("name", "options", "refusal"),
    [
        ("vgg11", dict(depths=(0, 0, 0, 0, 0)), r"depths=\(0, .*five stages, all from 1"),
        ("vgg11", dict(depths=(1, 1, 2, 2)), "five stages"),
        ("vgg16_c", dict(last_kernel=2), "last_kernel=2: .* a kernel of 1 or 3"),
        ("inception_resnet_v1", dict(scale=(0.1,)), r"scale=\(0\.1,\): it is three factors"),
        ("inception_resnet_v2", dict(scale=(0.1,)), r"scale=\(0\.1,\): it is three factors"),
        ("prelunet_a", dict(widths=(8, 8)), r"widths=\(8, 8\), depth=5: three stages"),
        ("prelunet_a", dict(depth=0), "depth=0: three stages, all from 1"),
    ],
)
def test_an_impossible_option_is_refused_with_what_is_possible(name, options, refusal):
    with pytest.raises(ValueError, match=refusal):
        on_meta(name, **options)


def test_the_layers_of_the_inceptions_start_as_their_authors_drew_them():
    v3 = zoo.create_model("inception_v3", stem="small")
    for weight, std in (v3.AuxLogits.conv1.conv.weight, 0.01), (v3.AuxLogits.fc.weight, 0.001), (v3.fc.weight, 0.1):
        assert weight.abs().max() <= 2 * std + 1e-6  # cut off at two deviations
        assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.02)
    first = zoo.create_model("googlenet_2014", stem="small")
    for layer in first.inception3a.branch1.conv, first.aux1.fc1, zoo.create_model("bn_inception").conv2.conv:
        assert layer.weight.std().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.02)  # fan-in alone
        assert (layer.bias == 0.2).all()
    assert not first.fc.bias.any()
    assert not first.aux1.fc2.bias.any()


def shapes(name: str, taps: list[str], side: int) -> list[tuple[int, int]]:
    """Channels and side of the maps at each tap, for an image of this side."""
    model = on_meta(name)
    found = zoo.extract(model, torch.empty(1, 3, side, side, device="meta"), taps)
    return [(found[tap].shape[1], found[tap].shape[2]) for tap in taps]


def test_bn_inception_has_figure_5s_maps_and_its_modules_3c_and_4e_halve_them_by_stride_with_an_unprojected_pooling():
    rows = dict.fromkeys(["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"])  # type → output size, Figure 5
    rows["3a"], rows["3b"] = (256, 28), (320, 28)
    rows["3c"] = rows["4a"] = rows["4b"] = 576, 14
    rows["4c"] = rows["4d"] = 608, 14
    rows["4e"] = 1056, 7
    rows["5a"] = rows["5b"] = 1024, 7
    taps = [f"inceptions.inception{row}" for row in rows]
    assert shapes("bn_inception", taps, 224) == list(rows.values())
    model = on_meta("bn_inception")
    for row in rows:
        module = model.get_submodule(f"inceptions.inception{row}")
        assert (module.branch1x1 is None) == (row in ("3c", "4e"))
        assert isinstance(module.branch_pool, nn.MaxPool2d) == (row in ("3c", "4e"))


def test_inception_v4_has_the_maps_of_figure_9_and_its_stem_those_of_figure_3():
    stem = {"2": (64, 147), "3": (160, 73), "4": (192, 71), "5": (384, 35)}
    body = {"9": (384, 35), "10": (1024, 17), "17": (1024, 17), "18": (1536, 8), "21": (1536, 8)}
    named = {f"features.{i}": size for i, size in (stem | body).items()}
    assert shapes("inception_v4", list(named), 299) == list(named.values())


@pytest.mark.parametrize("rectified", [True, False])
def test_the_scale_of_inception_resnet_multiplies_the_branch_and_at_zero_the_input_comes_through_rectified(rectified):
    whole, tenth, none = (block8(6, (3, 4, 5), scale, rectified).double().eval() for scale in (1.0, 0.1, 0.0))
    tenth.load_state_dict(whole.state_dict())
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    assert torch.equal(none(x), x.relu() if rectified else x)
    x += 50  # the ReLU cuts nothing off
    assert (whole(x) - x).abs().max() > 0.01
    torch.testing.assert_close(tenth(x) - x, 0.1 * (whole(x) - x))


def test_every_prelu_starts_with_a_slope_of_a_quarter_for_each_channel():
    model = zoo.create_model("prelunet_a", widths=(4, 5, 6), depth=2, num_classes=3)
    slopes = [m.weight for m in model.modules() if isinstance(m, nn.PReLU)]
    assert [len(slope) for slope in slopes] == [96, 4, 4, 5, 5, 6, 6, 4096, 4096]
    assert all((slope == 0.25).all() for slope in slopes)
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())


def test_spatial_pyramid_pooling_gives_63_maxima_a_map_whatever_its_size():
    spp = SpatialPyramidPooling()
    assert spp(torch.rand(2, 5, 14, 14)).shape == spp(torch.rand(2, 5, 1, 9)).shape == (2, 5 * (49 + 9 + 4 + 1))
    bins = spp(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
    assert bins[-5:].tolist() == [0, 1, 2, 3, 3]  # the level of 2×2, then the maximum of all
    assert bins[49:58].tolist() == [0, 1, 1, 2, 3, 3, 2, 3, 3]


def test_a_new_stn_cnn_shows_its_cnn_the_image_as_it_is_and_theta_learns():
    model = zoo.create_model("stn_cnn", in_chans=3)
    x, regression = images(model), model.transformer.regression
    warped, theta = model.warp(x)
    assert theta.tolist() == [[[1, 0, 0], [0, 1, 0]]] * 2
    torch.testing.assert_close(warped, x, rtol=0, atol=1e-5)
    CRITERIA.bind("supervised")(zoo.on_pixels(model), x, torch.tensor([1, 0])).loss.backward()
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
            assert ((lengths >= 0) & (lengths < 1)).all()


def test_capsnet_draws_only_what_the_kept_capsule_says(capsnet):
    v, keep = torch.randn(3, 4, 16, requires_grad=True), torch.tensor([2, 0, 3])
    image = capsnet.decode(v, keep=keep)
    assert image.shape == (3, *capsnet.input_size)
    assert ((image > 0) & (image < 1)).all()
    rows, others = torch.arange(3), torch.randn(3, 4, 16)
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
    model = on_meta("capsnet", decoder=False)
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
