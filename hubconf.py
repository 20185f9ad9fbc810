"""For torch.hub: every registered name is an entry point, torch.hub.load("<this repository>", "resnet50", …)."""

import functools as _functools

import zoo as _zoo

dependencies = ["torch", "torchvision", "numpy", "yaml", "filelock", "safetensors", "huggingface_hub"]


def _entry(name):
    info, options = _zoo.model_info(name), _zoo.BACKBONES[name].options
    build = _functools.partial(_zoo.create_model, name)
    build.__doc__ = (
        f"{info.paper}\n\n"
        "pretrained: True for the default of its released weights, or a tag (`python -m zoo info` lists them).\n"
        "checkpoint_path: a file with weights. Options of the net, with their defaults:\n"
        f"{', '.join(f'{option}={default!r}' for option, default in options.items())}"
    )
    return build


globals().update({_name: _entry(_name) for _name in _zoo.list_models()})
