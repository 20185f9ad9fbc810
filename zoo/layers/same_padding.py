"""TensorFlow's SAME padding, which weights that were trained there need."""

import torch.nn.functional as F
from torch import Tensor, nn

PADDINGS = ("symmetric", "same")


class HalvingConv2d(nn.Conv2d):
    """Stride 2 with SAME padding: the side becomes its half, rounded up. An odd row of zeros goes below or right."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = (self.kernel_size[0] - 2 + side % 2 for side in (height, width))
        return super().forward(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))


def same_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, groups: int = 1) -> nn.Conv2d:
    """SAME padding for strides 1 and 2, without bias. With stride 1 it is symmetric, and the convolution's own."""
    if stride == 2:
        return HalvingConv2d(in_channels, out_channels, kernel_size, groups=groups)
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)


def check_padding(padding: str) -> None:
    """ValueError for a word that is neither "symmetric" nor "same"."""
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r} is not known: symmetric is torchvision's, same is TensorFlow's")
