import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo import losses
from zoo.criteria import CRITERIA, check_serves
from zoo.losses import margin


@pytest.fixture
def capsnet() -> zoo.OnPixels:
    """A small one behind a normalisation, whose decoder draws 0.5 everywhere."""
    model = zoo.create_model("capsnet", num_classes=3, image_size=17)
    nn.init.zeros_(model.decoder[-2].weight)
    nn.init.zeros_(model.decoder[-2].bias)
    return zoo.on_pixels(model, mean=0.3, std=0.2)


@pytest.mark.parametrize("options", [{}, {"weight": 0.01}, {"weight": 0.01, "m_pos": 0.8, "m_neg": 0.2, "lambda_": 1}])
def test_the_capsule_criterion_adds_the_error_summed_over_pixels_of_the_image_in_0_1(capsnet, options):
    x = torch.stack([torch.zeros(1, 17, 17), torch.full((1, 17, 17), 0.75)])
    y = torch.tensor([0, 2])
    outcome = CRITERIA.bind("capsule", **options)(capsnet, x, y)
    lengths = capsnet(x)
    of_margin = {key: value for key, value in options.items() if key != "weight"}
    error = 17 * 17 * (0.5**2 + 0.25**2) / 2
    expected = margin(lengths, y, **of_margin).item() + options.get("weight", 0.0005) * error
    assert outcome.loss.item() == pytest.approx(expected, rel=1e-5)
    assert outcome.parts["reconstruction"].item() == pytest.approx(error, rel=1e-5)
    assert outcome.parts["margin"].item() == pytest.approx(margin(lengths, y, **of_margin).item(), rel=1e-5)
    torch.testing.assert_close(outcome.scores, lengths)


def test_the_decoder_is_asked_for_the_true_class_whatever_is_longest(capsnet, monkeypatch):
    kept = []
    draw = capsnet.backbone.decode
    monkeypatch.setattr(capsnet.backbone, "decode", lambda v, *, keep: kept.append(keep) or draw(v, keep=keep))
    x = torch.rand(2, 1, 17, 17)
    shortest = capsnet(x).argmin(1)
    CRITERIA.bind("capsule")(capsnet, x, shortest)
    assert [keep.tolist() for keep in kept] == [shortest.tolist()]


def test_a_reconstruction_weight_of_zero_leaves_the_decoder_out(capsnet):
    x, y = torch.rand(2, 1, 17, 17), torch.tensor([0, 2])
    outcome = CRITERIA.bind("capsule", weight=0)(capsnet, x, y)
    outcome.loss.backward()
    assert outcome.parts.keys() == {"margin"}
    assert outcome.loss.item() == pytest.approx(margin(capsnet(x), y).item())
    assert all(p.grad is None for p in capsnet.backbone.decoder.parameters())
    assert all(p.grad is not None for p in capsnet.backbone.digits.parameters())


def test_the_parts_that_a_criterion_declares_are_the_parts_that_it_gives(capsnet):
    outcome = CRITERIA.bind("capsule")(capsnet, torch.rand(2, 1, 17, 17), torch.tensor([0, 2]))
    assert CRITERIA["capsule"].facts["parts"] == tuple(outcome.parts)


def test_the_supervised_criterion_smooths_towards_its_prior_what_the_model_scores():
    model = zoo.on_pixels(zoo.create_model("lenet5", num_classes=3), mean=0.4, std=0.3)
    x, y = torch.rand(2, 1, 28, 28), torch.tensor([2, 0])
    outcome = CRITERIA.bind("supervised", eps=0.2, prior=[0.5, 0.5, 0.0])(model, x, y)
    scores = model.backbone((x - 0.4) / 0.3)
    torch.testing.assert_close(outcome.scores, scores)
    smoothed = torch.tensor([[0.1, 0.1, 0.8], [0.9, 0.1, 0.0]])
    torch.testing.assert_close(outcome.loss, F.cross_entropy(scores, smoothed))


class TwoHeads(zoo.Backbone):
    """Scores are given, and so are two heads'."""

    in_chans, num_classes, aux_logits = 1, 2, True

    def forward_aux(self, x):
        scores = torch.log(torch.tensor([[0.5, 0.5], [0.8, 0.2]]))
        return scores, [torch.log(torch.tensor([[0.1, 0.9]] * 2)), torch.log(torch.tensor([[0.4, 0.6]] * 2))]


def test_the_auxiliary_criterion_adds_its_weight_times_each_heads_cross_entropy_and_scores_by_the_main_head():
    model = zoo.on_pixels(TwoHeads(), mean=0.0, std=1.0)
    outcome = CRITERIA.bind("auxiliary", weight=0.4)(model, torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))
    main = -(math.log(0.5) + math.log(0.2)) / 2
    side = -(math.log(0.1) + math.log(0.9)) / 2 - (math.log(0.4) + math.log(0.6)) / 2
    assert outcome.loss.item() == pytest.approx(main + 0.4 * side)
    assert outcome.parts["main"].item() == pytest.approx(main)
    assert outcome.parts["auxiliary"].item() == pytest.approx(side)
    torch.testing.assert_close(outcome.scores.exp()[1], torch.tensor([0.8, 0.2]))
    assert CRITERIA["auxiliary"].facts["parts"] == tuple(outcome.parts)


