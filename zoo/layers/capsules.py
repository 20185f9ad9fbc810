"""Sabour, Frosst, Hinton 2017, Dynamic routing between capsules, section 2."""

import torch
from torch import Tensor, nn


def squash(s: Tensor, eps: float = 1e-12) -> Tensor:
    """Equation 1 over the last dimension: keeps the direction, maps the length n to n²/(1 + n²).

    `eps` keeps value and gradient finite at s = 0.
    """
    wide = s.to(torch.promote_types(s.dtype, torch.float32))  # eps is nothing in half precision
    n2 = wide.square().sum(-1, keepdim=True)
    return (wide * (n2 / (1 + n2) * torch.rsqrt(n2 + eps))).to(s.dtype)


def dynamic_routing(u_hat: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Procedure 1. u_hat: (N, I, J, E) votes of child i for parent j. Returns v (N, J, E) and c (N, I, J)."""
    with torch.no_grad():  # the coupling is a constant to the gradient: all but the last turn
        b = u_hat.new_zeros(u_hat.shape[:3])
        for _ in range(iterations - 1):
            v = squash(torch.einsum("nij,nije->nje", b.softmax(2), u_hat))
            b = b + torch.einsum("nije,nje->nij", u_hat, v)
    c = b.softmax(2)  # each child shares itself over the parents
    return squash(torch.einsum("nij,nije->nje", c, u_hat)), c


class PrimaryCapsules(nn.Module):
    """A convolution whose channels are read as `types` capsules of `dim` numbers at each place."""

    def __init__(self, in_channels: int, types: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, types * dim, kernel_size, stride)
        self.types, self.dim = types, dim

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x).unflatten(1, (self.types, self.dim))  # (N, types, dim, h, w)
        return squash(u.permute(0, 1, 3, 4, 2).flatten(1, 3))  # (N, types·h·w, dim)


class CapsuleLayer(nn.Module):
    """`children` capsules of `child_dim` vote for `parents` capsules of `parent_dim` by matrices W_ij of their own."""

    def __init__(self, children: int, child_dim: int, parents: int, parent_dim: int, iterations: int) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: routing takes at least one")
        self.iterations = iterations
        self.W = nn.Parameter(torch.empty(children, child_dim, parents, parent_dim))
        nn.init.trunc_normal_(self.W, std=0.1, a=-0.2, b=0.2)

    def votes(self, u: Tensor) -> Tensor:
        """u: (N, I, D) → û (N, I, J, E), one matrix product for each child: W is never copied over the batch."""
        u_hat = torch.bmm(u.transpose(0, 1), self.W.flatten(2))  # (I, N, J·E)
        return u_hat.transpose(0, 1).unflatten(2, self.W.shape[2:])

    def forward(self, u: Tensor) -> Tensor:
        v, _ = dynamic_routing(self.votes(u), self.iterations)
        return v  # (N, J, E)
