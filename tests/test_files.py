"""Real files, hostile and broken: none of their code runs, and each is told for what it is on one line."""

import io
import json
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import zoo
from zoo.files import read


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


def by_checkpoint_path(path: Path) -> zoo.Backbone:
    return zoo.create_model("lenet5", checkpoint_path=path)


def refusal(read: Callable[[Path], Any], file: Path) -> str:
    """The one line with which a file is refused; it names the file and invites to nothing unsafe."""
    with pytest.raises(ValueError) as caught:
        read(file)
    told = str(caught.value)
    assert str(file) in told
    assert "\n" not in told
    assert "weights_only" not in told
    return told


READERS = [read, zoo.load_checkpoint, by_checkpoint_path]
readers = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)

# --- code -------------------------------------------------------------------------------------------------------


@readers
@pytest.mark.parametrize("save", [zipped, legacy, pickle.dumps], ids=["torch", "old torch", "pickle"])
def test_a_file_that_holds_code_is_refused_by_name_and_the_code_does_not_run(tmp_path, recwarn, save, reader):
    file, left = tmp_path / "file.pt", tmp_path / "the payload ran"
    file.write_bytes(save({"state_dict": Payload(left)}))
    told = refusal(reader, file)
    assert "was refused: it would run code or build objects" in told
    assert "exec)" in told
    assert "save its state_dict alone" in told
    assert not left.exists()
    assert not recwarn.list, "torch's advice is shown before our line"
    pickle.loads(pickle.dumps(Payload(left)))
    assert left.exists(), "the payload would not have run anyway"


@pytest.mark.parametrize("ending", ["pt", "th", "ckpt", "safetensors"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_protocol_and_no_ending_gets_code_to_run(tmp_path, protocol, ending):
    file, left = tmp_path / f"file.{ending}", tmp_path / "the payload ran"
    file.write_bytes(pickle.dumps({"state_dict": Payload(left)}, protocol=protocol))
    told = refusal(read, file)
    assert not left.exists()
    if ending == "safetensors":
        assert "is not a safetensors file" in told
    elif protocol:  # 0 is text, and told by its first bytes
        assert "exec)" in told


@readers
def test_a_torchscript_program_is_refused_as_one_with_advice(tmp_path, reader):
    file = tmp_path / "traced.pt"
    with warnings.catch_warnings(action="ignore"):  # torch.jit is on its way out; its files are not
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2)), str(file))
    assert "was refused: it is a TorchScript program" in refusal(reader, file)


def test_a_whole_model_that_was_pickled_is_refused_with_the_classes_that_it_would_build(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "model.pt")
    assert "objects (torch.nn.modules.container.Sequential" in refusal(read, tmp_path / "model.pt")


# --- what is no checkpoint --------------------------------------------------------------------------------------


def archive() -> bytes:
    """A whole zip file that torch did not write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("README", "weights are elsewhere")
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 1099231\n"
TENSORS = safetensors.torch.save({"a": torch.arange(100.0)})
OTHERS = [
    ("empty", b"", "is empty (0 bytes)"),
    ("HTML", b"<!DOCTYPE html><html><body>404: not found</body></html>", "it is a web page"),
    ("HTML after blanks", b"\n <html>\n<head></head></html>", "it is a web page"),
    ("Git LFS pointer", LFS, "it is a Git LFS pointer"),
    ("random", random.Random(0).randbytes(5000), "it starts with b'"),
    ("text", b"epoch,loss\n1,0.5\n", "it starts with b'epoch,loss"),
]


@readers
@pytest.mark.parametrize(
    ("content", "told"),
    [
        *(row[1:] for row in OTHERS),
        (archive(), "is not a checkpoint"),
        (zipped({"a": torch.arange(9999.0)})[:20_000], "is damaged: its archive is cut off or broken (20000 bytes)"),
        (legacy({"a": torch.arange(9999.0)})[:20_000], "is not a checkpoint"),
        (TENSORS, "it seems to be a safetensors file: let its name end in .safetensors"),
    ],
    ids=[*(row[0] for row in OTHERS), "archive of another kind", "truncated", "truncated old", "safetensors"],
)
def test_a_file_that_is_no_checkpoint_is_told_for_what_it_is(tmp_path, recwarn, content, told, reader):
    file = tmp_path / "file.pt"
    file.write_bytes(content)
    assert told in refusal(reader, file)
    assert not recwarn.list


# --- safetensors ------------------------------------------------------------------------------------------------


def tensors(header: Any, body: bytes = bytes(4)) -> bytes:
    """A safetensors file with a header of our own."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}}


