"""Names in others' files of weights → ours, for nets whose weights others keep under names of their own.

The inverted-residual nets are chains: stem, blocks, head, classifier. A layout names the layers in the order in which
they compute, and ours are walked in that order. A file's own order means nothing: safetensors keeps none.

Names tell neither padding nor batch norm's eps: the model's options must be those that the weights were trained with.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from zoo.backbones.backbone import Backbone
from zoo.backbones.densenet import DenseNet
from zoo.backbones.efficientnet import EfficientNet
from zoo.backbones.efficientnet_lite import EfficientNetLite
from zoo.backbones.efficientnet_v2 import EfficientNetV2
from zoo.backbones.mobilenet_v2 import MobileNetV2
from zoo.backbones.mobilenet_v3 import MobileNetV3


@dataclass(frozen=True)
class Layout:
    """How someone names the layers of such a chain.

    block: a pattern of what precedes a layer's name in its block, with groups for the block's numbers. kinds: the
    layers of each kind of block, in order; a block of a kind may lack its squeeze-and-excitation, `optional`.
    """

    stem: tuple[str, ...]
    block: str
    kinds: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    head: tuple[str, ...]
    classifier: str

    def layers(self, found: set[str]) -> list[str] | None:
        """A file's layers but the classifier, in the order in which they compute; None if it is not of this layout."""
        blocks: dict[tuple[int, ...], dict[str, str]] = {}
        outside = set()
        for layer in found - {self.classifier}:
            if match := re.fullmatch(rf"{self.block}\.(.+)", layer):
                *numbers, inner = match.groups()
                blocks.setdefault(tuple(map(int, numbers)), {})[inner] = layer
            else:
                outside.add(layer)
        head = tuple(layer for layer in self.head if layer in outside)
        if not blocks or outside != {*self.stem, *head}:
            return None
        inside: list[str] = []
        for _, named in sorted(blocks.items()):
            kinds = ([layer for layer in kind if layer in named or layer not in self.optional] for kind in self.kinds)
            kind = next((kind for kind in kinds if set(kind) == named.keys()), None)
            if kind is None:
                return None
            inside += [named[layer] for layer in kind]
        return [*self.stem, *inside, *head]


TIMM = Layout(  # timm's EfficientNet and MobileNetV3 classes
    stem=("conv_stem", "bn1"),
    block=r"blocks\.(\d+)\.(\d+)",
    kinds=(
        ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"),
        ("conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"),
        ("conv_exp", "bn1", "conv_pwl", "bn2"),
        ("conv", "bn1"),
    ),
    optional=("se.conv_reduce", "se.conv_expand"),
    head=("conv_head", "bn2"),  # MobileNetV3's has no batch norm
    classifier="classifier",
)
LUKEMELAS = Layout(  # lukemelas/EfficientNet-PyTorch, and efficientnet_lite_pytorch, which is made of it
    stem=("_conv_stem", "_bn0"),
    block=r"_blocks\.(\d+)",
    kinds=(
        ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
        ("_depthwise_conv", "_bn1", "_project_conv", "_bn2"),
    ),
    optional=(),
    head=("_conv_head", "_bn1"),
    classifier="_fc",
)
# EfficientNet is not in lukemelas's: those weights need SAME padding, which it does not have, and would be a little
# wrong without a word
LAYOUTS: dict[type[Backbone], tuple[Layout, ...]] = {
    MobileNetV2: (TIMM,),
    MobileNetV3: (TIMM,),
    EfficientNet: (TIMM,),
    EfficientNetV2: (TIMM,),
    EfficientNetLite: (LUKEMELAS,),
}


def rename(state: Mapping[str, Tensor], model: Backbone) -> dict[str, Tensor]:
    """The state under the model's names, if all its names are of a layout that is known for the family; else as it is.

    Shapes may differ: whether the tensors fit is the loader's to say. The classifier gets its name from
    `classifier_name`, also where the model was built without one. A 1×1 convolution whose place a linear layer has in
    the model becomes its matrix.
    """
    own = model.state_dict()
    if isinstance(model, DenseNet):  # torchvision's files are older than its names
        state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): state[key] for key in state}
    if state.keys() <= own.keys():
        return dict(state)
    ours = [name for name in parents(own) if name != model.classifier_name]
    for layout in LAYOUTS.get(type(model), ()):
        theirs = layout.layers(set(parents(state)))
        if theirs is not None and len(theirs) == len(ours):
            names = {**dict(zip(theirs, ours, strict=True)), layout.classifier: model.classifier_name}
            return {name: as_matrix(value, own.get(name)) for name, value in renamed(state, names)}
    return dict(state)


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> list[tuple[str, Tensor]]:
    """Each tensor with the new name of its layer."""
    split = ((*key.rpartition("."), value) for key, value in state.items())
    return [(f"{names[layer]}.{leaf}", value) for layer, _, leaf, value in split]


def parents(state: Mapping[str, Tensor]) -> list[str]:
    """The layers that a state's tensors belong to, in its order."""
    return list(dict.fromkeys(key.rpartition(".")[0] for key in state))


def as_matrix(value: Tensor, own: Tensor | None) -> Tensor:
    """The matrix of a 1×1 convolution, where ours is one; else the value itself."""
    matrix = own is not None and own.ndim == 2 and value.ndim == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if matrix else value
