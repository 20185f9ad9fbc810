import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from zoo import optim
from zoo.criteria import CRITERIA, check_serves
from zoo.losses import cross_entropy, margin
from zoo.metrics import Totals, classes_of, confusion

LN2 = math.log(2)
HALVES = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()  # scores whose softmax is easy


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- losses -----------------------------------------------------------------------------------------------------


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


# --- criteria ---------------------------------------------------------------------------------------------------


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


def test_reconstruction_without_a_decoder_is_refused_and_named():
    with torch.device("meta"):
        model = zoo.create_model("capsnet", decoder=False)
    with pytest.raises(ValueError, match=r"criterion\.weight asks for reconstruction.*criterion\.weight=0"):
        check_serves("capsule", model, "capsnet", {"weight": 0.0005})
    check_serves("capsule", model, "capsnet", {"weight": 0})


# --- metrics ----------------------------------------------------------------------------------------------------


def errors(scores: Tensor, y: Tensor, k: int) -> float:
    """Percent of images whose class is not among the k best, by sorting every row."""
    missed = 0
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda c: -row[c])[:k]
        missed += label not in best
    return 100 * missed / len(y)


@pytest.mark.parametrize("num_classes", [2, 4, 5, 6, 20])
def test_totals_over_uneven_batches_are_the_errors_over_all_images_in_percent(num_classes):
    scores, y = torch.randn(61, num_classes), torch.randint(num_classes, (61,))
    losses = F.cross_entropy(scores, y, reduction="none")
    totals = Totals()
    for part in torch.arange(61).split([32, 20, 8, 1]):
        totals.add(losses[part].mean(), {"half": losses[part].mean() / 2}, scores[part], y[part])
    means = totals.read()
    assert totals.images == 61
    assert means["top1_error"] == pytest.approx(errors(scores, y, 1))
    assert means["top5_error"] == pytest.approx(errors(scores, y, 5))
    assert means["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert means["half"] == pytest.approx(losses.mean().item() / 2, rel=1e-5)


def test_the_vectors_of_two_processes_add_up_to_the_totals_of_all_images():
    scores, y, loss = torch.randn(30, 8), torch.randint(8, (30,)), torch.tensor(2.0)
    whole, ranks = Totals(), (Totals(), Totals())
    for target, part in (whole, slice(0, 30)), (ranks[0], slice(0, 19)), (ranks[1], slice(19, 30)):
        target.add(loss, {}, scores[part], y[part])
    summed = ranks[0].tensor(torch.device("cpu")) + ranks[1].tensor(torch.device("cpu"))
    assert ranks[0].read(summed) == pytest.approx(whole.read())


def test_small_losses_do_not_drown_in_a_large_sum():
    totals, scores, y = Totals(), torch.eye(2), torch.tensor([0, 1])
    totals.add(torch.tensor(2.0**24), {}, scores, y)
    for _ in range(4):
        totals.add(torch.tensor(0.5), {}, scores, y)
    assert totals.read()["loss"] == (2.0**24 + 2) / 5


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([2, 0]),
        torch.tensor([[0.1, 0.3, 0.6], [0.9, 0.1, 0.0]]),
        {"label": torch.tensor([2, 0]), "shift": torch.zeros(2, 2)},
    ],
    ids=["classes", "mixed", "dict"],
)
def test_errors_are_counted_against_the_label_however_it_is_given(y):
    assert classes_of(y).tolist() == [2, 0]
    totals = Totals()
    totals.add(torch.tensor(0.0), {}, torch.tensor([[0.0, 1, 2], [0, 1, 2]]), y)
    assert totals.read()["top1_error"] == 50


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns():
    scores = F.one_hot(torch.tensor([0, 1, 1, 0, 2, 1])).float()
    counts = confusion(scores, torch.tensor([0, 0, 0, 1, 2, 1]), 4)
    assert counts.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


# --- optimisers and schedules -----------------------------------------------------------------------------------


