"""Hu, Shen, Sun 2017, Squeeze-and-excitation networks, section 3."""

from collections.abc import Callable

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Each channel times a gate that a bottleneck of `squeeze` channels computes from all channels' means.

    activation: δ of equation 3, gate: σ; both make a fresh module. The two layers are 1×1 convolutions, named as in
    torchvision.
    """

    def __init__(
        self,
        channels: int,
        squeeze: int,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        z = self.avgpool(x)  # (N, C, 1, 1)
        s = self.gate(self.fc2(self.activation(self.fc1(z))))
        return s * x