def test_the_auxiliary_criterion_smooths_the_labels_of_every_head():
    model = zoo.on_pixels(TwoHeads(), mean=0.0, std=1.0)
    outcome = CRITERIA.bind("auxiliary", weight=1, eps=0.2)(model, torch.zeros(2, 1, 4, 4), torch.tensor([0, 0]))
    side = -sum(0.9 * math.log(p) + 0.1 * math.log(1 - p) for p in (0.1, 0.4))
    assert outcome.parts["auxiliary"].item() == pytest.approx(side)


def test_the_auxiliary_criterion_is_refused_where_the_heads_were_left_out():
    with torch.device("meta"):
        model = zoo.create_model("googlenet", aux_logits=False)
    with pytest.raises(ValueError, match=r"backbone\.aux_logits=false; take supervised"):
        check_serves("auxiliary", model, "googlenet", {})


@pytest.mark.parametrize(
    ("criterion", "reads", "backbone", "scores", "fitting"),
    [
        ("capsule", "lengths", "resnet20", "logits", "supervised"),
        ("supervised", "logits", "capsnet", "lengths", "capsule"),
    ],
)
def test_a_criterion_that_cannot_serve_is_refused_with_those_that_can(criterion, reads, backbone, scores, fitting):
    with torch.device("meta"):
        model = zoo.create_model(backbone)
    why = f"criterion {criterion} cannot serve backbone {backbone}: it reads {reads}, the scores are {scores}"
    with pytest.raises(ValueError, match=f"{why}; criteria that can: .*{fitting}"):
        check_serves(criterion, model, backbone, {})


class LengthsAlone(zoo.Backbone):
    scores_are = "lengths"
    num_classes = 3


def test_a_criterion_is_refused_where_the_backbone_lacks_what_it_needs():
    with pytest.raises(ValueError, match="has no capsules and no decode"):
        check_serves("capsule", LengthsAlone(), "mine", {})


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.5, 0.4, 0.0], [1.5, -0.5, 0.0]], ids=["few", "sum", "negative"])
def test_a_prior_that_is_no_distribution_over_the_classes_is_refused(prior):
    model = zoo.create_model("lenet5", num_classes=3)
    with pytest.raises(ValueError, match=r"criterion\.prior must be 3 probabilities that sum to one"):
        check_serves("supervised", model, "lenet5", {"eps": 0.1, "prior": prior})
    check_serves("supervised", model, "lenet5", {"eps": 0.1, "prior": [0.2, 0.3, 0.5]})


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, -1.0, 1.0], "balance"])
def test_class_weights_that_are_not_one_for_each_class_are_refused(weights):
    model = zoo.create_model("lenet5", num_classes=3)
    with pytest.raises(ValueError, match=r'criterion\.class_weights must be "balanced" or 3 numbers from 0, not'):
        check_serves("supervised", model, "lenet5", {"class_weights": weights})
    check_serves("supervised", model, "lenet5", {"class_weights": [0.0, 1.0, 2.0]})


def test_reconstruction_without_a_decoder_is_refused_and_named():
    with torch.device("meta"):
        model = zoo.create_model("capsnet", decoder=False)
    with pytest.raises(ValueError, match=r"criterion\.weight asks for reconstruction.*criterion\.weight=0"):
        check_serves("capsule", model, "capsnet", {"weight": 0.0005})
    check_serves("capsule", model, "capsnet", {"weight": 0})


# --- several digits in an image ----------------------------------------------------------------------------------


def two_digits() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    digits = torch.tensor([[0, 2], [1, 0]])
    images = torch.rand(2, 2, 1, 17, 17)
    label = torch.zeros(2, 3).scatter(1, digits, 1.0)
    return images.sum(1).clamp_max(1), {"label": label, "digits": digits, "images": images}


def test_of_two_digits_each_is_rebuilt_by_itself_from_its_own_capsule():
    model = zoo.on_pixels(zoo.create_model("capsnet", num_classes=3, image_size=17), mean=0.0, std=1.0).eval()
    x, y = two_digits()
    outcome = CRITERIA.bind("capsule", weight=0.5)(model, x, y)
    v = model.backbone.capsules(x)
    error = sum(
        (model.backbone.decode(v, keep=y["digits"][:, i]) - y["images"][:, i]).square().sum() / 2 for i in (0, 1)
    )
    torch.testing.assert_close(outcome.parts["reconstruction"], error)
    torch.testing.assert_close(outcome.loss, losses.margin(outcome.scores, y["label"]) + 0.5 * error)


def test_a_criterion_that_reads_labels_alone_is_refused_where_more_is_known():
    model = zoo.create_model("lenet5")
    with pytest.raises(ValueError, match=r"more than a label is known \(digits, images\); criteria that can: capsule"):
        check_serves("supervised", model, "lenet5", {}, ("label", "digits", "images"))
