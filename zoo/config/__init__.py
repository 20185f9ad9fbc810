"""The glue to Hydra: registry rows → config nodes, an old run's config → a new run's start, errors → one line."""

import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from zoo import files
from zoo.config.complaints import explained, told
from zoo.config.inherit import inherited, settled, typed_value
from zoo.config.nodes import device, fill, load_plugins, measured, register, start, target
from zoo.config.training import card, optimizer, trainer

__all__ = ["card", "device", "fill", "measured", "optimizer", "quiet", "run", "start", "target", "trainer"]

logger = logging.getLogger(__name__)


def run(job: Callable[[DictConfig, Path], None], name: str) -> int:
    """Runs a script's `job(cfg, folder)` under configs/`name`.yaml and the command line. Returns the exit code.

    0: all went well; 1: something was wrong, told in one line; 130: Ctrl-C. Tracebacks are shown with `debug=…` or
    HYDRA_FULL_ERROR=1.
    """
    typed, before = sys.argv[1:], os.environ.get("HYDRA_FULL_ERROR", "0")
    full = before == "1" or any(re.match(r"debug=(?!null$)", each) for each in typed)
    overrides, failed = typed, []
    configs = Path(sys.modules[job.__module__].__file__ or "").resolve().with_name("configs")

    @functools.wraps(job)
    def caught(cfg: DictConfig) -> None:
        # as it was found: for the record, and for the processes that Lightning starts
        sys.argv[1:], os.environ["HYDRA_FULL_ERROR"] = typed, before
        try:
            attempt(job, cfg, from_checkpoint)
        except Exception as error:  # a sweep goes on with its next job
            if full:
                raise
            failed.append(error)
            complain(told(error))

    with messages():
        try:
            load_plugins(typed_value(typed, "plugins"))
            register()
            from_checkpoint = inherited(typed)
            at = next((i for i, each in enumerate(typed) if "=" in each), 0)  # overrides must stand together
            sys.argv[1:] = overrides = [*typed[:at], *from_checkpoint, *typed[at:]]
            os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions on instead of printing them
            hydra.main(version_base=None, config_path=str(configs), config_name=name)(caught)()
        except KeyboardInterrupt:
            return 130
        except SystemExit as stop:  # Lightning ends an interrupted fit with exit code 1
            return 130 if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
        except Exception as error:
            if full:
                raise
            complain(explained(error, overrides, configs, name))
            return 1
        finally:
            os.environ["HYDRA_FULL_ERROR"] = before
    return 1 if failed else 0


def attempt(job: Callable[[DictConfig, Path], None], cfg: DictConfig, from_checkpoint: list[str]) -> None:
    """One job, of a sweep or alone, in its claimed folder."""
    this = HydraConfig.get()
    if this.mode == RunMode.MULTIRUN:
        logger.info("job %s: %s", this.job.num, " ".join(this.overrides.task))
        sys.argv[1:] = this.overrides.task  # this job's own part of what was typed
    resumed = cfg.get("resume") and files.checkpoint_file(cfg.resume, "last").resolve().parent.parent
    with claimed(Path(this.runtime.output_dir), resumed=resumed) as folder:
        job(settled(cfg, from_checkpoint), folder)


def complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201


@contextmanager
def messages() -> Iterator[None]:
    """Shows what the package logs, as bare lines on stderr."""
    handler, ours = logging.StreamHandler(), logging.getLogger("zoo")
    level = ours.level
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def quiet() -> None:
    """Silences Lightning's advice about accelerators, loaders and products. To be called when it has been imported."""
    for theirs in "lightning.pytorch", "lightning.fabric":
        logging.getLogger(theirs).setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=theirs.replace(".", r"\."))
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # what debug=profile asks for


@contextmanager
def claimed(folder: Path, *, resumed: Path | None) -> Iterator[Path]:
    """The run's folder, for this process alone. Raises FileExistsError if a run is in it, or was but for `resumed`."""
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a rank that the first process started works in its folder
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileExistsError(f"another process is running in {folder}") from error
    try:
        if (folder / "checkpoints").exists() and folder.resolve() != resumed:
            raise FileExistsError(f"{folder} holds another run; resume={folder} goes on with it")
        yield folder
    finally:
        lock.release()
        if [entry.name for entry in folder.iterdir()] == [".lock"]:  # stopped before it wrote anything
            (folder / ".lock").unlink()
            folder.rmdir()
