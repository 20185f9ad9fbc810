"""From the command line to the run's folder, and back."""

import csv
import json
import math
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, Ended, start
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import zoo

SMALL = ("data=textures", "data.size=28", "data.channels=1", "data.count=128", "data.batch_size=32")
LENET = ("backbone=lenet5", *SMALL)
PLUGIN = f"plugins=[{Path(__file__).with_name('plugin.py')}]"

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert start("train", *LENET, "trainer.max_epochs=2", "augment=standard_cifar", f"hydra.run.dir={folder}") == 0
    return folder


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


def test_a_run_leaves_checkpoints_config_events_metrics_and_results(trained: Path):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["backbone"] == {"name": "lenet5", "num_classes": 4, "in_chans": 1, "image_size": 28}
    results = json.loads((trained / "results.json").read_text())
    assert results.keys() == {
        *("test", "val", "parameters", "seconds", "images_per_second"),
        *("config", "seed", "versions", "hardware", "commit", "command"),
    }
    assert results["test"].keys() == {"loss", "top1_error", "top5_error"}
    assert results["config"] == config
    for which in "best", "last":
        assert torch.load(trained / "checkpoints" / f"{which}.ckpt", weights_only=True)["zoo"]["config"] == config
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(math.isfinite(float(row[name])) for row in rows for name in ("train/loss", "val/top1_error"))
    assert {"train/loss", "val/loss", "val/top1_error", "images_per_second"} <= set(events(trained).Tags()["scalars"])


def test_evaluate_repeats_the_test_figure_exactly(trained: Path, run: Run, tmp_path: Path):
    out = tmp_path / "measured"
    ended = run("evaluate", f"checkpoint={trained}", f"hydra.run.dir={out}")
    assert ended.code == 0, ended.err
    first, again = (json.loads((folder / "results.json").read_text()) for folder in (trained, out))
    by_class = again["test"].pop("accuracy_by_class")
    assert again["test"] == first["test"]
    rows = list(csv.reader((out / "confusion.csv").open()))
    counts = torch.tensor([[int(cell) for cell in row[1:]] for row in rows[1:]])
    assert counts.sum() == 32
    assert 100 - 100 * counts.diag().sum().item() / 32 == pytest.approx(first["test"]["top1_error"])
    assert list(by_class) == rows[0][1:]
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_takes_other_data_of_the_same_classes(trained: Path, run: Run, tmp_path: Path):
    out = tmp_path / "noisy"
    ended = run("evaluate", f"checkpoint={trained}", "data.noise=0.8", "data.seed=5", f"hydra.run.dir={out}")
    assert ended.code == 0, ended.err
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["data"]["noise"] == 0.8
    assert results["config"]["data"]["count"] == 128


def test_evaluate_refuses_data_of_other_classes(trained: Path, run: Run, tmp_path: Path):
    ended = run("evaluate", f"checkpoint={trained}", "data.classes=3", f"hydra.run.dir={tmp_path / 'out'}")
    assert ended.code == 1
    assert "has 3 classes" in ended.err
    assert "the model 4" in ended.err


def test_a_checkpoint_is_a_model_on_pixels_with_classes_and_config(trained: Path):
    model = zoo.load_checkpoint(trained)
    assert not any(module.training for module in model.modules())
    assert model.classes == ("0°", "45°", "90°", "135°")
    assert model.config["backbone"]["name"] == "lenet5"
    assert list(model.parameters())


def test_a_checkpoints_weights_load_strictly_into_the_bare_backbone(trained: Path):
    file = trained / "checkpoints" / "best.ckpt"
    bare = zoo.create_model("lenet5", num_classes=4)
    bare.load_state_dict(torch.load(file, weights_only=True)["state_dict"], strict=True)
    model, x = zoo.load_checkpoint(file), torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(bare.eval()(model.normalise(x)), model(x))
    same = zoo.create_model("lenet5", num_classes=4, checkpoint_path=file).eval()
    torch.testing.assert_close(same(model.normalise(x)), model(x))