def test_a_header_of_our_own_is_read_if_it_is_right(tmp_path):
    (tmp_path / "file.safetensors").write_bytes(tensors(entry()))
    assert read(tmp_path / "file.safetensors") == {"a": torch.zeros(1)}


WRONG = {
    "cut off among the tensors": TENSORS[:-50],
    "cut off in the header": TENSORS[:20],
    "longer than it says": TENSORS + b"xx",
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + TENSORS[8:],
    "a header that is longer than the file": struct.pack("<Q", 5000) + TENSORS[8:],
    "a header of no bytes": struct.pack("<Q", 0) + TENSORS[8:],
    "an unknown type": tensors(entry(dtype="F99")),
    "a shape of more bytes": tensors(entry(shape=[2])),
    "a shape beyond all numbers": tensors(entry(shape=[2**40, 2**40])),
    "a negative shape": tensors(entry(shape=[-1])),
    "offsets beyond the end": tensors(entry(data_offsets=[4, 8])),
    "no offsets": tensors({"a": {"dtype": "F32", "shape": [1]}}),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_safetensors_that_are_cut_off_or_have_a_wrong_header_are_damaged(tmp_path, content):
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    for reader in read, by_checkpoint_path:
        assert f"{file} is damaged (" in refusal(reader, file)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        *(row[1:] for row in OTHERS),
        (tensors([1]), "it starts with"),
        (zipped({"a": torch.ones(1)}), "starts with b'PK"),
    ],
    ids=[*(row[0] for row in OTHERS), "a header that is a list", "torch's archive"],
)
def test_what_only_is_called_safetensors_is_told_for_what_it_is(tmp_path, content, told):
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    assert told in refusal(read, file)


def test_a_sidecar_beside_any_file_is_held_to(tmp_path):
    file = tmp_path / "file.safetensors"
    file.write_bytes(TENSORS)
    file.with_name("file.safetensors.sha256").write_text("0" * 64)
    assert "is damaged: its SHA-256 is not the one in file.safetensors.sha256" in refusal(read, file)


# --- what is not there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [*READERS, zoo.load_pretrained], ids=lambda reader: reader.__name__)
def test_a_missing_file_is_named(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "gone.pt")) as caught:
        reader(tmp_path / "gone.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "told"),
    [
        (read, r"has no checkpoints/best\.ckpt"),
        (zoo.load_checkpoint, r"has no checkpoints/best\.ckpt"),
        (zoo.load_pretrained, r"has no config\.json: it is not a folder of save_pretrained"),
        (by_checkpoint_path, r"holds no weights: it has neither model\.safetensors nor checkpoints/best\.ckpt"),
    ],
)
def test_a_folder_without_what_is_looked_for_is_named_with_it(tmp_path, reader, told):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} .*{told}"):
        reader(tmp_path)


# --- files without a state dict ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [{}, [1, 2], 3, torch.ones(2), {"epoch": 3}, {"state_dict": {}}, {"a": torch.ones(1), "b": 1}, {0: torch.ones(1)}],
    ids=str,
)
def test_a_file_without_names_and_tensors_says_so(tmp_path, content):
    file = tmp_path / "file.pt"
    torch.save(content, file)
    assert "holds no state dict: names with tensors were expected" in refusal(by_checkpoint_path, file)


def test_safetensors_without_a_tensor_hold_no_state_dict(tmp_path):
    file = tmp_path / "file.safetensors"
    file.write_bytes(safetensors.torch.save({}))
    assert "holds no state dict" in refusal(by_checkpoint_path, file)
