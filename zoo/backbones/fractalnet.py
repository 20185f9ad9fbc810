"""Larsson, Maire, Shakhnarovich 2017, FractalNet: ultra-deep neural networks without residuals, sections 2, 3 and 4.

Differs: convolutions have no bias and batch norm has scale and shift, where the authors' Caffe files have it the other
way round; 33.7 million parameters either way, not the 38.6 million that later papers print for this net. Whether a
sample drops paths locally or globally is drawn for each sample, not for each batch, so that the masks are tensors and
the net is one graph; dropped paths are computed too, and batch norm sees them. Images larger than 32×32 leave more
than one position, which are averaged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.backbones.backbone import Backbone, linear_classifier
from zoo.backbones.register import BACKBONES
from zoo.layers.initial import xavier_fan_in_


class Layer(nn.Module):
    """Convolution, dropout, batch norm, ReLU: the order of the authors' files."""

    def __init__(self, in_planes: int, planes: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_planes, planes, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.bn = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.dropout(self.conv(x))))


class FractalBlock(nn.Module):
    """f_C of section 2, unrolled: column c has 2^c layers, and columns that end at the same depth are joined there.

    Pooling is exchanged with the last join, as in the authors' files.
    """

    def __init__(self, in_planes: int, planes: int, columns: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.columns = nn.ModuleList(
            nn.Sequential(*(Layer(planes if i else in_planes, planes, dropout) for i in range(2**column)))
            for column in range(columns)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor, only: Tensor | None = None, alone: int | None = None) -> Tensor:
        """only: (N,) the column that a sample takes through every join, or less than 0 where it drops locally.

        None: nothing is dropped. alone: the one column to compute, for all samples.
        """
        if alone is not None:
            return self.pool(self.columns[alone](x))
        reads = [x] * len(self.columns)  # what the next layer of each column reads
        rows = len(self.columns[-1])
        for row in range(1, rows + 1):
            paths = []
            for column, read in zip(self.columns, reads, strict=True):
                done, midway = divmod(row * len(column), rows)  # layers of this column that end by this row
                if not midway:
                    paths.append(column[done - 1](read))
            if row == rows:
                paths = [self.pool(path) for path in paths]
            reads[-len(paths) :] = [self.join(paths, only)] * len(paths)  # deeper columns end wherever one ends
        return reads[-1]

    def join(self, paths: Sequence[Tensor], only: Tensor | None) -> Tensor:
        """The mean of those maps that are not dropped; the paths are those of the deepest columns."""
        if len(paths) == 1:
            return paths[0]
        if only is None:
            return torch.stack(paths).mean(0)
        kept = self.kept(len(paths), only).to(paths[0].dtype)
        share = (kept / kept.sum(1, keepdim=True))[..., None, None, None]
        return sum(share[:, i] * path for i, path in enumerate(paths))

    def kept(self, inputs: int, only: Tensor) -> Tensor:
        """(N, inputs) which maps each sample joins. Section 3."""
        u = torch.rand(len(only), inputs, device=only.device)
        local = (u >= self.drop_path) | (u == u.amax(1, keepdim=True))  # one survives, any with the same chance
        columns = torch.arange(len(self.columns) - inputs, len(self.columns), device=only.device)
        chosen = only[:, None] == columns
        return torch.where(chosen.any(1, keepdim=True), chosen, local)


@BACKBONES.variants(fractalnet20={})
class FractalNet(Backbone):
    """columns: of each fractal block. widths, dropout: channels and dropout of each block.

    drop_path: the chance of an input to be dropped from a join, for the half of the samples that drops locally; the
    other half takes one column through the whole net. 0: no sample drops anything.
    column: the one to evaluate alone, of a net trained with all; −1 is the deepest, None joins them.
    """

    taps = ("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")
    smallest = 32
    image_size = 32

    def __init__(
        self,
        *,
        columns: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        dropout: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
        drop_path: float = 0.15,
        column: int | None = None,
        num_classes: int = 10,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != 5 or len(dropout) != 5 or not all(0 <= rate < 1 for rate in (*dropout, drop_path)):
            raise ValueError(f"widths={widths}, dropout={dropout}, drop_path={drop_path}: five blocks, rates in [0, 1)")
        if columns < 1:
            raise ValueError(f"columns={columns}: a block has at least one")
        if column is not None and not -columns <= column < columns:
            raise ValueError(f"column={column} is not one of columns={columns}")
        self.num_classes, self.in_chans, self.num_features = num_classes, in_chans, widths[-1]
        self.drop_path, self.column = drop_path, column
        before = (in_chans, *widths[:-1])
        self.blocks = nn.ModuleList(
            FractalBlock(*planes, columns, rate, drop_path)
            for *planes, rate in zip(before, widths, dropout, strict=True)
        )
        self.fc = linear_classifier(widths[-1], num_classes)
        self.apply(self.init)

    @staticmethod
    def init(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            xavier_fan_in_(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (N, C, 32, 32)
        only, alone = None, None if self.training else self.column
        if self.training and self.drop_path:
            columns = len(self.blocks[0].columns)
            only = torch.randint(-columns, columns, (len(x),), device=x.device)  # less than 0: one half of the samples
        for block in self.blocks:
            x = block(x, only, alone)
        return x  # (N, 512, 1, 1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)
