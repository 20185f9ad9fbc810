import math

import pytest
import torch
import torch.nn.functional as F

from zoo.losses import cross_entropy, margin

LN2 = math.log(2)
HALVES = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()  # scores whose softmax is easy


@pytest.mark.parametrize(
    ("label", "eps", "prior", "expected"),
    [
        (0, 0.0, None, LN2),
        (1, 0.0, None, 2 * LN2),
        (0, 0.3, None, 0.8 * LN2 + 0.2 * 2 * LN2),
        (0, 0.1, (0.2, 0.3, 0.5), 0.92 * LN2 + 0.08 * 2 * LN2),
        (2, 0.5, (1.0, 0.0, 0.0), 0.5 * LN2 + 0.5 * 2 * LN2),
    ],
)
def test_label_smoothing_mixes_the_label_with_the_prior(label, eps, prior, expected):
    u = None if prior is None else torch.tensor(prior, dtype=torch.float64)
    assert cross_entropy(HALVES, torch.tensor([label]), eps=eps, prior=u).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.9])
def test_smoothing_to_the_uniform_prior_is_torchs_label_smoothing_in_value_and_gradient(eps):
    scores, y = torch.randn(5, 7, dtype=torch.float64, requires_grad=True), torch.tensor([0, 6, 3, 3, 1])
    ours, torchs = cross_entropy(scores, y, eps=eps), F.cross_entropy(scores, y, label_smoothing=eps)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, torchs)))


def test_the_gradient_of_the_smoothed_loss_is_softmax_minus_the_smoothed_label():
    scores = HALVES.clone().requires_grad_()
    cross_entropy(scores, torch.tensor([0]), eps=0.1, prior=torch.tensor([0.2, 0.3, 0.5])).backward()
    assert scores.grad[0].tolist() == pytest.approx([0.5 - 0.92, 0.25 - 0.03, 0.25 - 0.05])


def test_an_image_counts_by_the_weight_of_its_class_and_a_mixed_one_by_the_mixture():
    scores, weights = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 1])
    each = torch.stack([cross_entropy(scores[i : i + 1], y[i : i + 1], eps=0.1) for i in range(4)])
    expected = (each * torch.tensor([0.5, 2.0, 0.0, 2.0])).mean()
    torch.testing.assert_close(cross_entropy(scores, y, eps=0.1, weights=weights), expected)
    half = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(scores[:1], half, weights=weights), 1.25 * cross_entropy(scores[:1], half))


LENGTHS = torch.tensor([[0.7, 0.3, 0.05], [0.95, 0.1, 0.5]], dtype=torch.float64)


def test_the_margin_loss_of_two_images_by_hand():
    first = 0.2**2 + 0.5 * 0.2**2  # the class is 0.2 too short, one other 0.2 too long
    second = 0.4**2 + 0.5 * 0.85**2
    assert margin(LENGTHS, torch.tensor([0, 2])).item() == pytest.approx((first + second) / 2, rel=1e-12)


def test_the_margins_and_the_weight_of_absent_classes_can_be_set():
    loss = margin(LENGTHS[:1], torch.tensor([0]), m_pos=0.8, m_neg=0.2, lambda_=2.0)
    assert loss.item() == pytest.approx(0.1**2 + 2 * 0.1**2, rel=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_a_label_given_as_probabilities_is_the_mean_over_its_classes(loss):
    scores = torch.rand(1, 3, dtype=torch.float64)
    mixed = loss(scores, torch.tensor([[0.25, 0.0, 0.75]], dtype=torch.float64))
    parts = 0.25 * loss(scores, torch.tensor([0])) + 0.75 * loss(scores, torch.tensor([2]))
    torch.testing.assert_close(mixed, parts)
