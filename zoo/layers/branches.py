"""The fork that every Inception module is: the same maps seen by several branches."""

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Runs branch0, branch1 … on the same maps and concatenates what they give. The names are timm's."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)
