"""The LightningModule: one step, built from what it is given."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from zoo import checkpoint
from zoo.bundle import FORMAT
from zoo.criteria import CRITERIA, Outcome
from zoo.data import Batches, ImageData
from zoo.metrics import Totals
from zoo.pixels import OnPixels, see_through


class Classifier(LightningModule):
    """A model on pixels, its data, a criterion by name with its options, and what makes optimiser and schedule.

    `card` is what load_checkpoint needs to build the model again: plain types only.
    """

    def __init__(
        self,
        model: OnPixels,
        data: ImageData,
        criterion: Mapping[str, Any],
        *,
        optimizer: Callable[[OnPixels], Optimizer],
        schedule: Callable[..., LambdaLR],
        card: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        see_through(self, "model")
        self.data = data
        self.criterion = CRITERIA.bind(**criterion)
        self.parts = CRITERIA[criterion["name"]].facts.get("parts", ())
        self.optimizer, self.schedule, self.card = optimizer, schedule, dict(card)
        self.totals = {"train": Totals(), "val": Totals(), "step": Totals()}
        self.images, self.seconds = 0, 0.0  # that training steps took, validation and saving not counted
        self.elapsed = 0.0  # seconds of the whole fit, over all lives of the run
        self._resumed_at: float | None = None
        self._logged_at = 0
        self._restored: Mapping[str, Any] | None = None  # what a checkpoint said of the run, until training starts

    @property
    def images_per_second(self) -> float:
        """Of all processes, over the time in training steps."""
        running = 0.0 if self._resumed_at is None else time.perf_counter() - self._resumed_at
        images = 0 if self._resumed_at is None else self.totals["train"].images * self.trainer.world_size
        return (self.images + images) / max(self.seconds + running, 1e-9)

    @property
    def logged(self) -> list[str]:
        """The names that a monitor may watch."""
        means = ("loss", *self.parts, "top1_error", "top5_error")
        return [f"{part}/{name}" for part in ("train", "val") for name in means]

    def train_dataloader(self) -> Batches:
        trainer = self.trainer
        return self.data.training(
            trainer.strategy.root_device,
            epoch=lambda: trainer.current_epoch,
            shuffle=not trainer.overfit_batches,  # overfitting means seeing the same batches again
            rank=trainer.global_rank,
            world=trainer.world_size,
        )

    def val_dataloader(self) -> Batches:
        trainer = self.trainer
        device = trainer.strategy.root_device
        return self.data.batches("val", device, rank=trainer.global_rank, world=trainer.world_size)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.optimizer(self.model)
        total = self.trainer.estimated_stepping_batches  # first: it sets the loader up, which the next line counts
        steps = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        epochs = total / steps
        scheduler = self.schedule(optimizer, steps_per_epoch=steps, epochs=epochs)
        self._configured = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        self._begun = time.perf_counter() - self.elapsed
        for callback in self.trainer.callbacks:
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in self.logged:
                name = type(callback).__name__
                raise ValueError(f"{name} monitors {monitor!r}, which nobody logs; logged: {', '.join(self.logged)}")

    def on_train_start(self) -> None:
        if self._restored is None:
            return
        # only now: building loaders and optimisers draws from the generators too
        checkpoint.restore_random_states(self._restored["random"])
        # A restored optimiser brings its old rates along, which may have been overridden since.
        scheduler = self.lr_schedulers()
        scheduler.base_lrs = [group["initial_lr"] for group in self._configured]
        for group, new, factor in zip(
            self.trainer.optimizers[0].param_groups, self._configured, scheduler.lr_lambdas, strict=True
        ):
            group.update(new, lr=new["initial_lr"] * factor(scheduler.last_epoch))

        if epoch := self._restored["epoch"]:  # it goes on inside an epoch, of whose start nobody will tell
            self.on_train_epoch_start()
            for part, saved in epoch["totals"].items():
                self.totals[part].load_state_dict(saved, self.device)
            self._logged_at = self.global_step
            # not left to Lightning, which forgets it for loaders that configure_optimizers has asked for
            self.trainer.train_dataloader.load_state_dict(epoch["batches"])

    def on_train_epoch_start(self) -> None:
        self.totals["train"], self.totals["step"] = Totals(), Totals()
        self._resumed_at = self._stepped_at = time.perf_counter()

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor | None:
        if not len(batch[0]):  # every image of it was unreadable
            return None
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        outcome = self._counted("train", batch)
        self.totals["step"].add(outcome.loss, outcome.parts, outcome.scores, batch[1])
        if outcome.loss.device.type == "cpu":  # nothing to wait for; on a device it is looked at with each log
            self._stop_unless_finite(outcome.loss.item())
        return outcome.loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.max_steps != -1 and self.global_step >= self.trainer.max_steps:
            self.trainer.should_stop = True  # makes Lightning validate where it would otherwise just end
        self._log_step()

    def _log_step(self) -> None:
        """Logs what is due after this step, once."""
        if self.global_step <= self._logged_at or self.global_step % self.trainer.log_every_n_steps:
            return
        totals = self.totals["step"]
        means = totals.read()
        self._stop_unless_finite(means["loss"])
        now = time.perf_counter()
        scalars = {f"step/{name}": means[name] for name in ("loss", *self.parts) if name in means}
        scalars["step/images_per_second"] = totals.images * self.trainer.world_size / (now - self._stepped_at)
        scalars["step/lr"] = self._rate
        for logger in self.loggers:
            logger.log_metrics(scalars, step=self.global_step - 1)
        self.totals["step"], self._stepped_at, self._logged_at = Totals(), now, self.global_step

    def on_validation_epoch_start(self) -> None:
        self.totals["val"] = Totals()
        if not self.trainer.sanity_checking:
            self._pause()

    def validation_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> None:
        if len(batch[0]):
            self._counted("val", batch)

    def on_validation_epoch_end(self) -> None:
        means = self._report("val")
        if not math.isfinite(means["val/loss"]):
            self._stop_unless_finite(means["val/loss"], "validation loss")

    def on_train_epoch_end(self) -> None:
        self._pause()
        means = self._report("train")
        self._stop_unless_finite(means["train/loss"])
        self.log("images_per_second", self.images_per_second)

    def _counted(self, part: str, batch: tuple[Tensor, Any]) -> Outcome:
        x, y = batch
        outcome = self.criterion(self.model, x, y)
        self.totals[part].add(outcome.loss, outcome.parts, outcome.scores, y)
        return outcome

    def _report(self, part: str) -> dict[str, float]:
        """Logs the means over all processes' images."""
        summed = self.trainer.strategy.reduce(self.totals[part].tensor(self.device), reduce_op="sum")
        means = {f"{part}/{name}": value for name, value in self.totals[part].read(summed).items()}
        self.log_dict(means)
        return means

    def _pause(self) -> None:
        """Stops the clock that images per second are counted by, until the next epoch."""
        if self._resumed_at is not None:
            self.seconds += time.perf_counter() - self._resumed_at
            self.images += self.totals["train"].images * self.trainer.world_size
            self._resumed_at = None

    def _stop_unless_finite(self, value: float, name: str = "loss") -> None:
        if not math.isfinite(value):
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise FloatingPointError(
                f"the {name} is {value} at step {self.global_step} (epoch {self.current_epoch + 1}, learning rate "
                f"{rate:.2g}); stopped, and nothing was saved since the last good checkpoint. "
                "A smaller optimizer.lr or a longer schedule.warmup usually helps"
            )

    def on_save_checkpoint(self, content: dict[str, Any]) -> None:
        inside = self._resumed_at is not None  # of an epoch, in which the run goes on where it was
        running = time.perf_counter() - self._resumed_at if inside else 0.0
        if inside:  # what was logged before must not be lost with the process
            self._log_step()
            for logger in self.loggers:
                logger.save()
        content["zoo"] = {
            "format": FORMAT,
            "epochs": self.current_epoch + (not inside),
            "whole": inside or self.trainer.is_last_batch,  # False: max_steps cut the last epoch, which was ended there
            **self.card,
        }
        content["random"] = checkpoint.random_states()
        totals = {part: self.totals[part].state_dict() for part in ("train", "step")}
        batches = self.trainer.train_dataloader.state_dict()
        content["epoch_so_far"] = {"totals": totals, "batches": batches} if inside else {}
        content["clock"] = {
            "images": self.images,
            "seconds": self.seconds + running,
            "elapsed": time.perf_counter() - self._begun,
        }

    def on_load_checkpoint(self, content: dict[str, Any]) -> None:
        self._restored = {"random": content["random"], "epoch": content["epoch_so_far"]}
        self.images, self.seconds, self.elapsed = (content["clock"][key] for key in ("images", "seconds", "elapsed"))

    def on_fit_end(self) -> None:
        self.elapsed = time.perf_counter() - self._begun
