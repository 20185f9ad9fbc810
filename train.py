"""Train a backbone: python train.py backbone=capsnet data=mnist optimizer.lr=1e-3 (--help lists the groups)."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from zoo import config


def train(cfg: DictConfig, folder: Path) -> None:
    from lightning import seed_everything
    from rich.console import Console

    from zoo import create_model, load_checkpoint, on_pixels
    from zoo.classifier import Classifier
    from zoo.criteria import CRITERIA, check_serves
    from zoo.data import create_data
    from zoo.files import checkpoint_file, whole
    from zoo.probes.accuracy import accuracy
    from zoo.report import results

    config.quiet()
    seed_everything(cfg.seed, verbose=False)
    begun = config.start(cfg)
    data = create_data(**cfg.data, augment=cfg.augment)
    config.fill(cfg, data, begun.preprocess)
    backbone = create_model(**cfg.backbone, **begun.arguments)
    backbone.check_images(data.in_chans, data.image_size, data.image_size)
    check_serves(cfg.criterion.name, backbone, cfg.backbone.name, cfg.criterion, data.targets)
    classifier = Classifier(
        on_pixels(backbone, mean=data.mean, std=data.std),
        data,
        cfg.criterion,
        optimizer=config.optimizer(cfg.optimizer),
        schedule=config.target(cfg.schedule),
        card=config.card(cfg, data),
    )
    trainer = config.trainer(cfg, folder, backbone)
    if trainer.is_global_zero:
        with whole(folder / "config.yaml") as fresh:
            OmegaConf.save(cfg, fresh)
    trainer.fit(classifier, ckpt_path=cfg.resume and checkpoint_file(cfg.resume, "last"))
    if not trainer.is_global_zero:
        return
    device = trainer.strategy.root_device
    best = load_checkpoint(folder).to(device)
    criterion = CRITERIA.bind(**cfg.criterion)
    content = results.results(
        {part: accuracy(best, data.batches(part, device), criterion).means for part in ("test", "val")},
        parameters=sum(p.numel() for p in backbone.parameters()),
        seconds=classifier.elapsed,
        images_per_second=classifier.images_per_second,
        config=classifier.card["config"],
        seed=cfg.seed,
    )
    results.save(content, folder / "results.json")
    console = Console()
    console.print(results.table(content, folder))
    console.print(f"python evaluate.py checkpoint={folder}", f"tensorboard --logdir {folder}", sep="\n", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(config.run(train, "train"))
