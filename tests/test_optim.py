import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import zoo
from zoo import optim


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


def test_depthwise_filters_can_be_spared_and_filters_of_several_channels_are_not():
    model = zoo.create_model("mobilenet_v1_025")
    decayed, spared = optim.parameter_groups(model, decay_depthwise=False)
    depthwise = {f"{name}.weight" for name, m in model.named_modules() if name.endswith("conv_dw")}
    assert len(depthwise) == 13
    assert depthwise <= names(spared, model)
    assert {"conv_stem.weight", "classifier.weight", "blocks.0.0.conv_pw.weight"} <= names(decayed, model)
    assert all(name in depthwise or model.get_parameter(name).ndim == 1 for name in names(spared, model))


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
        ("polynomial", {}, {0: 1, 25: 0.5, 50: 0}),
        ("polynomial", {"power": 2}, {0: 1, 25: 0.25, 40: 0.04}),
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


EVERY = pytest.mark.parametrize("name", ["constant", "cosine", "step", "exponential", "polynomial"])


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
