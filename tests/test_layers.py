import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from zoo.layers.capsules import CapsuleLayer, PrimaryCapsules, dynamic_routing, squash
from zoo.layers.conv_bn_act import conv_bn_act
from zoo.layers.spatial_transformer import SpatialTransformer


def test_squash_maps_3_4_to_its_direction_times_25_over_26():
    v = squash(torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert v.tolist() == pytest.approx([25 / 26 * 3 / 5, 25 / 26 * 4 / 5], rel=1e-12)


def test_squash_keeps_the_direction_and_gives_lengths_below_one_that_grow_with_the_input():
    s = torch.randn(6, dtype=torch.float64)
    scaled = torch.outer(torch.tensor([1e-3, 0.1, 1, 10, 1000], dtype=torch.float64), s)
    v = squash(scaled)
    torch.testing.assert_close(F.cosine_similarity(v, s[None]), torch.ones(5, dtype=torch.float64))
    lengths = v.norm(dim=-1)
    assert lengths.tolist() == sorted(lengths.tolist())
    assert lengths[0] > 0
    assert lengths[-1] < 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_squash_has_a_finite_value_and_gradient_at_zero(dtype):
    s = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    v = squash(s)
    v.sum().backward()
    assert torch.equal(v, torch.zeros_like(v))
    assert s.grad.isfinite().all()


def by_hand(u_hat: Tensor, iterations: int) -> list[list[float]]:
    """Procedure 1 for one image in plain Python, line by line as printed. u_hat: (I, J, E)."""
    votes = u_hat.tolist()
    children, parents, dims = range(u_hat.shape[0]), range(u_hat.shape[1]), range(u_hat.shape[2])
    b = [[0.0 for _ in parents] for _ in children]
    v: list[list[float]] = []
    for _ in range(iterations):
        c = []
        for i in children:
            total = sum(math.exp(b[i][j]) for j in parents)
            c.append([math.exp(b[i][j]) / total for j in parents])
        v = []
        for j in parents:
            s = [sum(c[i][j] * votes[i][j][e] for i in children) for e in dims]
            n = math.sqrt(sum(x * x for x in s))
            v.append([n * n / (1 + n * n) * x / n for x in s])
        for i in children:
            for j in parents:
                b[i][j] += sum(votes[i][j][e] * v[j][e] for e in dims)
    return v


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_is_procedure_1_of_the_paper(iterations):
    u_hat = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    v, _ = dynamic_routing(u_hat, iterations)
    expected = torch.tensor([by_hand(image, iterations) for image in u_hat], dtype=torch.float64)
    torch.testing.assert_close(v, expected, rtol=1e-9, atol=1e-9)


def test_routing_shares_each_child_over_the_parents():
    v, c = dynamic_routing(2 * torch.randn(2, 6, 3, 5), iterations=3)
    torch.testing.assert_close(c.sum(-1), torch.ones(2, 6))
    assert (c > 0).all()
    assert (c.sum(1) - 2).abs().max() > 0.1, "shared over the children instead"
    assert (v.norm(dim=-1) < 1).all()


def test_routing_with_one_iteration_averages_the_votes_over_the_parents_uniformly():
    u_hat = torch.randn(2, 6, 4, 5)
    v, c = dynamic_routing(u_hat, iterations=1)
    assert torch.equal(c, torch.full((2, 6, 4), 0.25))
    torch.testing.assert_close(v, squash(u_hat.sum(1) / 4))


def test_routing_turns_children_to_the_parent_that_they_agree_on():
    u_hat = torch.zeros(1, 8, 2, 2)
    u_hat[:, :, 0] = torch.tensor([2.0, 0.0])
    u_hat[:, ::2, 1], u_hat[:, 1::2, 1] = torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0])
    v, c = dynamic_routing(u_hat, iterations=3)
    assert (c[..., 0] > 0.9).all()
    assert v[0, 0].norm() > 0.9
    assert v[0, 1].norm() < 1e-3


