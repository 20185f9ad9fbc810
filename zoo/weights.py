"""Name, file, folder or URL → checked state dict → model. The only loader; it never runs code that a file holds."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo import sources
from zoo.backbones import BACKBONES, Backbone
from zoo.backbones.backbone import check_count
from zoo.bundle import CONFIG, FORMAT, WEIGHTS, Bundle, check_card, opened, preprocess_in
from zoo.files import checkpoint_file, read, whole
from zoo.fit import LoadReport, fit, state_dict
from zoo.pixels import OnPixels, bare, on_pixels, preprocessing

# options that change neither the names nor the scores of a net that is only looked at
TRAINING = ("num_classes", "in_chans", "aux_logits", "dropout", "drop_path", "bn_momentum", "memory_efficient")

logger = logging.getLogger(__name__)


def create_model(
    name: str,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    checkpoint_path: str | Path | None = None,
    **options: Any,
) -> Backbone:
    """The bare backbone of a registered name, in train mode.

    pretrained: True for the default of `model_info(name).weights`, or one of these tags; what the weights were trained
    to see becomes the model's `preprocess`. num_classes: None for the variant's own, 0 for pooled features instead of
    scores. in_chans: None for its own. checkpoint_path: whatever `load_weights` takes; the constructor's options that
    are told there are defaults. options: the constructor's others.
    Weights of other numbers of classes or channels are adapted, which is logged: `load_weights` says how.
    Raises ValueError for an unknown name or tag, or weights that do not fit, TypeError for an unknown option, OSError
    if weights cannot be had.
    """
    entry = BACKBONES[name]
    if pretrained and checkpoint_path is not None:
        raise ValueError(f"pretrained={pretrained} and checkpoint_path={checkpoint_path} both name weights: give one")
    given = {"num_classes": num_classes, "in_chans": in_chans}
    given = {key: value for key, value in given.items() if value is not None}
    for key, value in given.items():
        check_count(key, value, least=0 if key == "num_classes" else 1)
    entry.complete(options)  # refuses what it does not know, before anything is fetched
    source = sources.source(name, pretrained) if pretrained else None
    bundle = opened(checkpoint_path) if checkpoint_path is not None else None
    for key, needed in (source.options if source else {}).items():
        if options.setdefault(key, needed) != needed:
            raise ValueError(f"{key}={options[key]}, but the weights {source.tag} of {name} need {key}={needed}")
    if bundle is not None:
        options = {**told_options(bundle, name), **options}
    model = entry.builder(**entry.complete({**given, **options}))
    model.built_as = {"name": name, **options}
    if source is not None:
        put(model, replace(opened(source.url, source.sha256), preprocess=source.preprocess))
    elif bundle is not None:
        put(model, bundle)
    return model


def told_options(bundle: Bundle, name: str) -> dict[str, Any]:
    """The constructor's options that a bundle tells, of a net of this name, and that its scores depend on."""
    told = bundle.built_as or {}
    telling = {key: told[key] for key in told if told["name"] == name and key not in ("name", *TRAINING)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in telling.items()}  # as of JSON


def load_weights(
    model: Backbone | OnPixels, source: Mapping[str, Any] | str | Path, *, strict: bool = True, sha256: str = ""
) -> LoadReport:
    """Loads weights into a model, or raises and leaves it as it was.

    source: a state dict; a file (.pth, .pt, .th, .ckpt … or .safetensors); a run's folder, or one of save_pretrained;
    `https://…`, with `#sha256=…` if its hash is known; or `hf-hub:organisation/name`, with `@revision` if it matters.
    Containers, wrappers' prefixes and the names of foreign layouts are seen through. What a file or folder tells of the
    pixels that it was trained on becomes the model's `preprocess`; where it tells nothing that becomes None.
    Adapted, and logged as warnings, are: layers whose rows are classes, where the numbers of classes differ (those of
    the model stay as they are); heads that only the model or only the file has; convolutions that read the image, where
    the numbers of channels differ (1: the sum over the file's; more: repeated and scaled); floating-point types.
    strict: whether names that are missing or unexpected are errors. sha256: of the file, or its first 8 or more digits.
    Raises ValueError if the content is not what it should be or does not fit, OSError if it cannot be had.
    """
    if isinstance(source, Mapping) and sha256:
        raise ValueError("a state dict has no file whose sha256 could be checked")
    return put(model, opened(source, sha256), strict=strict, keep=isinstance(source, Mapping))


