"""Jaderberg, Simonyan, Zisserman, Kavukcuoglu 2015, Spatial transformer networks, section 3."""

import torch
from torch import Tensor, nn

from zoo.layers.grids import affine_grid, sample


class SpatialTransformer(nn.Module):
    """Localisation net → affine θ → grid → bilinear sampler, for images or feature maps of any number of channels.

    `localisation` maps (N, C, H, W) to (N, num_features); the regression layer behind it starts as the identity
    transform (zero weights). Coordinates run from −1 to 1 between the centres of the outermost pixels
    (align_corners), and what lies outside the image is zero.
    """

    def __init__(self, localisation: nn.Module, num_features: int) -> None:
        super().__init__()
        self.localisation = localisation
        self.regression = nn.Linear(num_features, 6)
        nn.init.zeros_(self.regression.weight)
        with torch.no_grad():
            self.regression.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """u: (N, C, H, W). Returns v of the same shape, and θ (N, 2, 3) that maps target to source (equation 1)."""
        theta = self.regression(self.localisation(u)).view(-1, 2, 3)
        return sample(u, affine_grid(theta, *u.shape[2:])), theta
