"""Measure a checkpoint: python evaluate.py checkpoint=logs/train/<date>/<time> (README.md)."""

import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from zoo import config


def evaluate(cfg: DictConfig, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from zoo import load_checkpoint
    from zoo.criteria import CRITERIA
    from zoo.data import create_data
    from zoo.probes.accuracy import accuracy
    from zoo.report import confusion, results

    device = config.device(cfg.accelerator)
    model = load_checkpoint(cfg.checkpoint).to(device)
    data = create_data(**cfg.data)
    if data.classes != model.classes:
        raise ValueError(
            f"data {data.name} has {len(data.classes)} classes ({', '.join(data.classes[:3])} …), "
            f"the checkpoint {len(model.classes)} ({', '.join(model.classes[:3])} …)"
        )
    model.backbone.check_images(data.in_chans, data.image_size, data.image_size)
    batches = data.batches("test", device)
    started = time.perf_counter()
    measured = accuracy(model, batches, CRITERIA.bind(**model.config["criterion"]))
    seconds = time.perf_counter() - started
    by_class = dict(zip(data.classes, measured.by_class(), strict=True))
    content = results.results(
        {"test": {**measured.means, "accuracy_by_class": by_class}},
        parameters=sum(p.numel() for p in model.parameters()),
        seconds=seconds,
        images_per_second=measured.confusion.sum().item() / seconds,
        config={**model.config, "data": OmegaConf.to_container(cfg.data), "checkpoint": str(cfg.checkpoint)},
        seed=model.config["seed"],
    )
    results.save(content, folder / "results.json")
    confusion.save_csv(measured.confusion, data.classes, folder / "confusion.csv")
    confusion.save_png(measured.confusion, data.classes, folder / "confusion.png")
    console = Console()
    console.print(results.table(content, folder))
    classes = Table("class", "accuracy %", box=None, padding=(0, 2))
    for name, value in by_class.items():
        classes.add_row(name, f"{value:.2f}")
    console.print(classes)


if __name__ == "__main__":
    sys.exit(config.run(evaluate, "evaluate"))
