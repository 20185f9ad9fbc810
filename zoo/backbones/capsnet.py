"""Sabour, Frosst, Hinton 2017, Dynamic routing between capsules, sections 3 to 5.

Differs: nothing in the network. The authors' later code adds a bias to the digit capsules and scales the primary
capsules' input by 1/32; the paper has neither, nor has this file. W_ij starts as there, truncated normal of 0.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, check_count
from zoo.backbones.register import BACKBONES
from zoo.layers.capsules import CapsuleLayer, PrimaryCapsules


@BACKBONES.variants(capsnet={})
class CapsNet(Backbone):
    """Scores are the lengths of the class capsules. `capsules(x)` gives them whole, `decode(v, keep=y)` draws one.

    `decoder=False` leaves the reconstruction out (6.8 of 8.2 million parameters remain on 28×28).
    """

    taps = ("relu", "primary.conv")
    classifier_name = "digits"
    class_axis = 2
    auxiliary_heads = ("decoder",)
    smallest = 17
    any_size = False
    scores_are = "lengths"
    criterion = "capsule"

    def __init__(
        self,
        *,
        iterations: int = 3,
        decoder: bool = True,
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.check_images(*self.input_size)
        self.iterations, self.reconstructs = iterations, decoder
        self.primaries = 32 * ((image_size - 8 - 9) // 2 + 1) ** 2
        self.num_features = 8 * self.primaries
        self.conv1 = nn.Conv2d(in_chans, 256, 9)
        self.relu = nn.ReLU(inplace=True)
        self.primary = PrimaryCapsules(256, types=32, dim=8, kernel_size=9, stride=2)
        self.digits, self.decoder = self._heads(num_classes)

    def _heads(self, num_classes: int) -> tuple[nn.Module, nn.Module | None]:
        if not num_classes:
            return nn.Identity(), None
        digits = CapsuleLayer(self.primaries, 8, num_classes, 16, self.iterations)
        if not self.reconstructs:
            return digits, None
        pixels = self.in_chans * self.image_size**2
        sizes = (16 * num_classes, 512), (512, 1024), (1024, pixels)
        first, second, last = (nn.Linear(*size) for size in sizes)
        relu1, relu2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        return digits, nn.Sequential(first, relu1, second, relu2, last, nn.Sigmoid())

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh capsule for each class, and with them a fresh decoder, if it was built with one."""
        check_count("num_classes", num_classes, least=0)
        like = next(self.parameters())
        for name, module in zip(("digits", "decoder"), self._heads(num_classes), strict=True):
            setattr(self, name, module and module.to(like.device, like.dtype).train(self.training))
        self.num_classes = num_classes

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 1, 28, 28)
        x = self.relu(self.conv1(x))  # (N, 256, 20, 20)
        return self.primary(x)  # (N, 1152, 8)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        if pre_logits or not self.num_classes:
            return features.flatten(1)
        return self.digits(features).norm(dim=-1)

    def capsules(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) → class capsules v (N, K, 16), whose lengths are the scores."""
        self.check_batch(x)
        return self.digits(self.forward_features(x))

    def decode(self, v: Tensor, *, keep: Tensor) -> Tensor:
        """v: (N, K, 16); keep: classes (N,) or weights (N, K) of the capsules that the decoder may see.

        Returns images (N, C, H, W) in [0, 1]. Raises ValueError if it was built without a decoder.
        """
        if self.decoder is None:
            raise ValueError(
                "this capsnet was built without a decoder: set criterion.weight=0 or backbone.decoder=true"
            )
        mask = F.one_hot(keep, self.num_classes) if keep.ndim == 1 else keep
        seen = torch.einsum("nke,nk->nke", v, mask.to(v.dtype))
        return self.decoder(seen.flatten(1)).view(-1, *self.input_size)