def test_a_run_on_a_folder_of_images_is_evaluated_and_resumed_from_what_its_checkpoint_says(run: Run, tmp_path: Path):
    for name, shade in ("dark", 40), ("light", 200):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (40, 30), (shade + i, shade, shade)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "dark" / "3.png").write_bytes(b"not an image")  # in batches of one: a batch of none
    folder, chosen = tmp_path / "run", ("data=image_folder", f"data.root={tmp_path / 'photos'}", "data.size=32")
    few = ("data.batch_size=1", "data.on_error=skip", "data.workers=0", "trainer.max_epochs=1")
    assert run("train", "backbone=resnet20", "backbone.n=1", *chosen, *few, f"hydra.run.dir={folder}").code == 0
    assert zoo.load_checkpoint(folder).classes == ("dark", "light")
    assert next(csv.DictReader((folder / "metrics.csv").open()))["val/loss"]
    ended = run("evaluate", f"checkpoint={folder}", f"hydra.run.dir={tmp_path / 'out'}")
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "out" / "results.json").read_text())["test"].keys() > {"loss", "top1_error"}
    resumed = run("train", f"resume={folder}", "trainer.max_epochs=2")
    assert resumed.code == 0, resumed.err
    assert "epoch 2/2" in resumed.err


def test_a_second_run_in_the_same_folder_is_refused(trained: Path, run: Run):
    before = (trained / "results.json").read_text()
    ended = run("train", *LENET, f"hydra.run.dir={trained}")
    assert ended.code == 1
    assert "holds another run" in ended.err
    assert (trained / "results.json").read_text() == before


@pytest.mark.parametrize(
    ("backbone", "picture", "parts"),
    [("capsnet", "reconstruction", {"step/margin", "step/reconstruction"}), ("stn_cnn", "warp", set())],
)
def test_a_validation_leaves_a_picture(backbone: str, picture: str, parts: set[str], run: Run, tmp_path: Path):
    folder = tmp_path / "run"
    few = ("data.batch_size=4", "debug=fast", "trainer.log_every_n_steps=1")
    ended = run("train", f"backbone={backbone}", *SMALL, *few, f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.err
    tags = events(folder).Tags()
    assert tags["images"] == [picture]
    assert {"step/loss", "step/lr", "step/images_per_second", *parts} <= set(tags["scalars"])
    image = events(folder).Images(picture)[0]
    assert (image.width, image.height) == (4 * 29 + 1, 2 * 29 + 1)


def test_every_job_of_a_sweep_has_its_own_folder_and_a_failed_one_does_not_stop_the_next(run: Run, tmp_path: Path):
    sweep = ("backbone=lenet5,stn_cnn", "optimizer.lr=-1,1e-3", "trainer.max_epochs=1")
    ended = run("train", "-m", *SMALL, *sweep, f"hydra.sweep.dir={tmp_path}")
    assert ended.code == 1
    assert ended.err.count("error: optimizer.lr=-1 is not possible") == 2
    done = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("*/results.json")}
    assert {number: result["config"]["backbone"]["name"] for number, result in done.items()} == {
        "1": "lenet5",
        "3": "stn_cnn",
    }


