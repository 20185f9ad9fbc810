"""What train.py saves becomes a model again, without the data, Hydra or Lightning."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_fit import assert_same

import zoo
from zoo import bundle, checkpoint, files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint as train.py writes it, in a run's folder."""
    model = zoo.on_pixels(zoo.create_model("lenet5", num_classes=3), mean=[0.25], std=[0.5])
    card = {
        "format": bundle.FORMAT,
        "backbone": {"name": "lenet5", "num_classes": 3, "in_chans": 1, "image_size": 28},
        "preprocess": {
            "size": 28,
            "resize": 28,
            "interpolation": "bilinear",
            "mean": [0.25],
            "std": [0.5],
            "classes": ["cat", "dog", "owl"],
        },
        "config": {"seed": 7, "plugins": [], "optimizer": {"lr": 0.1}},
        "choices": {"backbone": "lenet5"},
    }
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.write(path, {"state_dict": model.state_dict(), "epoch": 2, "zoo": card})
    return path


def rewrite(path: Path, *, classes: list[str] | None = None, **card: Any) -> None:
    content = files.read(path)
    if classes:
        card["preprocess"] = {**content["zoo"]["preprocess"], "classes": classes}
    checkpoint.write(path, {**content, "zoo": {**content["zoo"], **card}})


def test_a_checkpoint_or_its_run_folder_gives_the_model_for_pixels_in_eval_mode_with_its_classes(saved):
    state = torch.load(saved, weights_only=True)["state_dict"]
    for path in saved, str(saved), saved.parent.parent:
        model = zoo.load_checkpoint(path)
        assert not any(module.training for module in model.modules())
        assert model.classes == ("cat", "dog", "owl")
        assert model.config == {"seed": 7, "plugins": [], "optimizer": {"lr": 0.1}}
        assert_same(model.backbone, state)
        x = torch.rand(2, 1, 28, 28)
        torch.testing.assert_close(model(x), model.backbone((x - 0.25) / 0.5))


def test_the_bare_backbone_takes_what_train_py_saved_too_and_knows_what_it_was_shown(saved):
    for path in saved, saved.parent.parent:
        model = zoo.create_model("lenet5", num_classes=3, checkpoint_path=path)
        assert_same(model, torch.load(saved, weights_only=True)["state_dict"])
        expected = zoo.Preprocess(28, 28, "bilinear", (0.25,), (0.5,), classes=("cat", "dog", "owl"))
        assert model.preprocess == zoo.load_checkpoint(path).backbone.preprocess == expected
        assert zoo.on_pixels(model).mean.item() == 0.25


def test_weights_without_the_card_are_sent_to_create_model(tmp_path):
    torch.save({"state_dict": zoo.create_model("lenet5").state_dict()}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"was not saved by train\.py; use create_model"):
        zoo.load_checkpoint(tmp_path / "file.pt")


def test_a_checkpoint_of_a_newer_format_is_refused_with_both_numbers(saved):
    newer = bundle.FORMAT + 1
    rewrite(saved, format=newer)
    with pytest.raises(ValueError, match=rf"newer version of zoo \(format {newer}, known: {bundle.FORMAT}\)"):
        zoo.load_checkpoint(saved)


def test_a_checkpoint_of_a_plugins_backbone_names_the_plugin(saved):
    rewrite(saved, backbone={"name": "mynet"}, config={"plugins": ["mynet.py"]})
    with pytest.raises(ValueError, match=r"'mynet' is a plugin's: .*mynet\.py"):
        zoo.load_checkpoint(saved)


@pytest.mark.parametrize("lost", ["format", "backbone", "config", "preprocess"])
def test_a_checkpoint_that_does_not_tell_what_was_trained_is_damaged(saved, lost):
    content = files.read(saved)
    checkpoint.write(saved, {**content, "zoo": {k: v for k, v in content["zoo"].items() if k != lost}})
    with pytest.raises(ValueError, match=r"best\.ckpt is damaged: what train\.py tells .* incomplete"):
        zoo.load_checkpoint(saved)


def test_a_checkpoint_does_not_say_which_other_weights_are_read(saved, tmp_path):
    rewrite(saved, backbone={"name": "lenet5", "checkpoint_path": str(tmp_path / "other.pt")})
    with pytest.raises(ValueError, match="its backbone is no"):
        zoo.load_checkpoint(saved)


def test_a_checkpoint_whose_weights_do_not_fit_is_named(saved):
    rewrite(saved, backbone={"name": "lenet5", "num_classes": 3, "image_size": 32})
    with pytest.raises(ValueError, match=r"the weights in .*best\.ckpt do not fit"):
        zoo.load_checkpoint(saved)


def test_one_flipped_bit_among_the_weights_is_refused_where_torch_reads_on(saved):
    content = bytearray(saved.read_bytes())
    weight = torch.load(saved, weights_only=True)["state_dict"]["fc1.weight"]
    start = content.index(weight.numpy().tobytes())
    content[start + 1000] ^= 1
    saved.write_bytes(content)
    assert not torch.equal(torch.load(saved, weights_only=True)["state_dict"]["fc1.weight"], weight)
    for path in saved, saved.parent.parent:
        with pytest.raises(ValueError, match=r"best\.ckpt is damaged: its SHA-256 is not .* best\.ckpt\.sha256"):
            zoo.load_checkpoint(path)


def test_a_file_beside_the_sidecar_of_its_successor_is_whole(saved, tmp_path):
    old = tmp_path / "old"
    shutil.copy(saved, old)
    rewrite(saved, classes=["a", "b", "c"])
    assert zoo.load_checkpoint(saved).classes == ("a", "b", "c")
    shutil.copy(old, saved)  # as if the process had died between the sidecar and the move
    assert zoo.load_checkpoint(saved).classes == ("cat", "dog", "owl")
    rewrite(saved, classes=["d", "e", "f"])
    rewrite(saved, classes=["g", "h", "i"])
    shutil.copy(old, saved)
    with pytest.raises(ValueError, match="damaged"):
        zoo.load_checkpoint(saved)


ALONE = """
import sys
import zoo
heavy = {"torchvision", "lightning", "pytorch_lightning", "hydra", "omegaconf", "sklearn", "matplotlib", "tensorboard"}
print("import:", *sorted(heavy & sys.modules.keys()))
model = zoo.load_checkpoint(sys.argv[1])
print("load:", *sorted(heavy & sys.modules.keys()))
print("classes:", *model.classes)
"""


def test_importing_zoo_and_loading_a_checkpoint_take_neither_torchvision_nor_lightning_nor_hydra(saved):
    command = [sys.executable, "-c", ALONE, str(saved)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["import:", "load:", "classes: cat dog owl"]
