import io
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

import zoo
from zoo import checkpoint, weights

ROOT = Path(__file__).resolve().parents[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the files in shared/weights were trained with


@pytest.fixture
def model() -> zoo.Backbone:
    return zoo.create_model("lenet5", num_classes=3)


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}


def assert_same(model: nn.Module, state: dict[str, Tensor]) -> None:
    assert model.state_dict().keys() == state.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key


# --- create_model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_classes": -1}, "num_classes must be a whole number of at least 0, not -1"),
        ({"num_classes": 2.5}, r"num_classes must be a whole number of at least 0, not 2\.5"),
        ({"num_classes": "10"}, "num_classes must be a whole number of at least 0, not '10'"),
        ({"num_classes": True}, "num_classes must be a whole number of at least 0, not True"),
        ({"in_chans": 0}, "in_chans must be a whole number of at least 1, not 0"),
        ({"pretrained": True}, "no pretrained weights are known for 'lenet5'"),
        ({"pretrained": "cifar10"}, "no pretrained weights are known for 'lenet5'"),
        ({"checkpoint_path": "no/such.pt"}, "no such checkpoint: no/such.pt"),
    ],
)
def test_create_model_refuses_what_it_cannot_build(options, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        zoo.create_model("lenet5", **options)


def test_none_means_the_variants_own_classes_and_channels():
    model = zoo.create_model("capsnet", num_classes=None, in_chans=None, decoder=False)
    assert (model.num_classes, model.in_chans, model.training) == (10, 1, True)


# --- the world's weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet32", "resnet32-d509ac18.th")])
def test_the_published_cifar_weights_load_strictly_under_their_own_names(shared, name, file):
    published = torch.load(shared / "weights" / file, map_location="cpu", weights_only=True)["state_dict"]
    model = zoo.create_model(name, checkpoint_path=shared / "weights" / file)
    counters = {key for key in model.state_dict() if key.endswith(".num_batches_tracked")}
    assert set(published) - counters <= {f"module.{key}" for key in model.state_dict()}
    for key, value in model.state_dict().items():
        assert key in counters or torch.equal(value, published[f"module.{key}"]), key


def test_weights_of_another_depth_are_refused_with_what_is_missing(shared):
    with pytest.raises(ValueError, match=r"do not fit \(\d+ missing: layer1\.3\.bn1\.bias, .* …\)"):
        zoo.create_model("resnet32", checkpoint_path=shared / "weights" / "resnet20-12fca82f.th")


def top1(shared: Path, every: int) -> float:
    """Percent of every n-th test image that the published resnet20 recognises."""
    images, labels = [], []
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.gz") as tar:
        for member in tar:
            if not member.name.startswith("test"):
                break  # what follows is for training
            if member.isfile():
                labels.append(member.name.split("/")[1])
                if (len(labels) - 1) % every == 0:
                    images.append(pil_to_tensor(Image.open(io.BytesIO(tar.extractfile(member).read()))))
    assert len(labels) == 10_000
    classes = sorted(set(labels))
    y = torch.tensor([classes.index(label) for label in labels[::every]])
    backbone = zoo.create_model("resnet20", checkpoint_path=shared / "weights" / "resnet20-12fca82f.th")
    model = zoo.on_pixels(backbone, mean=MEAN, std=STD).eval()
    with torch.inference_mode():
        predicted = torch.cat([model(batch / 255).argmax(1) for batch in torch.stack(images).split(250)])
    return 100 * (predicted == y).double().mean().item()


def test_resnet20_recognises_a_sample_of_the_jpeg_test_set_about_as_published(shared):
    assert top1(shared, every=40) == pytest.approx(81.0, abs=4)


@pytest.mark.slow
def test_resnet20_has_81_percent_on_the_whole_jpeg_test_set(shared):
    assert top1(shared, every=1) == pytest.approx(81.0, abs=0.1)


# --- containers and prefixes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "model.", "backbone."),
        *("module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "model.module.", "model.backbone."),
    ],
)
def test_containers_and_prefixes_are_seen_through(model, tmp_path, container, prefix):
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "file.pt")
    assert_same(zoo.create_model("lenet5", num_classes=3, checkpoint_path=tmp_path / "file.pt"), model.state_dict())


def test_a_prefix_that_only_some_keys_have_is_part_of_their_names(model):
    state = {f"model.{key}" if "conv" in key else key: value for key, value in model.state_dict().items()}
    assert weights.state_dict(state).keys() == state.keys()


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {}}, {"a": torch.ones(1), "b": 1}])
def test_a_file_without_a_state_dict_says_so(tmp_path, content):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        zoo.create_model("lenet5", checkpoint_path=tmp_path / "file.pt")


# --- files that are no checkpoints ------------------------------------------------------------------------------


