"""What every backbone promises, whatever its family."""

from torch import Tensor, nn


class Backbone(nn.Module):
    """Images (N, in_chans, H, W), normalised as the weights expect → scores (N, num_classes), in every mode.

    A family sets `num_classes` (0: no classifier, `forward` gives pooled features), `num_features` (width of what the
    classifier reads), `in_chans` and `image_size` (the side that it was published for, or is bound to), and writes
    `forward_features` and `forward_head`.
    """

    taps: tuple[str, ...] = ()  # the modules worth looking at, from shallow to deep
    classifier = "fc"  # dotted name of the last linear layer
    smallest = 1  # side of the smallest image that gives a score
    any_size = True  # False: `image_size` is fixed when it is built
    scores_are = "logits"  # or "lengths", of capsules
    criterion = "supervised"  # what criterion=auto stands for

    num_classes: int
    num_features: int
    in_chans: int
    image_size: int

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        return self.in_chans, self.image_size, self.image_size

    def forward(self, x: Tensor) -> Tensor:
        self.check_images(*x.shape[-3:])
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → the last feature maps, not yet pooled."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Feature maps → scores (N, num_classes), or with `pre_logits` what the classifier reads (N, num_features)."""
        raise NotImplementedError

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh classifier for another number of classes; 0 takes it away."""
        old = self.get_submodule(self.classifier)
        like = next(self.parameters())
        new = head(self.num_features, num_classes).to(like.device, like.dtype)
        self.set_submodule(self.classifier, new.train(old.training))
        self.num_classes = num_classes

    def check_images(self, channels: int, height: int, width: int) -> None:
        """Raises ValueError if images of this shape cannot be scored, and says which can."""
        name = type(self).__name__
        if channels != self.in_chans:
            raise ValueError(f"{name} was built for in_chans={self.in_chans}, the images have {channels} channels")
        if not self.any_size and (height, width) != (self.image_size, self.image_size):
            size = f"image_size={self.image_size}"
            raise ValueError(f"{name} was built for {size}, the images are {height}×{width}")
        if min(height, width) < self.smallest:
            raise ValueError(f"{name} needs images of at least {self.smallest}×{self.smallest}, not {height}×{width}")


def head(num_features: int, num_classes: int) -> nn.Module:
    """The last layer: linear, or nothing where num_classes is 0."""
    return nn.Linear(num_features, num_classes) if num_classes else nn.Identity()