def test_routing_of_an_image_does_not_depend_on_its_batch_mates():
    u_hat = torch.randn(4, 6, 3, 5, dtype=torch.float64)
    together = dynamic_routing(u_hat, 3)
    alone = [torch.cat(parts) for parts in zip(*(dynamic_routing(one[None], 3) for one in u_hat), strict=True)]
    torch.testing.assert_close(together, tuple(alone), rtol=1e-12, atol=1e-12)


def test_the_coupling_is_a_constant_to_the_gradient():
    u_hat = torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 5, dtype=torch.float64)
    v, c = dynamic_routing(u_hat, 3)
    assert not c.requires_grad
    fixed = squash(torch.einsum("nij,nije->nje", c, u_hat))
    gradients = (torch.autograd.grad((weights * each).sum(), u_hat)[0] for each in (v, fixed))
    torch.testing.assert_close(*gradients)


def test_each_vote_is_its_own_matrix_times_the_child():
    layer = CapsuleLayer(children=5, child_dim=4, parents=3, parent_dim=2, iterations=3).double()
    u = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = torch.empty(2, 5, 3, 2, dtype=torch.float64)
    for n in range(2):
        for i in range(5):
            for j in range(3):
                w_ij = layer.W[i, :, j, :].detach()  # (D, E): the paper's matrix, transposed
                expected[n, i, j] = w_ij.T @ u[n, i]
    torch.testing.assert_close(layer.votes(u).detach(), expected)
    torch.testing.assert_close(layer(u), dynamic_routing(expected, 3)[0])


def test_a_capsule_layer_without_a_routing_iteration_is_refused():
    with pytest.raises(ValueError, match="iterations=0"):
        CapsuleLayer(2, 2, 2, 2, iterations=0)


def test_a_primary_capsule_is_the_channels_of_its_type_at_one_place():
    layer = PrimaryCapsules(3, types=4, dim=8, kernel_size=3, stride=2)
    x = torch.randn(2, 3, 9, 7)
    u, maps = layer(x), layer.conv(x)  # maps: (2, 32, 4, 3)
    assert u.shape == (2, 4 * 4 * 3, 8)
    for kind, row, column in (0, 0, 0), (2, 1, 2), (3, 3, 1):
        channels = maps[:, 8 * kind : 8 * kind + 8, row, column]
        torch.testing.assert_close(u[:, (kind * 4 + row) * 3 + column], squash(channels))