def test_early_stopping_is_a_callback_option(run: Run, tmp_path: Path):
    patience = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12")
    ended = run("train", *LENET, *patience, "trainer.max_epochs=9", f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    assert "epoch 2/9" in ended.err
    assert "epoch 3/9" not in ended.err


def test_a_run_that_max_steps_ends_inside_an_epoch_is_still_validated_and_saved(run: Run, tmp_path: Path):
    folder = tmp_path / "run"
    ended = run("train", *LENET, "trainer.max_steps=5", "trainer.max_epochs=9", f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.err
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5
    assert (folder / "checkpoints" / "best.ckpt").is_file()


def test_a_loss_that_turns_nan_stops_the_run_and_keeps_the_last_good_checkpoint(run: Run, tmp_path: Path):
    folder, marker = tmp_path / "run", tmp_path / "marker"
    accident = f"+augment.accident={{what: spoil, marker: '{marker}', at: 7}}"  # the 7th of 3 batches an epoch
    ended = run("train", *LENET, PLUGIN, accident, "trainer.max_epochs=5", f"hydra.run.dir={folder}")
    assert ended.code == 1
    assert "the loss is nan at step 6 (epoch 3" in ended.err
    assert "Traceback" not in ended.err
    for which in "best", "last":
        saved = torch.load(folder / "checkpoints" / f"{which}.ckpt", weights_only=True)
        assert saved["global_step"] <= 6
        assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_the_checkpoint_before(run: Run, tmp_path: Path):
    folder, marker = tmp_path / "run", tmp_path / "marker"
    accident = f"+augment.accident={{what: full, marker: '{marker}', at: 5}}"
    try:
        ended = run("train", *LENET, PLUGIN, accident, "trainer.max_epochs=5", f"hydra.run.dir={folder}", "logger=none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert ended.code == 1
    assert "cannot save" in ended.err
    assert "File too large" in ended.err
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not list((folder / "checkpoints").glob(".*"))
    assert zoo.load_checkpoint(folder)


def test_the_readmes_backbone_of_ones_own_trains_as_a_plugin(run: Run, tmp_path: Path):
    file, folder = tmp_path / "mynet.py", tmp_path / "run"
    (code,) = re.findall(r"```python\n(from torch import nn\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file.write_text(code)
    chosen = ("backbone=tiny", "backbone.width=5", *SMALL, "trainer.max_epochs=1", f"hydra.run.dir={folder}")
    ended = run("train", f"plugins=[{file}]", *chosen)
    assert ended.code == 0, ended.err
    assert zoo.load_checkpoint(folder).backbone.num_features == 5
    assert run("evaluate", f"plugins=[{file}]", f"checkpoint={folder}", f"hydra.run.dir={tmp_path / 'out'}").code == 0


def test_a_run_without_validation_keeps_its_newest_weights(run: Run, tmp_path: Path):
    chosen = ("trainer.limit_val_batches=0", "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}")
    ended = run("train", *LENET, *chosen)
    assert ended.code == 0, ended.err
    best, last = (torch.load(tmp_path / "run" / "checkpoints" / f"{which}.ckpt") for which in ("best", "last"))
    assert best["global_step"] == last["global_step"] == 6


@pytest.mark.slow
def test_the_default_run_recognises_98_percent_of_the_digits(run: Run, tmp_path: Path):
    ended = run("train", f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["test"]["top1_error"] <= 2


@pytest.mark.slow
def test_two_processes_share_the_images_of_an_epoch(tmp_path: Path):
    chosen = (*LENET, "trainer=ddp_cpu", "trainer.max_epochs=2", f"hydra.run.dir={tmp_path / 'run'}")
    ended = subprocess.run([sys.executable, "train.py", *chosen], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("epoch 1/2") == 1
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2  # 115 images are one batch of 32 for each, and one process takes three


def test_an_optimiser_that_keeps_its_options_as_they_are_given_leaves_a_readable_checkpoint(run: Run, tmp_path: Path):
    chosen = ("optimizer._target_=torch.optim.RAdam", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    ended = run("train", *LENET, *chosen)
    assert ended.code == 0, ended.err
    assert zoo.load_checkpoint(tmp_path / "run")


def test_accumulated_batches_are_one_step_of_schedule_and_log(run: Run, tmp_path: Path):
    often = ("+trainer.accumulate_grad_batches=3", "trainer.log_every_n_steps=1", "schedule.warmup=1")
    ended = run("train", *LENET, *often, "trainer.max_epochs=4", f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    rates = [float(row["step/lr"]) for row in rows if row["step/lr"]]
    assert rates[:2] == [pytest.approx(0.001), pytest.approx(0.002)]  # the one step of the warm-up, and the whole rate
    assert len(rates) == 4


def test_debug_augment_draws_images_above_what_the_network_will_see_of_them(run: Run, tmp_path: Path):
    folder = tmp_path / "run"
    ended = run(
        "train",
        "backbone=lenet5",
        "data=textures",
        "data.size=28",
        "data.channels=1",
        "debug=augment",
        "+augment.flip={p: 1.0}",
        f"hydra.run.dir={folder}",
    )
    assert ended.code == 0, ended.err
    assert f"what the network will see: {folder / 'augmented.png'}" in ended.err
    with Image.open(folder / "augmented.png") as drawn:
        shown = torch.from_numpy(np.array(drawn))[:, :, 0]
    cells = shown[2:, 2:].unfold(0, 28, 30).unfold(1, 28, 30)  # a frame of two pixels around each image
    assert cells.shape[:2] == (8, 8)
    for row in cells[1:]:
        assert torch.equal(row, cells[0].flip(2))
