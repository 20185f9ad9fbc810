"""Sizes: what is built has the parameters and multiply-adds of published.yaml, counted without memory or numbers."""

import inspect
from collections.abc import Callable

import pytest
import torch
from names import INFO, NAMES, over, parameters
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo


@over(NAMES)
def test_the_number_of_parameters_is_the_published_one_without_auxiliary_heads(name):
    without = {"aux_logits": False} if "aux_logits" in zoo.BACKBONES[name].options else {}
    with torch.device("meta"):
        assert parameters(zoo.create_model(name, **without)) == INFO[name].published["parameters"]


def without_routing(model: nn.Module, x: Tensor) -> None:
    """Convolutions, votes and decoder: the capsule papers' count leaves the routing's own sums out."""
    u_hat = model.digits.votes(model.forward_features(x))
    model.decoder(u_hat.sum(1).flatten(1))


COUNTED: dict[str, Callable[[nn.Module, Tensor], object]] = {"capsnet": without_routing}  # by family; others: all


@over(NAMES)
def test_the_multiply_adds_of_one_image_are_the_published_ones(name):
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        model = zoo.create_model(name).eval()
        x = torch.empty(1, *model.input_size)
        with counter:
            COUNTED.get(INFO[name].family, nn.Module.__call__)(model, x)
    mult_adds_m = counter.get_total_flops() / 2 / 1e6
    assert mult_adds_m == pytest.approx(INFO[name].published["mult_adds_m"], rel=0.005)


@over(NAMES)
def test_model_info_is_true_of_what_is_built(name):
    info = INFO[name]
    with torch.device("meta"):
        model = zoo.create_model(name)
    assert (info.name, info.input_size, info.num_classes) == (name, model.input_size, model.num_classes)
    assert info.family == inspect.getmodule(type(model)).__name__.rpartition(".")[2]


def test_every_name_has_its_paper_and_every_family_says_how_it_differs():
    for name in NAMES:
        assert any(c.isdigit() for c in INFO[name].paper), f"{name} has no paper in published.yaml"
        module = inspect.getmodule(zoo.BACKBONES[name].builder)
        assert "Differs:" in module.__doc__, name


def test_every_row_of_published_yaml_is_registered_and_every_error_names_a_known_source():
    from importlib.resources import files

    import yaml

    content = yaml.safe_load((files("zoo") / "published.yaml").read_text())
    assert content["models"].keys() == set(NAMES)
    for name, row in content["models"].items():
        assert row.keys() <= {"paper", "parameters", "mult_adds_m", "errors"}, name
        for error in row["errors"]:
            assert error["source"] in content["sources"], (name, error)
            assert {"top1_error", "top5_error", "test_error"} & error.keys(), (name, error)


# Where a paper's own figure is another, and why the net is right all the same.
UNLIKE_THE_PAPER = {
    "fractalnet20": (38.6, "three columns of five blocks of 64 to 512 channels have 33.7 million"),
    "bn_inception": (13.6, "the released net has 11.3 million"),
    "mobilenet_v2_140": (6.9, "the released net has 6.1 million"),
    "googlenet_2014": (6.8, "Table 1 rounds each row down"),
    "inception_v3": (25.0, "the text rounds, and speaks of less than 25 million"),
}


@pytest.mark.parametrize("name", UNLIKE_THE_PAPER)
def test_where_the_papers_own_count_cannot_be_met_it_is_off_by_more_than_rounding(name):
    stated, why = UNLIKE_THE_PAPER[name]
    counted = INFO[name].published["parameters"] / 1e6
    assert abs(counted - stated) > 0.1, f"{name} no longer needs an excuse: {why}"
