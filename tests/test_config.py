"""What can be typed, and what is answered."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT, Ended
from hydra import compose, initialize_config_dir
from names import NAMES, over
from omegaconf import DictConfig, OmegaConf

import zoo
from zoo.config.inherit import flat
from zoo.config.nodes import fill, register

Run = Callable[..., Ended]
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))
SMALL = ("backbone=lenet5", "data=textures", "data.size=28", "data.channels=1", "data.count=128", "data.batch_size=32")


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return compose("train", overrides=list(overrides))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_everything_that_an_experiment_says_survives_composition(name: str):
    text = (ROOT / "configs" / "experiment" / f"{name}.yaml").read_text()
    assert re.match(r"# @package _global_\n# .+ To run: python train\.py experiment=" + name, text)
    said = OmegaConf.to_container(OmegaConf.create(text))  # reads 1e-4 as a number, as Hydra does
    cfg = composed(f"experiment={name}")
    for choice in said.pop("defaults"):
        (group, option), *_ = choice.items()
        group = group.removeprefix("override /")
        if group in ("backbone", "data"):
            assert cfg[group].name == option
        else:
            node = yaml.safe_load((ROOT / "configs" / group / f"{option}.yaml").read_text())
            assert node.keys() <= cfg[group].keys()
            assert cfg[group].get("_target_") == node.get("_target_")
    for key, value in flat(said).items():
        assert OmegaConf.select(cfg, key) == value, key


def test_the_readme_names_every_experiment_with_or_without_its_data():
    words = set(re.findall(r"\w+", (ROOT / "README.md").read_text()))
    unnamed = [name for name in EXPERIMENTS if name not in words and name.rpartition("_")[0] not in words]
    assert [name for name in unnamed if name.removeprefix("digits_") not in words] == []


@pytest.mark.parametrize(("backbone", "criterion"), [("resnet20", "supervised"), ("capsnet", "capsule")])
def test_criterion_auto_is_what_the_backbone_declares(backbone: str, criterion: str):
    assert composed(f"backbone={backbone}").criterion.name == criterion
    assert composed("criterion=auto", f"backbone={backbone}").criterion.name == criterion
    if backbone == "capsnet":
        assert composed("experiment=capsnet_mnist").criterion.name == criterion


def test_the_options_of_the_automatic_criterion_can_be_set():
    assert composed("criterion.eps=0.1").criterion.eps == 0.1
    assert composed("backbone=capsnet", "criterion.weight=0.1").criterion.weight == 0.1


@over(NAMES)
def test_every_registered_backbone_has_a_node_with_its_arguments_and_sizes_from_the_data(name):
    node = OmegaConf.to_container(composed(f"backbone={name}").backbone)
    assert node.keys() - {"name"} == zoo.BACKBONES[name].options.keys()
    assert node["num_classes"] is node["in_chans"] is node.get("stem") is None


@pytest.mark.parametrize(
    ("size", "typed", "stem", "said"),
    [
        (64, (), "small", "images of 64 pixels: backbone.stem=small"),
        (65, (), "large", ""),
        (48, ("backbone.stem=large",), "large", ""),
        (224, ("backbone.stem=small",), "small", ""),
    ],
)
def test_images_of_up_to_64_pixels_get_the_small_stem_and_are_told_so_unless_one_is_typed(
    size, typed, stem, said, caplog
):
    caplog.set_level("INFO")
    cfg = composed("backbone=resnet18", *typed)
    fill(cfg, SimpleNamespace(name="photos", num_classes=5, in_chans=3, image_size=size))
    assert cfg.backbone.stem == stem
    assert caplog.messages == ([said] if said else [])


def test_the_rows_of_a_family_are_nodes_of_their_own_and_can_be_overridden():
    assert composed("backbone=resnet110").backbone.n == 18
    assert composed("backbone=resnet20", "backbone.n=1").backbone.n == 1


# what is typed → what the one line says
MISTAKES = {
    "backbone=resnet2O": "no backbone is named 'resnet2O'; did you mean resnet20",
    "optimizer=sgdd": "no optimizer is named 'sgdd'; did you mean sgd?",
    "data=minst": "no data is named 'minst'; did you mean mnist",
    "experiment=nothing": "no experiment is named 'nothing'",
    "bakbone=resnet20": "no config key or group 'bakbone'; did you mean backbone?",
    "optimizer.lrr=0.1": "no config key or group 'optimizer.lrr'; did you mean optimizer.lr?",
    "lr=0.1": "no config key or group 'lr'; did you mean optimizer.lr?",
    "+backbone.n=3": "backbone lenet5 has no option 'n'; known: image_size, in_chans, num_classes",
    "+criterion.epsilon=1": "criterion supervised has no option 'epsilon'; did you mean eps?",
    "+data.rot=1": "data textures has no option 'rot'",
    "+optimizer.foo=3": "unexpected keyword argument 'foo'",
    "+trainer.foo=3": "unexpected keyword argument 'foo'",
    "+augment.foo.p=1": "no augmentation is named 'foo'; known: ",
    "+augment.crop.foo=1": "crop has no option 'foo'; known: fill, padding",
    "+augment.crop.fill=wrap": "crop: fill must be zero or reflect, not 'wrap'",
    "criterion=capsule": "criterion capsule cannot serve backbone lenet5: it reads lengths, the scores are logits",
    "criterion.prior=[0.5,0.5]": "criterion.prior must be 4 probabilities",
    "criterion.eps=1.5": "criterion.eps=1.5 is not possible: it must be from 0, below 1",
    "optimizer.lr=-1": "optimizer.lr=-1 is not possible: it must be above 0",
    "optimizer.lr=nan": "optimizer.lr=nan is not possible",
    "optimizer.lr=abc": "optimizer.lr=abc is not possible",
    "optimizer.lr=true": "optimizer.lr=True is not possible",
    "optimizer._target_=os.system": "_target_=os.system is refused",
    "optimizer._target_=torch.load": "_target_=torch.load is refused: it is no subclass of Optimizer",
    "optimizer._target_=torch.optim.SDG": "_target_=torch.optim.SDG does not exist",
    "data.batch_size=0": "data.batch_size=0 is not possible: it must be a whole number from 1",
    "data.batch_size=9999": "data textures has 115 training images, fewer than a batch (data.batch_size=9999)",
    "data.val_fraction=0.001": "data textures has no val images",
    "data.classes=1": "textures need two classes",
    "trainer.max_epochs=3.5": "trainer.max_epochs=3.5 is not possible: it must be a whole number from 1",
    "trainer.max_epochs=0": "trainer.max_epochs=0 is not possible",
    "trainer.max_steps=0": "trainer.max_steps=0 is not possible",
    "trainer.precision=bf17": "Precision 'bf17' is invalid",
    "seed=-1": "seed=-1 is not possible",
    "backbone.name=stn_cnn": "backbone.name=stn_cnn only renames lenet5: write backbone=stn_cnn",
    "schedule=exponential schedule.every=0": "schedule.every=0 is not possible: it must be above 0",
    "augment=standard_cifar augment.crop.padding=-1": "crop: padding=-1 must be 0 or above",
    "augment=standard_cifar augment.flip.p=7": "flip: p=7 must be from 0 to 1",
    "optimizer._target_=torch.os.system": "_target_=torch.os.system is refused",
    "seed=99999999999": "seed=99999999999 is not possible",
    "backbone.num_classes=7": "backbone.num_classes=7 contradicts data textures, which has num_classes=4",
    "data.size=8": "LeNet needs images of at least 12×12, not 8×8",
    "data.channels=3 backbone.in_chans=1": "backbone.in_chans=1 contradicts data textures, which has in_chans=3",
    "callbacks.checkpoint.monitor=val/acc": "Checkpoints monitors 'val/acc', which nobody logs; logged: train/loss",
    "callbacks.checkpoint.mode=up": "callbacks.checkpoint.mode must be min or max, not 'up'",
    "data=image_folder": "data.root must be given",
    "data=image_folder data.root=/nowhere": "no such image folder: data.root=/nowhere",
    "data=mnist data.root=/nowhere data.download=false": "no such folder: data.root=/nowhere",
    "resume=/nowhere": "no such checkpoint: /nowhere",
    "resume=README.md": "README.md is not a checkpoint (it starts with",
    "plugins=[nowhere.py]": "no such plugin: plugins=[nowhere.py]",
    "optimizer.lr": "Error parsing override 'optimizer.lr'",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(typed: str, run: Run, tmp_path: Path):
    base = [each for each in SMALL if each.split("=")[0] not in typed] if "data=" in typed else SMALL
    base = [each for each in base if not ("data=" in typed and each.startswith("data."))]
    base = [each for each in base if each.split("=")[0] not in [t.split("=")[0] for t in typed.split()]]
    where = [] if typed.startswith("resume") else [f"hydra.run.dir={tmp_path / 'run'}"]
    ended = run("train", *base, *typed.split(), *where)
    assert ended.code == 1
    assert MISTAKES[typed] in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert "HYDRA_FULL_ERROR" not in ended.err
    assert not (tmp_path / "run").exists() or not list(tmp_path.glob("run/checkpoints/*"))


def test_a_file_where_the_output_folder_should_be_is_named(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for folder in tmp_path / "file", tmp_path / "file" / "below":
        ended = run("train", *SMALL, f"hydra.run.dir={folder}")
        assert ended.code == 1
        assert re.fullmatch(rf"error: {folder}: (File exists|Not a directory)\n", ended.err)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_gpu_that_is_not_there_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ended = run("train", *SMALL, "trainer=gpu", f"hydra.run.dir={tmp_path}")
    assert ended.code == 1
    assert ended.err == "error: No supported gpu backend found!\n"
