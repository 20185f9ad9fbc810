"""A checkpoint is whole or absent, whatever stops its writer; random states go on where they were."""

import contextlib
import errno
import hashlib
import itertools
import multiprocessing
import os
import pickle
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo import files
from zoo.checkpoint import WholeCheckpoints, random_states, restore_random_states, write

FORKED = multiprocessing.get_context("fork")  # the child has torch already: it writes within milliseconds


def content(step: int, size: int = 300) -> dict[str, Any]:
    """Every value of it tells the step."""
    state = {f"layer{i}.weight": torch.full((size,), float(step)) for i in range(3)}
    return {"state_dict": state, "epoch": step, "loops": {"done": [step, None, True]}, "note": f"step {step}"}


def step_of(found: dict[str, Any]) -> int:
    """The step that every value tells; fails if they differ."""
    step, tensors = found["epoch"], found["state_dict"].values()
    assert {**found, "state_dict": None} == {**content(step), "state_dict": None}
    assert torch.equal(torch.cat(list(tensors)), torch.full((3 * len(next(iter(tensors))),), float(step)))
    return step


def in_child(work: Callable[..., None], *arguments: Any) -> int:
    """Runs `work` in a process of its own. Returns its exit code, minus the signal's number if one ended it."""
    process = FORKED.Process(target=work, args=arguments)
    process.start()
    process.join(20)
    return process.exitcode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "last.ckpt"


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


# --- whole ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_again_and_lies_there_with_its_sidecar_alone(path: Path):
    write(path, content(1))
    write(path, content(2))
    assert step_of(files.read(path)) == 2
    assert names(path) == ["last.ckpt", "last.ckpt.sha256"]


def test_the_sidecar_names_the_new_hash_and_the_one_before(path: Path):
    write(path, content(1))
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    assert files.sidecar(path).read_text() == f"new {first}\n"
    write(path, content(2))
    second = hashlib.sha256(path.read_bytes()).hexdigest()
    assert files.sidecar(path).read_text() == f"new {second}\nprevious {first}\n"


def test_a_checkpoint_of_which_one_bit_was_turned_is_refused(path: Path):
    write(path, content(1))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{path} is damaged: its SHA-256 is not the one in last.ckpt.sha256"):
        files.read(path)


def die_before(count: int, path: Path) -> None:
    """Writes step 2 and, once the tensors are saved, kills itself before the count-th call that changes a file."""
    changes = {"open", "write", "flush", "fsync", "close", "rename", "replace", "unlink"}
    seen = itertools.count()
    saved = False

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal saved
        saved = saved or (event == "return" and frame.f_code.co_name == "save")
        if saved and event == "c_call" and argument.__name__ in changes and next(seen) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    write(path, content(2))
    os._exit(0)


def test_a_kill_between_any_two_changes_of_files_leaves_the_old_checkpoint_or_the_new_one(path: Path):
    found, code = [], None
    while code != 0:
        write(path, content(1))
        code = in_child(die_before, len(found), path)
        assert code in (0, -signal.SIGKILL)
        found.append(step_of(files.read(path)))
    assert len(found) > 8
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 2)


def write_forever(path: Path, first: int, done: Connection) -> None:
    torch.set_num_threads(1)  # more would wait for threads that a forked process has not
    for step in itertools.count(first):
        write(path, content(step, size=300_000))
        done.send(step)


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint_no_older_than_the_last_that_was_done(path: Path):
    moments = random.Random(0)
    step = 0
    for _ in range(4):
        receive, send = FORKED.Pipe(duplex=False)
        process = FORKED.Process(target=write_forever, args=(path, step + 1, send))
        process.start()
        assert receive.poll(20)
        time.sleep(moments.uniform(0, 0.15))
        process.kill()
        process.join()
        send.close()
        with contextlib.suppress(EOFError):
            while True:
                done = receive.recv()
        step = step_of(files.read(path))
        assert done <= step <= done + 1


# --- absent -----------------------------------------------------------------------------------------------------


def write_limited(path: Path, limit: int, told: Connection) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(path, content(2, size=300_000))
    except Exception as error:
        told.send((type(error).__name__, str(error)))


@pytest.mark.parametrize("limit", [100, 1_000_000, 2_500_000, 3_600_500])
@pytest.mark.parametrize("earlier", [True, False], ids=["over an old one", "the first"])
def test_a_full_disk_is_told_in_one_line_and_leaves_what_was_there(limit: int, earlier: bool, path: Path):
    path.parent.mkdir()
    if earlier:
        write(path, content(1, size=300_000))
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    receive, send = FORKED.Pipe(duplex=False)
    in_child(write_limited, path, limit, send)
    assert receive.poll(), "nothing went wrong"
    kept = f"; the checkpoint before it is kept: {path}" if earlier else ""
    assert receive.recv() == ("OSError", f"cannot save {path} ({os.strerror(errno.EFBIG)}){kept}")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=repr)
@pytest.mark.parametrize("flush", [0, 1], ids=["the checkpoint", "its sidecar"])
def test_a_write_that_is_stopped_while_flushing_leaves_the_old_file_and_no_temporary_one(
    flush: int, stopped: BaseException, path: Path, monkeypatch: pytest.MonkeyPatch
):
    flushes = itertools.count()

    def fsync(_: int) -> None:
        if next(flushes) == flush:
            raise stopped

    write(path, content(1))
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(type(stopped)):
        write(path, content(2))
    assert step_of(files.read(path)) == 1
    assert names(path) == ["last.ckpt", "last.ckpt.sha256"]


def test_a_folder_that_cannot_be_made_is_told_with_its_path(tmp_path: Path):
    (tmp_path / "taken").touch()
    with pytest.raises(OSError, match=f"{tmp_path}/taken"):
        write(tmp_path / "taken" / "last.ckpt", content(1))


# --- Lightning's way in -----------------------------------------------------------------------------------------


def test_what_lightning_saves_it_loads_again_and_removes_with_its_sidecar(path: Path):
    files = WholeCheckpoints()
    files.save_checkpoint(content(1), str(path))
    assert step_of(files.load_checkpoint(str(path))) == 1
    files.remove_checkpoint(str(path))
    assert names(path) == []
    files.remove_checkpoint(str(path))


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [torch.save, lambda payload, path: path.write_bytes(pickle.dumps(payload, 2))])
def test_code_in_a_checkpoint_does_not_run_even_where_lightning_asks_for_an_unsafe_load(dump: Callable, tmp_path: Path):
    dump({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "it.ckpt")
    with pytest.raises(ValueError, match=f"{tmp_path}/it.ckpt (was refused|is not a checkpoint)"):
        WholeCheckpoints().load_checkpoint(tmp_path / "it.ckpt", weights_only=False)
    assert not (tmp_path / "ran").exists()


# --- random states ----------------------------------------------------------------------------------------------


def drawn() -> list[Any]:
    """Draws of each kind; an odd number of normal ones, since generators keep the second of a pair."""
    gpu = torch.rand(3, device="cuda").tolist() if torch.cuda.is_available() else []
    python = [random.random(), random.gauss(0, 1), random.sample(range(99), 5)]
    return [*python, np.random.rand(), np.random.randn(), *torch.rand(3).tolist(), torch.randn(1).item(), *gpu]


def test_restored_random_states_go_on_with_the_same_draws(path: Path):
    drawn()
    write(path, {"random": random_states()})
    expected = [drawn() for _ in range(3)]
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert drawn() != expected[0]
    restore_random_states(files.read(path)["random"])
    assert [drawn() for _ in range(3)] == expected
