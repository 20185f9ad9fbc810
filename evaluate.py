"""Measure a checkpoint: python evaluate.py checkpoint=logs/train/<date>/<time> (README.md)."""

import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from zoo import config


def evaluate(cfg: DictConfig, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo.criteria import CRITERIA
    from zoo.probes.accuracy import accuracy
    from zoo.report import confusion, results

    device = config.device(cfg.accelerator)
    model, data = config.measured(cfg)
    model.to(device)
    model.backbone.check_images(data.in_chans, data.image_size, data.image_size)
    batches = data.batches("test", device)
    started = time.perf_counter()
    measured = accuracy(model, batches, CRITERIA.bind(**model.config["criterion"]))
    seconds = time.perf_counter() - started
    by_class = {name: value for name, value in zip(data.classes, measured.by_class(), strict=True) if value == value}
    content = results.results(
        {"test": {**measured.means, "accuracy_by_class": by_class}},
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=seconds,
        images_per_second=measured.confusion.sum().item() / seconds,
        config={**model.config, **OmegaConf.to_container(cfg)},
        seed=model.config.get("seed", cfg.seed),
    )
    results.save(content, folder / "results.json")
    confusion.save_csv(measured.confusion, data.classes, folder / "confusion.csv")
    confusion.save_png(measured.confusion, data.classes, folder / "confusion.png")
    console = Console()
    console.print(results.table(content, folder))
    if len(by_class) > 100:  # they are in results.json
        return
    classes = Table("class", "accuracy %", box=None, padding=(0, 2))
    for name, value in by_class.items():
        classes.add_row(name, f"{value:.2f}")
    console.print(classes)


if __name__ == "__main__":
    sys.exit(config.run(evaluate, "evaluate"))