def put(model: Backbone | OnPixels, bundle: Bundle, *, strict: bool = True, keep: bool = False) -> LoadReport:
    """Loads what a bundle holds. keep: whether `preprocess` stays as it was."""
    backbone = bare(model)
    own = backbone.state_dict()
    fitted = fit(backbone, state_dict(bundle.content, own, source=bundle.told), source=bundle.told, strict=strict)
    backbone.load_state_dict({**own, **fitted.state})
    if not keep:
        backbone.preprocess = bundle.preprocess
        if bundle.preprocess is not None:
            backbone.preprocess = preprocessing(backbone)  # for its channels and classes
    name = backbone.built_as.get("name", "")
    told = told_options(bundle, name) if name else {}
    usual = BACKBONES[name].options if name in BACKBONES else {}
    for key, value in told.items():
        built = backbone.built_as.get(key, usual.get(key))
        if value != built:
            logger.warning("%s: made with %s=%s, this model with %s", bundle.told, key, value, built)
    for name, what in fitted.report.adapted.items():
        logger.warning("%s: %s: %s", bundle.told, name, what)
    return fitted.report


def load_checkpoint(path: str | Path) -> OnPixels:
    """What train.py saved → the model in eval mode, for pixels in [0, 1], on the CPU.

    `.classes` are the names of the classes, `.config` is the run's whole configuration as plain containers. Needs
    neither the data nor Hydra nor Lightning. A run's folder stands for its checkpoints/best.ckpt.
    Raises FileNotFoundError, or ValueError for a file that is damaged, is no checkpoint, or was not saved by train.py.
    """
    path = checkpoint_file(path, "best")
    content = read(path)
    card = check_card(content, path)
    backbone = create_model(**card["backbone"])
    put(backbone, Bundle(content, str(path), card["backbone"], preprocess_in(card)))
    model = on_pixels(backbone)
    model.classes, model.config = backbone.preprocess.classes, card["config"]
    return model.eval()


def save_pretrained(model: Backbone | OnPixels, folder: str | Path) -> Path:
    """Weights, constructor and preprocessing → model.safetensors and config.json in a folder; returns the folder.

    Whole or not at all; what an earlier call left there is replaced. Raises ValueError for a model that create_model
    did not make, FileExistsError if something else is in the folder.
    """
    from safetensors.torch import save

    backbone, folder = bare(model), Path(folder)
    if not backbone.built_as:
        raise ValueError(f"this {type(backbone).__name__} was not made by create_model: nobody could build it again")
    if folder.exists() and (not folder.is_dir() or {file.name for file in folder.iterdir()} - {WEIGHTS, CONFIG}):
        raise FileExistsError(f"{folder} holds other things: save_pretrained wants a folder of its own")
    weights = save({key: value.contiguous() for key, value in backbone.state_dict().items()})
    facts = {
        "format": FORMAT,
        "backbone": {**backbone.built_as, "num_classes": backbone.num_classes, "in_chans": backbone.in_chans},
        "preprocess": asdict(preprocessing(model)),
        "sha256": hashlib.sha256(weights).hexdigest(),  # a folder of which one file is old and one new is told so
    }
    config = json.dumps({"zoo": facts}, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / CONFIG) as fresh_config, whole(folder / WEIGHTS) as fresh_weights:
        fresh_weights.write_bytes(weights)
        fresh_config.write_text(config, encoding="utf-8")
    return folder


def load_pretrained(source: str | Path) -> Backbone:
    """A folder of save_pretrained, here or `hf-hub:organisation/name[@revision]` → the backbone in eval mode.

    Raises ValueError for a folder that save_pretrained did not write or that is damaged, OSError if it cannot be had.
    """
    if not str(source).startswith("hf-hub:"):
        for name in CONFIG, WEIGHTS:
            if not (Path(source) / name).is_file():
                raise FileNotFoundError(f"{source} has no {name}: it is not a folder of save_pretrained")
    bundle = opened(source)
    if bundle.built_as is None:
        told = "create_model(name, checkpoint_path=…) takes weights of others"
        raise ValueError(f"{source}: its {CONFIG} was not written by save_pretrained; {told}")
    model = create_model(**bundle.built_as)
    put(model, bundle)
    return model.eval()
