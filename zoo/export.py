"""A trained model → the files that others load. Each is written whole or not at all."""

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.backbones import BACKBONES, Backbone, is_model, list_models
from zoo.bundle import CONFIG, WEIGHTS
from zoo.fetch import digest
from zoo.files import checkpoint_file, read, sidecar, whole
from zoo.pixels import OnPixels, bare, on_pixels, preprocessing
from zoo.registry import suggest
from zoo.sources import TORCHVISION
from zoo.weights import TRAINING, create_model, load_checkpoint, load_pretrained, save_pretrained

ONNX = ("onnx", "onnxruntime", "onnxscript")  # the packages of the extra
CLOSE = 1e-4  # of the largest score: how far ONNX Runtime's and torch's may lie apart


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    size: int  # of the file in bytes; of a folder that of the weights in it
    sha256: str  # of the same
    load: str  # the line of Python that loads it
    note: str = ""  # what it expects that it does not do by itself


def trained(source: str | Path, weights: str | bool = True) -> Backbone | OnPixels:
    """A model in eval mode from a registered name, with its released weights; or from a checkpoint of train.py, a run's
    folder, a folder of save_pretrained, or `hf-hub:organisation/name`.

    weights: of a name, the tag or True for the default. Raises ValueError or OSError where nothing is trained.
    """
    if is_model(str(source)):
        return create_model(str(source), pretrained=weights).eval()
    if weights is not True:
        raise ValueError(f"{source} is not a registered name: it has weights of its own, not the tag {weights!r}")
    if str(source).startswith("hf-hub:") or (Path(source) / CONFIG).is_file():
        return load_pretrained(source)
    if not Path(source).exists():
        hint = suggest(str(source), list_models())
        raise FileNotFoundError(f"{source} is neither a registered name nor a file or folder{hint}")
    return load_checkpoint(source)


def export(source: str | Path, to: str, out: str | Path | None = None) -> Exported:
    """What `trained` takes → a file or folder for release.

    to: "folder" of save_pretrained; "checkpoint" of train.py with the weights and what says what was trained alone;
    "onnx", pixels (N, C, H, W) in [0, 1] → scores, checked with ONNX Runtime, any N; "torchvision", the state dict of
    a net that torchvision has, checked with torchvision's. out: the path; for a file also a folder to put it in; None
    for a name that tells the net, and of .pth and .ckpt the hash, in the current folder.
    Raises ValueError for what cannot be exported so, ModuleNotFoundError without the extra, OSError.
    """
    if to not in TARGETS:
        raise ValueError(f"nothing is known of exporting to {to!r}{suggest(to, TARGETS)}")
    return TARGETS[to](source, None if out is None else str(out))


def to_folder(source: str | Path, out: str | None) -> Exported:
    model = trained(source)
    folder = save_pretrained(model, out or f"{name_of(model)}-pretrained")
    return written(folder / WEIGHTS, f"zoo.load_pretrained({str(folder)!r})", path=folder)


def to_checkpoint(source: str | Path, out: str | None) -> Exported:
    model = trained(source)
    if not isinstance(model, OnPixels):
        raise ValueError(f"{source} has no run's configuration for a checkpoint: --to folder keeps what it has")
    content = read(checkpoint_file(source, "best"))
    state = {key: value.clone() for key, value in content["state_dict"].items()}
    path = save({"state_dict": state, "zoo": dict(content["zoo"])}, source, out, f"{name_of(model)}-{{}}.ckpt")
    return written(path, f"zoo.load_checkpoint({str(path)!r})")


def to_torchvision(source: str | Path, out: str | None) -> Exported:
    model = pixels(trained(source))
    arguments = check_torchvision(model)
    name = name_of(model)
    path = save(dict(model.state_dict()), source, out, f"{name}-{{}}.pth")
    given = "".join(f", {key}={value}" for key, value in arguments.items())
    made = f'model = torchvision.models.get_model("{name}"{given})'
    numbers = {key: [round(v, 6) for v in getattr(model, key).flatten().tolist()] for key in ("mean", "std")}
    note = f"it takes images of pixels in [0, 1] less mean {numbers['mean']}, divided by std {numbers['std']}"
    return written(path, f"{made}; model.load_state_dict(torch.load({str(path)!r}))", note=note)


def to_onnx(source: str | Path, out: str | None) -> Exported:
    missing = [package for package in ONNX if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f'ONNX needs the Python package {", ".join(missing)}: pip install "cnn-zoo[onnx]"')
    model = pixels(trained(source))
    path = destination(source, out, f"{name_of(model)}.onnx")
    with whole(path) as fresh:
        write_onnx(model, fresh)
        check_onnx(model, fresh)
    return written(path, f'onnxruntime.InferenceSession({str(path)!r}).run(["scores"], {{"pixels": x}})')


TARGETS: Mapping[str, Callable[[str | Path, str | None], Exported]] = {
    "folder": to_folder,
    "onnx": to_onnx,
    "torchvision": to_torchvision,
    "checkpoint": to_checkpoint,
}


# --- what the formats are -----------------------------------------------------------------------------------------