class Mixed(nn.Module):
    """One of each kind of parameter, and one that does not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.batch = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.fc = nn.Linear(4, 2)


def names(group: dict, model: nn.Module) -> set[str]:
    held = {id(p) for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in held}


def test_only_matrices_and_filters_decay_and_each_parameter_is_in_one_group():
    model = Mixed()
    decayed, spared = optim.parameter_groups(model)
    assert names(decayed, model) == {"conv.weight", "fc.weight"}
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0
    assert names(spared, model) == {
        *("conv.bias", "fc.bias", "scale"),
        *(f"{norm}.{kind}" for norm in ("batch", "group", "layer") for kind in ("weight", "bias")),
    }
    assert len(decayed["params"]) + len(spared["params"]) == 11


def test_every_parameter_decays_if_norms_shall_too():
    (group,) = optim.parameter_groups(Mixed(), decay_norms=True)
    assert len(group["params"]) == 11
    assert "weight_decay" not in group


def test_a_step_without_gradient_shrinks_the_weights_and_leaves_norms_and_biases():
    model = zoo.create_model("resnet20", n=1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.SGD(optim.parameter_groups(model), lr=0.1, weight_decay=0.5).step()
    for name, parameter in model.named_parameters():
        factor = 1 if "bn" in name or name.endswith("bias") else 0.95
        torch.testing.assert_close(parameter.detach(), factor * before[name], msg=name)


def test_a_model_of_biases_alone_has_no_empty_group():
    (group,) = optim.parameter_groups(nn.BatchNorm1d(3))
    assert group["weight_decay"] == 0


def schedule_of(name: str, **options: object) -> Callable[[], tuple[torch.optim.Optimizer, object]]:
    """Makes the schedule for 5 epochs of 10 steps over two groups with rates 2 and 0.2."""

    def make() -> tuple[torch.optim.Optimizer, object]:
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (2.0, 0.2)]
        optimizer = torch.optim.SGD(groups, momentum=0.9)
        return optimizer, getattr(optim, name)(optimizer, steps_per_epoch=10, epochs=5, **options)

    return make


def rates(optimizer: torch.optim.Optimizer, schedule: object, steps: int) -> list[tuple[float, ...]]:
    """The groups' rates at each of the next steps."""
    seen = []
    for _ in range(steps):
        seen.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize(
    ("name", "options", "factors"),
    [
        ("constant", {}, {0: 1, 25: 1, 49: 1}),
        ("cosine", {"warmup": 0}, {0: 1, 25: 0.5, 40: (1 - math.cos(math.pi / 5)) / 2}),
        ("cosine", {"warmup": 1}, {10: 1, 30: 0.5, 20: (1 + math.cos(math.pi / 4)) / 2, 50: 0}),
        ("cosine", {"warmup": 0, "floor": 0.2}, {0: 1, 25: 0.6, 50: 0.2}),
        ("step", {}, {0: 1, 24: 1, 25: 0.1, 37: 0.1, 38: 0.01, 49: 0.01}),
        ("step", {"milestones": (1, 0.8, 2), "gamma": 0.5}, {9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 39: 0.25, 40: 0.125}),
        ("exponential", {}, {0: 1, 19: 1, 20: 0.94, 39: 0.94, 40: 0.94**2}),
        ("exponential", {"gamma": 0.5, "every": 0.5}, {4: 1, 5: 0.5, 49: 0.5**9}),
    ],
)
def test_a_schedule_multiplies_every_groups_rate_by_its_closed_form(name, options, factors):
    seen = rates(*schedule_of(name, **options)(), steps=51)
    for step, factor in factors.items():
        assert seen[step] == pytest.approx((2 * factor, 0.2 * factor), abs=1e-12), step


def test_the_cosine_never_rises_and_ends_near_its_floor():
    seen = [first for first, _ in rates(*schedule_of("cosine", warmup=0)(), steps=50)]
    assert seen == sorted(seen, reverse=True)
    assert 0 < seen[-1] < 0.01


EVERY = pytest.mark.parametrize("name", ["constant", "cosine", "step", "exponential"])


@EVERY
def test_the_warm_up_rises_linearly_from_above_zero_to_the_full_rate(name):
    seen = [first for first, _ in rates(*schedule_of(name, warmup=1)(), steps=11)]
    rise = seen[0]
    assert rise == pytest.approx(2 / 11)
    assert seen == pytest.approx([rise * (step + 1) for step in range(11)])


@EVERY
@pytest.mark.parametrize("at", [7, 23], ids=["in the warm-up", "after it"])
def test_a_schedule_from_its_saved_state_goes_on_as_if_uninterrupted(name, at):
    make = schedule_of(name, warmup=1)
    whole = rates(*make(), steps=50)
    optimizer, schedule = make()
    rates(optimizer, schedule, steps=at)
    states = optimizer.state_dict(), schedule.state_dict()
    again = make()
    for part, state in zip(again, states, strict=True):
        part.load_state_dict(state)
    assert rates(*again, steps=50 - at) == whole[at:]


def test_a_whole_number_of_epochs_is_reached_at_its_first_step_for_any_number_of_steps():
    for steps in 391, 98, 7, 1563:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = optim.step(optimizer, steps_per_epoch=steps, epochs=164, milestones=(81, 122))
        (factor,) = schedule.lr_lambdas
        assert [factor(81 * steps - 1), factor(81 * steps), factor(122 * steps - 1)] == pytest.approx([1, 0.1, 0.1])
        assert factor(122 * steps) == pytest.approx(0.01)