class Payload:
    """Unpickled by a trusting reader, it leaves a file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def zipped(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def legacy(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("read", [weights.read, zoo.load_checkpoint], ids=["read", "load_checkpoint"])
@pytest.mark.parametrize("save", [zipped, legacy, pickle.dumps], ids=["torch", "old torch", "pickle"])
def test_a_file_that_holds_code_is_refused_by_name_and_the_code_does_not_run(tmp_path, recwarn, save, read):
    file, left = tmp_path / "file.pt", tmp_path / "the payload ran"
    file.write_bytes(save({"state_dict": Payload(left)}))
    with pytest.raises(ValueError, match=r"file\.pt was refused: it would run code or build objects \(.*exec\)"):
        read(file)
    assert not left.exists()
    assert not recwarn.list, "torch's advice is shown before our line"
    pickle.loads(pickle.dumps(Payload(left)))
    assert left.exists(), "the payload would not have run anyway"


def archive() -> bytes:
    """A whole zip file that torch did not write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("README", "weights are elsewhere")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1099231\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html><body>404: not found</body></html>", "is not a checkpoint .*web page"),
        (b"\n <html>\n<head></head></html>", "is not a checkpoint .*web page"),
        (LFS, "is not a checkpoint .*Git LFS pointer"),
        (zipped({"a": torch.arange(9999.0)})[:20_000], r"is damaged: .*cut off or broken \(20000 bytes\)"),
        (random.Random(0).randbytes(5000), "is not a checkpoint .*starts with b'"),
        (b"epoch,loss\n1,0.5\n", "is not a checkpoint .*starts with b'epoch,loss"),
    ],
    ids=["empty", "HTML", "HTML after blanks", "Git LFS pointer", "truncated", "random", "text"],
)
def test_a_file_that_is_no_checkpoint_is_told_for_what_it_is(tmp_path, recwarn, content, told):
    file = tmp_path / "file.pt"
    file.write_bytes(content)
    for read in weights.read, zoo.load_checkpoint:
        with pytest.raises(ValueError, match=told) as caught:
            read(file)
        assert str(file) in str(caught.value)
        assert "weights_only" not in str(caught.value), "torch's invitation to read it unsafely"
    assert not recwarn.list


def test_a_whole_archive_of_another_kind_is_not_called_damaged(tmp_path):
    (tmp_path / "file.pt").write_bytes(archive())
    with pytest.raises(ValueError, match="is not a checkpoint"):
        weights.read(tmp_path / "file.pt")


# --- weights that do not fit ------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_listed_and_the_model_stays_as_it_was(model):
    before = copy(model.state_dict())
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    state["conv9.weight"] = state.pop("conv2.weight")
    state["fc3.weight"] = torch.zeros(10, 84)
    told = (
        r"the weights in there do not fit \(1 missing: conv2\.weight; 1 unexpected: conv9\.weight; "
        r"1 of another shape: fc3\.weight \(10, 84\) for \(3, 84\)\)"
    )
    with pytest.raises(ValueError, match=told):
        weights.load_state(model, state, source="there")
    assert_same(model, before)


def test_a_long_list_of_faults_is_cut_after_three(model):
    with pytest.raises(ValueError, match=r"10 missing: conv1\.bias, conv1\.weight, conv2\.bias …; 1 unexpected: a\)"):
        weights.load_state(model, {"a": torch.zeros(1)}, source="there")


def test_only_the_batch_norms_counters_may_be_missing():
    model = zoo.create_model("resnet20", n=1)
    state = {key: value + 1 for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    weights.load_state(model, state, source="an old file")
    assert torch.equal(model.bn1.running_var, state["bn1.running_var"])
    del state["bn1.running_var"]
    with pytest.raises(ValueError, match=r"1 missing: bn1\.running_var"):
        weights.load_state(model, state, source="an old file")


# --- what train.py saves ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint as train.py writes it, in a run's folder."""
    model = zoo.on_pixels(zoo.create_model("lenet5", num_classes=3), mean=[0.25], std=[0.5])
    card = {
        "format": weights.FORMAT,
        "backbone": {"name": "lenet5", "num_classes": 3, "in_chans": 1, "image_size": 28},
        "mean": [0.25],
        "std": [0.5],
        "classes": ["cat", "dog", "owl"],
        "config": {"seed": 7, "plugins": [], "optimizer": {"lr": 0.1}},
        "choices": {"backbone": "lenet5"},
    }
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.write(path, {"state_dict": model.state_dict(), "epoch": 2, "zoo": card})
    return path


def rewrite(path: Path, **card: Any) -> None:
    content = weights.read(path)
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


def test_the_bare_backbone_takes_what_train_py_saved_too(saved):
    model = zoo.create_model("lenet5", num_classes=3, checkpoint_path=saved.parent.parent)
    assert_same(model, torch.load(saved, weights_only=True)["state_dict"])


def test_weights_without_the_card_are_sent_to_create_model(model, tmp_path):
    torch.save({"state_dict": model.state_dict()}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"was not saved by train\.py; use create_model"):
        zoo.load_checkpoint(tmp_path / "file.pt")


def test_a_checkpoint_of_a_newer_format_is_refused_with_both_numbers(saved):
    newer = weights.FORMAT + 1
    rewrite(saved, format=newer)
    with pytest.raises(ValueError, match=rf"newer version of zoo \(format {newer}, known: {weights.FORMAT}\)"):
        zoo.load_checkpoint(saved)


def test_a_checkpoint_of_a_plugins_backbone_names_the_plugin(saved):
    rewrite(saved, backbone={"name": "mynet"}, config={"plugins": ["mynet.py"]})
    with pytest.raises(ValueError, match=r"'mynet' is a plugin's: .*mynet\.py"):
        zoo.load_checkpoint(saved)


@pytest.mark.parametrize("missing", ["file", "folder"])
def test_a_missing_checkpoint_is_named(tmp_path, missing):
    path = tmp_path if missing == "folder" else tmp_path / "gone.ckpt"
    with pytest.raises(FileNotFoundError, match=str(path)):
        zoo.load_checkpoint(path)


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
