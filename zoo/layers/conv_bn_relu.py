"""The convolution that every Inception after batch norm is made of."""

from torch import Tensor, nn


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm with ε = 0.001, ReLU. Parameter names are torchvision's and timm's."""

    def __init__(
        self,
        in_planes: int,
        planes: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(planes, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))