class Given(nn.Module):
    """A localisation net that always finds the same features."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)

    def forward(self, u: Tensor) -> Tensor:
        return self.features


def transformer(theta: Tensor) -> SpatialTransformer:
    """A transformer that warps image n by theta[n]. theta: (N, 2, 3)."""
    made = SpatialTransformer(Given(theta.flatten(1)), num_features=6).to(theta.dtype)
    with torch.no_grad():
        made.regression.weight.copy_(torch.eye(6))
        made.regression.bias.zero_()
    return made


def test_a_translation_by_a_quarter_of_the_coordinates_shows_the_next_of_five_columns():
    u = torch.arange(15, dtype=torch.float64).view(1, 1, 3, 5)
    v, theta = transformer(torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]], dtype=torch.float64))(u)
    assert theta.tolist() == [[[1, 0, 0.5], [0, 1, 0]]]
    expected = [[1, 2, 3, 4, 0], [6, 7, 8, 9, 0], [11, 12, 13, 14, 0]]
    torch.testing.assert_close(v[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_a_vertical_translation_moves_rows_and_half_a_pixel_mixes_two():
    u = torch.tensor([[0.0, 10.0], [2.0, 20.0], [4.0, 30.0]], dtype=torch.float64).view(1, 1, 3, 2)
    v, _ = transformer(torch.tensor([[[1.0, 0, 0], [0, 1, 0.5]]], dtype=torch.float64))(u)
    expected = [[1, 15], [3, 25], [2, 15]]
    torch.testing.assert_close(v[0, 0], torch.tensor(expected, dtype=torch.float64))


def sampled(u: Tensor, theta: Tensor) -> Tensor:
    """Equations 1 and 5 for one image as a full double sum over source pixels. u: (C, H, W), theta: (2, 3)."""
    height, width = u.shape[1:]
    v = torch.zeros_like(u)
    for row in range(height):
        for column in range(width):
            target = torch.tensor([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1, 1], dtype=u.dtype)
            x, y = ((theta @ target + 1) / 2 * torch.tensor([width - 1, height - 1])).tolist()
            for n in range(height):
                for m in range(width):
                    v[:, row, column] += u[:, n, m] * max(0, 1 - abs(x - m)) * max(0, 1 - abs(y - n))
    return v


def test_the_sampler_is_the_papers_double_sum_over_all_pixels():
    u = torch.randn(3, 2, 5, 7, dtype=torch.float64)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
    theta = identity + 0.4 * torch.randn(3, 2, 3, dtype=torch.float64)
    v, told = transformer(theta)(u)
    torch.testing.assert_close(told, theta)
    expected = torch.stack([sampled(*each) for each in zip(u, theta, strict=True)])
    torch.testing.assert_close(v, expected)


@pytest.mark.parametrize("scale", [0.0, 1e4], ids=["singular", "far outside"])
def test_a_degenerate_theta_gives_finite_images_and_gradients(scale):
    u = torch.randn(1, 1, 5, 5, requires_grad=True)
    theta = scale * torch.tensor([[[1.0, 0, 1], [0, 1, 1]]])
    warp = transformer(theta)
    v, _ = warp(u)
    v.square().sum().backward()
    assert v.isfinite().all()
    assert u.grad.isfinite().all()
    assert warp.regression.bias.grad.isfinite().all()


def test_a_new_transformer_is_the_identity_whatever_its_localisation_says():
    warp = SpatialTransformer(Given(torch.randn(2, 9)), num_features=9)
    u = torch.randn(2, 3, 6, 4)
    v, theta = warp(u)
    assert theta.tolist() == [[[1, 0, 0], [0, 1, 0]]] * 2
    torch.testing.assert_close(v, u, rtol=0, atol=1e-5)


def same(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """TensorFlow's definition: ceil(side / stride) positions, the zeros they lack shared, an odd one at the end."""
    kernel, pads = weight.shape[-1], []
    for side in x.shape[:1:-1]:  # F.pad begins with the last dimension
        lacking = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        pads += [lacking // 2, lacking - lacking // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("sides", [(8, 8), (9, 7), (6, 9), (1, 2)], ids=str)
def test_same_padding_is_tensorflows(kernel, stride, sides):
    step = conv_bn_act(2, 3, kernel, stride, padding="same", norm=lambda channels: nn.Identity(), activation=None)
    x = torch.randn(2, 2, *sides, dtype=torch.float64)
    torch.testing.assert_close(step.double()(x), same(x, step[0].weight, stride))


def test_same_padding_differs_from_symmetric_only_where_a_stride_of_2_meets_an_even_side():
    for kernel, stride, side in (3, 1, 8), (5, 1, 8), (3, 2, 9), (5, 2, 9), (3, 2, 8), (5, 2, 8):
        steps = [
            conv_bn_act(1, 1, kernel, stride, padding=padding, norm=lambda channels: nn.Identity(), activation=None)
            for padding in ("symmetric", "same")
        ]
        steps[1].load_state_dict(steps[0].state_dict())
        x = torch.randn(1, 1, side, side)
        y, other = (step(x) for step in steps)
        assert y.shape == other.shape
        assert torch.allclose(y, other, atol=1e-6) == (stride == 1 or side % 2 == 1)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_v2_s"])
def test_a_padding_of_another_name_is_refused(name):
    with pytest.raises(ValueError, match="padding='valid' is not known: symmetric is torchvision's, same"):
        zoo.create_model(name, padding="valid")


def test_the_widths_whose_only_weights_are_tensorflows_have_same_padding():
    for name in zoo.list_models("mobilenet_v3_*") + zoo.list_models("efficientnet_v2_*"):
        tensorflows = name.endswith(("_075", "_minimal"))
        assert zoo.BACKBONES[name].options["padding"] == ("same" if tensorflows else "symmetric"), name
