"""Initial weights as several papers' code draws them, where torch.nn.init has not quite the same."""

import math

import torch
from torch import Tensor, nn


def he_fan_out(module: nn.Module) -> None:
    """He et al. 2015, Delving deep into rectifiers, by the fan-out, as fb.resnet.torch; linear layers' biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def xavier_fan_in_(weight: Tensor) -> None:
    """Caffe's "xavier": uniform, of variance 1 / fan-in. torch's takes the mean of fan-in and fan-out."""
    nn.init.kaiming_uniform_(weight, nonlinearity="linear")


def truncated_normal_(weight: Tensor, std: float) -> None:
    """TensorFlow's: a normal of deviation `std`, cut off at two deviations."""
    within = math.erf(math.sqrt(2))  # the share of a normal that lies within two deviations
    with torch.no_grad():  # the inverse of the distribution: nn.init.trunc_normal_ takes five times as long
        weight.uniform_(-within, within).erfinv_().mul_(std * math.sqrt(2))
