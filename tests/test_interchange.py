"""Weights of torchvision's and timm's nets load into ours and ours into theirs, and give the same scores."""

import warnings

import pytest
import torch
import torchvision
from names import NAMES, assert_near, over
from torch import Tensor, nn

import zoo

TIMM = {
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "mobilenet_v1": "mobilenetv1_100",
    **{f"efficientnet_lite{i}": f"tf_efficientnet_lite{i}" for i in range(5)},
}
TORCHVISION = set(NAMES) & set(torchvision.models.list_models(torchvision.models))
PEERS = sorted(TORCHVISION | TIMM.keys())


def peer(name: str) -> nn.Module:
    """Theirs, in eval mode, its batch norms with statistics of their own."""
    if name in TIMM:
        model = pytest.importorskip("timm").create_model(TIMM[name])
    elif hasattr(zoo.BACKBONES[name].builder, "forward_aux"):
        model = torchvision.models.get_model(name, init_weights=False, aux_logits=True)
    else:
        model = torchvision.models.get_model(name)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@over(PEERS)
def test_state_dicts_load_strictly_both_ways_and_scores_agree(name):
    theirs, ours = peer(name), zoo.create_model(name).eval()
    ours.load_state_dict(theirs.state_dict())
    side = max(ours.smallest, 64) + 1  # an odd side tells paddings apart
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = theirs(x)
        assert_near(ours(x), expected, relative=1e-5)
        fresh = peer(name)
        fresh.load_state_dict(ours.state_dict())
        assert_near(fresh(x), expected, relative=1e-5)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_scores_agree_in_training(name):
    theirs, ours = peer(name), zoo.create_model(name)
    ours.load_state_dict(theirs.state_dict())
    for model in theirs, ours:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    x = torch.randn(2, *ours.input_size)
    with torch.no_grad():
        scores, others = ours.forward_aux(x)
        expected = theirs(x)
    assert isinstance(expected[0], Tensor)
    assert_near(scores, expected[0], relative=1e-5)
    for other, like in zip(others, list(expected)[:0:-1], strict=True):  # torchvision lists the deepest first
        assert_near(other, like, relative=1e-5)


def test_there_is_no_warning_when_ours_is_built():
    with warnings.catch_warnings(action="error"):
        zoo.create_model("googlenet", stem="small")
