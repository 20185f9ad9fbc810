"""Convolution, batch normalisation, activation: the step that mobile nets are made of."""

from collections.abc import Callable

from torch import nn

from zoo.layers.same_padding import same_conv


def conv_bn_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    padding: str = "symmetric",
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] | None,
) -> nn.Sequential:
    """Padded so that the stride alone changes the side. Children 0, 1 and 2, as in torchvision; None: only 0 and 1.

    padding: "symmetric", or "same" for TensorFlow's, which differs where a stride of 2 meets an even side. norm:
    channels → a fresh module. activation: makes a fresh module; SiLU and h-swish had better not work in place, since
    training would then copy what they overwrite, for their backward.
    """
    if padding == "same":
        conv = same_conv(in_channels, out_channels, kernel_size, stride, groups=groups)
    else:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, norm(out_channels), *([activation()] if activation else []))
