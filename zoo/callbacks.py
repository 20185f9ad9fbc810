"""What a run does on the side: checkpoints, progress, pictures, and the metrics file."""

import csv
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from zoo.files import whole

logger = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """checkpoints/last.ckpt at each epoch's end, and best.ckpt where `monitor` is the best so far.

    mode: "min" or "max". A value that is not finite is never the best; a tie goes to the earlier epoch.
    every_n_steps: also saves last.ckpt inside of long epochs.
    """

    def __init__(self, *, monitor: str = "val/top1_error", mode: str = "min", every_n_steps: int | None = None) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"callbacks.checkpoint.mode must be min or max, not {mode!r}")
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"callbacks.checkpoint.every_n_steps={every_n_steps} must be 1 or above, or null")
        self.monitor, self.mode, self.every_n_steps = monitor, mode, every_n_steps
        self.best: float | None = None
        self.saved_step = 0

    def file(self, trainer: Trainer, which: str) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints" / f"{which}.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.file(trainer, "best").is_file():  # resumed into a new folder, which shall have a best of its own
            self.best = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        step = trainer.global_step
        due = self.every_n_steps and step > self.saved_step and step % self.every_n_steps == 0
        if due and not trainer.is_last_batch and step != trainer.max_steps:  # which the epoch's end saves, validated
            self.saved_step = step
            trainer.save_checkpoint(self.file(trainer, "last"))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        better = self._is_best(trainer.callback_metrics.get(self.monitor))
        self.saved_step = trainer.global_step
        for which in ("best", "last") if better else ("last",):
            trainer.save_checkpoint(self.file(trainer, which))

    def _is_best(self, value: Tensor | None) -> bool:
        if value is None:  # not validated yet, or not at all: the newest is the best there is
            return self.best is None
        sign = 1 if self.mode == "min" else -1
        better = math.isfinite(value) and (self.best is None or sign * value < sign * self.best)
        if better:
            self.best = float(value)
        return better

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt) or trainer.global_rank:
            return
        step, last = trainer.global_step, self.file(trainer, "last")
        if last.is_file():
            logger.info("stopped at step %d; steps lost since %s: %d", step, last, step - self.saved_step)
            logger.info("go on with: python train.py resume=%s", trainer.default_root_dir)
        else:
            logger.info("stopped at step %d, before the first checkpoint; steps lost: %d", step, step)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "saved_step": self.saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.saved_step = state_dict["best"], state_dict["saved_step"]


class RunProgress(ProgressBar):
    """A live bar on a terminal, drawn by time and not by step; one line for each epoch everywhere."""

    def __init__(self, *, interval: float = 0.25) -> None:
        super().__init__()
        self.interval = interval  # seconds between two drawings
        self._bar: Progress | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        logger.info(" ".join(map(str, args)))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._bar is not None or not self._enabled or not sys.stderr.isatty():
            return
        self._drawn = time.perf_counter()
        columns = (
            "{task.description}",
            BarColumn(None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            "{task.fields[now]}",
        )
        shown = [TextColumn(column) if isinstance(column, str) else column for column in columns]
        self._bar = Progress(*shown, console=Console(stderr=True), transient=True, auto_refresh=False)
        self._task = self._bar.add_task(_epoch(trainer), total=trainer.num_training_batches, now="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._bar is None or now - self._drawn < self.interval:
            return
        self._drawn = now
        means, rate = pl_module.totals["train"].read(), pl_module.images_per_second
        text = f"loss {means['loss']:.3f}  top-1 {100 - means['top1_error']:.1f} %  {rate:,.0f} images/s"
        self._bar.update(self._task, completed=batch_idx + 1, now=text)
        self._bar.refresh()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        if not self._enabled:
            return
        value = {name: float(metric) for name, metric in trainer.callback_metrics.items()}
        train = pl_module.totals["train"].read()
        told = [f"{_epoch(trainer)}: train loss {train['loss']:.4f}, top-1 {100 - train['top1_error']:.2f} %"]
        if "val/loss" in value:
            told.append(f"val loss {value['val/loss']:.4f}, top-1 {100 - value['val/top1_error']:.2f} %")
        told.append(f"{pl_module.images_per_second:,.0f} images/s")
        logger.info("; ".join(told))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _epoch(trainer: Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


class Pictures(Callback):
    """At each validation, every picture that the backbone can give, of the first validation images, to TensorBoard.

    `draw` names them; train.py fills it.
    """

    def __init__(self, *, images: int = 8) -> None:
        self.images = images
        self.draw: Mapping[str, Callable[[Any, Tensor, Tensor], Tensor]] = {}

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        boards = [each.experiment for each in trainer.loggers if isinstance(each, TensorBoardLogger)]
        if not self.draw or not boards:
            return
        x, y = next(iter(trainer.val_dataloaders))
        with torch.no_grad():
            for name, picture in self.draw.items():
                image = picture(pl_module.model, x[: self.images], first(y, self.images))
                for board in boards:
                    board.add_image(name, image, trainer.global_step)


def first(y: Tensor | Mapping[str, Tensor], count: int) -> Tensor | Mapping[str, Tensor]:
    return {name: each[:count] for name, each in y.items()} if isinstance(y, Mapping) else y[:count]


class Augmented(Callback):
    """augmented.png: above, the first training images; below, what the network sees of them in `draws` epochs."""

    def __init__(self, *, images: int = 8, draws: int = 7) -> None:
        self.images, self.draws = images, draws

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from torchvision.utils import make_grid, save_image

        data = pl_module.data
        epochs = [data.training(epoch=lambda e=e: e, shuffle=False) for e in range(self.draws)]
        rows = [next(iter(batches))[0][: self.images] for batches in (data.batches("train"), *epochs)]
        colours = [x if x.shape[1] in (1, 3) else x.mean(1, keepdim=True) for x in rows]
        path = Path(trainer.default_root_dir) / "augmented.png"
        save_image(make_grid(torch.cat(colours), nrow=len(rows[0]), padding=2, pad_value=0.5), path)
        logger.info("what the network will see: %s", path)


class MetricsFile(Logger):
    """metrics.csv: a row for each step that something was logged at. A resumed run goes on in it.

    Rows that a killed run wrote after the checkpoint it is resumed from are dropped: those steps are taken again.
    """

    def __init__(self, *, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._old = self._changed = False
        if self.path.is_file():
            with self.path.open(newline="") as file:
                self._rows = [dict(row, step=int(row["step"])) for row in csv.DictReader(file)]
            self._old = bool(self._rows)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's folder has config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._old:
            self._rows = [row for row in self._rows if row["step"] < step]
            self._old = False
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1].update({key: f"{float(value):.7g}" for key, value in metrics.items()})
        self._changed = True

    @rank_zero_only
    def save(self) -> None:
        if not self._changed:
            return
        names = {name: None for row in self._rows for name in row}
        columns = [
            *(name for name in ("epoch", "step") if name in names),
            *(n for n in names if n not in ("epoch", "step")),
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole(self.path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
        self._changed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