def write_onnx(model: OnPixels, path: Path) -> None:
    """One file, normalisation inside; its metadata tell the net, size and classes. ValueError for what ONNX has not."""
    facts, backbone = preprocessing(model), model.backbone
    x = torch.zeros(2, backbone.in_chans, facts.size, facts.size)  # of one image the exporter would make a constant
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():  # the exporter's, about its own insides
            program = torch.onnx.export(
                model,
                (x,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("images")},),
                input_names=["pixels"],
                output_names=["scores"],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ValueError(f"{name_of(model)} cannot become ONNX: {untranslated(error)}") from error
    told = {"backbone": dict(backbone.built_as), "scores_are": backbone.scores_are, "preprocess": asdict(facts)}
    program.model.metadata_props["zoo"] = json.dumps(told, ensure_ascii=False)
    program.save(path, external_data=False)


def untranslated(error: BaseException) -> str:
    """What the exporter failed at, out of its pages."""
    found = re.search(r"No ONNX function found for .*?'([\w.:]+)'", str(error))
    if found:
        return f"torch's exporter has no translation of {found[1]}"
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_onnx(model: OnPixels, path: Path) -> None:
    """ValueError if ONNX Runtime's scores of random images, of another number than was exported, are not torch's."""
    import onnxruntime

    x = noise(model, 3)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    check_close(model, x, torch.from_numpy(session.run(["scores"], {"pixels": x.numpy()})[0]), "ONNX Runtime")


def check_torchvision(model: OnPixels) -> dict[str, Any]:
    """The arguments of torchvision's constructor for which it gives the same scores. ValueError if there are none."""
    import torchvision

    name, backbone = name_of(model), model.backbone
    if name not in TORCHVISION:
        raise ValueError(f"torchvision has no {name}; --to folder, checkpoint or onnx keep what it is")
    usual = BACKBONES[name].options
    built = {**backbone.built_as, "in_chans": backbone.in_chans}
    other = [
        f"{key}={value}"
        for key, value in built.items()
        if key in usual
        and (key not in TRAINING or key == "in_chans")
        and (tuple(value) if isinstance(value, list) else value) != usual[key]
    ]
    if other or not backbone.num_classes:
        raise ValueError(f"torchvision's {name} cannot be built with {', '.join(other) or 'num_classes=0'}")
    arguments: dict[str, Any] = {"num_classes": backbone.num_classes}
    if "aux_logits" in usual:
        arguments |= {"aux_logits": built.get("aux_logits", usual["aux_logits"]), "init_weights": False}
    theirs = torchvision.models.get_model(name, weights=None, **arguments).eval()
    own = backbone.state_dict()
    strange = sorted(own.keys() ^ theirs.state_dict().keys())
    if strange:
        raise ValueError(f"torchvision's {name} names its parameters otherwise: {strange[0]} is on one side only")
    theirs.load_state_dict(own)
    x = noise(model, 2)
    with torch.inference_mode():
        check_close(model, x, theirs(model.normalise(x)), "torchvision")
    return arguments


def noise(model: OnPixels, count: int) -> Tensor:
    """Random images of the size that the model was trained to see; the generator of others is left alone."""
    size = preprocessing(model).size
    return torch.rand(count, model.backbone.in_chans, size, size, generator=torch.Generator().manual_seed(0))


def check_close(model: OnPixels, x: Tensor, theirs: Tensor, where: str) -> None:
    with torch.inference_mode():
        ours = model(x)
    largest = ours.abs().max().item()
    difference = (theirs - ours).abs().max().item() if theirs.shape == ours.shape else float("nan")
    if not difference <= CLOSE * largest:
        raise ValueError(
            f"nothing was exported: the scores of {name_of(model)} in {where} differ by {difference:.2g} "
            f"from its own, of which the largest is {largest:.2g}"
        )


# --- files --------------------------------------------------------------------------------------------------------


def name_of(model: Backbone | OnPixels) -> str:
    return bare(model).built_as["name"]


def pixels(model: Backbone | OnPixels) -> OnPixels:
    return model if isinstance(model, OnPixels) else on_pixels(model).eval()


def destination(source: str | Path, out: str | None, name: str) -> Path:
    """The path to write to. FileExistsError if it is what is exported, or a checkpoint of a run that may go on."""
    path = Path(out or ".")
    if path.is_dir() or (out or "").endswith(os.sep):
        path = path / name
    if path.is_dir() or sidecar(path).exists() or (path.exists() and Path(source).exists() and path.samefile(source)):
        raise FileExistsError(f"{path} is not replaced: it is a folder, a run's checkpoint or what is exported")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save(content: dict[str, Any], source: str | Path, out: str | None, name: str) -> Path:
    """torch.save. name: of the file, with {} for the first digits of its hash, as torch.hub checks them."""
    buffer = io.BytesIO()  # torch's own writer hides what the system says of a full disk
    torch.save(content, buffer)
    digits = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
    path = destination(source, out, name.format(digits))
    with whole(path) as fresh:
        fresh.write_bytes(buffer.getbuffer())
    return path


def written(file: Path, load: str, *, path: Path | None = None, note: str = "") -> Exported:
    return Exported(path or file, file.stat().st_size, digest(file), load, note)
