"""A folder of save_pretrained gives the same model back, or says why not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_fit import assert_same, copy, moved

import zoo
from zoo import bundle

FACTS = zoo.Preprocess(
    *(32, 36, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    squash=True,
    classes=("chat", "hibou", "σκύλος"),
    licence="MIT",
)


def small_net() -> zoo.Backbone:
    model = zoo.create_model("resnet20", n=1, num_classes=3)
    model.preprocess = FACTS
    zoo.load_weights(model, moved(model))
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return zoo.save_pretrained(small_net(), tmp_path / "saved")


# --- round trips ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet20", {"n": 1, "num_classes": 3, "in_chans": 2}, (2, 2, 32, 32)),
        ("efficientnet_b0", {"stem": "small", "num_classes": 0, "drop_path": 0.1}, (2, 3, 32, 32)),
        ("capsnet", {"image_size": 17, "num_classes": 3, "decoder": False}, (2, 1, 17, 17)),
        ("capsnet", {"image_size": 17, "num_classes": 3}, (2, 1, 17, 17)),
        ("lenet5_original", {}, (2, 1, 32, 32)),
        ("vgg11", {"stem": "small", "depths": (1, 1, 1, 1, 1), "num_classes": 2}, (2, 3, 32, 32)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_was_saved_gives_exactly_the_same_scores(tmp_path, name, options, shape):
    model = zoo.create_model(name, **options).eval()
    loaded = zoo.load_pretrained(zoo.save_pretrained(model, tmp_path / "saved"))
    x = torch.rand(shape)
    assert torch.equal(loaded(x), model(x))
    assert_same(loaded, model.state_dict())
    assert not any(module.training for module in loaded.modules())
    assert loaded.built_as == json.loads(json.dumps(model.built_as)), "with what only training reads"


def test_what_was_saved_on_pixels_normalises_as_it_did(tmp_path):
    model = zoo.on_pixels(small_net(), mean=(0.1, 0.2, 0.3), std=0.7).eval()
    loaded = zoo.on_pixels(zoo.load_pretrained(zoo.save_pretrained(model, str(tmp_path / "saved"))))
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(loaded.eval()(x), model(x))
    assert torch.equal(loaded.mean, model.mean)
    assert loaded.backbone.preprocess.classes == FACTS.classes


def test_everything_that_the_weights_expect_comes_back(folder):
    assert zoo.load_pretrained(folder).preprocess == FACTS
    assert "hibou" in (folder / "config.json").read_text(encoding="utf-8"), "for people to read"


def test_the_files_are_two_that_others_can_read(folder):
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert {path.name for path in folder.parent.iterdir()} == {"saved"}, "nothing is left beside it"
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert state.keys() == small_net().state_dict().keys()


def test_a_classifier_that_was_reset_afterwards_is_saved_as_it_is(tmp_path):
    model = small_net()
    model.reset_classifier(7)
    loaded = zoo.load_pretrained(zoo.save_pretrained(model, tmp_path / "saved"))
    assert loaded.num_classes == 7
    assert_same(loaded, model.state_dict())


def test_what_was_loaded_can_be_saved_again(folder, tmp_path):
    again = zoo.save_pretrained(zoo.on_pixels(zoo.load_pretrained(folder)), tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (again / "config.json").read_bytes() == (folder / "config.json").read_bytes()


@pytest.mark.parametrize("given", [lambda f: f, str, lambda f: f / "model.safetensors"], ids=["folder", "str", "file"])
def test_create_model_takes_a_folder_as_checkpoint_path_and_adapts_it(folder, given):
    model = zoo.create_model("resnet20", n=1, num_classes=5, in_chans=1, checkpoint_path=given(folder))
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(model.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    assert model.preprocess == replace(FACTS, mean=(0.449,), std=(0.226,), classes=())


def test_weights_without_a_config_load_and_tell_nothing_of_what_they_expect(folder):
    (folder / "config.json").unlink()
    model = zoo.create_model("resnet20", n=1, num_classes=3, checkpoint_path=folder)
    assert_same(model, small_net_state(folder))
    assert model.preprocess is None


def small_net_state(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


# --- whole or not at all ----------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saving_again_replaces_what_was_saved(folder):
    model = small_net()
    zoo.load_weights(model, moved(model))
    zoo.save_pretrained(model, folder)
    assert_same(zoo.load_pretrained(folder), model.state_dict())


@pytest.mark.parametrize("fails", ["config", "weights"])
def test_a_save_that_fails_leaves_the_old_folder_whole_and_nothing_else(folder, fails):
    before, model = content(folder), small_net()
    if fails == "config":
        model.built_as = {**model.built_as, "n": {1, 2}}  # nothing that JSON knows
    else:
        model.bn1.weight = model.layer1[0].bn1.weight  # two names for one tensor, which safetensors refuses
    for place in folder, folder.parent / "new":
        with pytest.raises((TypeError, RuntimeError)):
            zoo.save_pretrained(model, place)
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["saved"]


def test_a_folder_with_other_things_is_left_alone(folder):
    (folder / "notes.txt").write_text("mine")
    before = content(folder)
    with pytest.raises(FileExistsError, match=f"{folder} holds other things"):
        zoo.save_pretrained(small_net(), folder)
    with pytest.raises(FileExistsError, match="holds other things"):
        zoo.save_pretrained(small_net(), folder / "notes.txt")
    assert content(folder) == before


def test_a_folder_may_be_empty_or_below_others_or_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for place in ".", tmp_path / "empty", tmp_path / "a" / "b":
        zoo.save_pretrained(small_net(), place)
        zoo.load_pretrained(place)


def test_a_model_that_create_model_did_not_make_cannot_be_saved(tmp_path):
    model = zoo.BACKBONES.build("lenet5")
    with pytest.raises(ValueError, match="this LeNet was not made by create_model"):
        zoo.save_pretrained(model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# --- damaged, newer, foreign ------------------------------------------------------------------------------------


def test_files_of_two_saves_are_not_taken_for_one(folder, tmp_path):
    model = small_net()
    zoo.load_weights(model, moved(model))
    other = zoo.save_pretrained(model, tmp_path / "other")
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"safetensors is damaged: its SHA-256 is not the one in config\.json"):
        zoo.load_pretrained(folder)


def test_one_flipped_bit_is_found(folder):
    file = folder / "model.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    assert safetensors.torch.load_file(file), "safetensors itself reads on"
    with pytest.raises(ValueError, match=rf"{file} is damaged"):
        zoo.load_pretrained(folder)


def rewrite(folder: Path, **facts: Any) -> None:
    config = folder / "config.json"
    known = json.loads(config.read_text(encoding="utf-8"))["zoo"]
    merged = {key: value for key, value in {**known, **facts}.items() if value is not None}
    config.write_text(json.dumps({"zoo": merged}), encoding="utf-8")


def test_a_newer_format_is_refused_with_both_numbers(folder):
    rewrite(folder, format=bundle.FORMAT + 1, preprocess={"of": "tomorrow"})
    with pytest.raises(
        ValueError, match=rf"newer version of zoo \(format {bundle.FORMAT + 1}, known: {bundle.FORMAT}\)"
    ):
        zoo.load_pretrained(folder)


TIMM = '{"architecture": "resnet20", "num_classes": 3, "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}'


@pytest.mark.parametrize(
    "config",
    [TIMM, "", "[1]", '{"zoo": {"format": 1', "\xff", "null"],
)
def test_a_config_of_others_is_told_with_what_takes_their_weights(folder, config):
    (folder / "config.json").write_bytes(config.encode("latin-1"))
    told = (
        rf"{folder}: its config.json was not written by save_pretrained; create_model\(name, checkpoint_path=…\) takes"
    )
    with pytest.raises(ValueError, match=told) as caught:
        zoo.load_pretrained(folder)
    assert "\n" not in str(caught.value)
    model = zoo.create_model("resnet20", n=1, num_classes=3, checkpoint_path=folder)
    assert_same(model, small_net_state(folder))
    assert model.preprocess is None


@pytest.mark.parametrize(
    "facts",
    [
        *({"backbone": None}, {"preprocess": None}, {"sha256": None}, {"sha256": 3}, {"backbone": {"n": 1}}),
        *({"backbone": "resnet20"}, {"preprocess": {"size": 3}}, {"preprocess": [3]}, {"backbone": {"name": 20}}),
        {"backbone": {"name": "resnet20", "pretrained": True}},
        {"backbone": {"name": "resnet20", "checkpoint_path": "http://127.0.0.1/other.pt"}},
    ],
    ids=str,
)
def test_a_config_that_lacks_something_or_asks_for_other_weights_is_refused(folder, facts):
    rewrite(folder, **facts)
    for load in (
        zoo.load_pretrained,
        lambda path: zoo.create_model("resnet20", n=1, num_classes=3, checkpoint_path=path),
    ):
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            load(folder)


@pytest.mark.parametrize("zoos", ["3", "{}", '{"format": "1"}'])
def test_a_config_that_is_meant_for_zoo_and_tells_nothing_is_damaged(folder, zoos):
    (folder / "config.json").write_text(f'{{"zoo": {zoos}}}')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        zoo.load_pretrained(folder)


def test_weights_that_were_changed_after_they_were_saved_are_refused_whoever_loads_them(folder):
    state = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file({key: value + 1 for key, value in state.items()}, folder / "model.safetensors")
    model = zoo.create_model("resnet20", n=1, num_classes=3)
    for load in zoo.load_pretrained, lambda path: zoo.load_weights(model, path):
        with pytest.raises(ValueError, match=r"safetensors is damaged: its SHA-256 is not the one in config\.json"):
            load(folder)


def test_the_options_that_a_folder_tells_are_defaults_and_another_is_warned_of(tmp_path, caplog):
    model = zoo.create_model("resnet18", layers=(1, 1, 1, 1), stem="small", num_classes=3).eval()
    folder = zoo.save_pretrained(model, tmp_path / "saved")
    x = torch.rand(2, 3, 32, 32)
    same = zoo.create_model("resnet18", num_classes=3, checkpoint_path=folder).eval()
    assert (same.stem, same.preprocess.size) == ("small", 32)
    assert torch.equal(same(x), model(x))
    assert not caplog.messages
    other = zoo.create_model("resnet18", num_classes=3, checkpoint_path=folder, stem="large")
    assert other.stem == "large"
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "made with stem=small, this model with large"
    ]


def test_a_model_forgets_what_other_weights_expected(folder, tmp_path):
    model = zoo.create_model("resnet20", n=1, num_classes=3, checkpoint_path=folder)
    assert model.preprocess == FACTS
    zoo.load_weights(model, model.state_dict())
    assert model.preprocess == FACTS, "a state dict tells nothing and is of this model, often"
    torch.save(model.state_dict(), tmp_path / "file.pt")
    zoo.load_weights(model, tmp_path / "file.pt")
    assert model.preprocess is None


def test_a_config_of_an_unknown_net_or_option_is_told_as_create_model_tells_it(folder):
    rewrite(folder, backbone={"name": "resnet5O"})
    with pytest.raises(ValueError, match="no backbone is named 'resnet5O'; did you mean resnet50"):
        zoo.load_pretrained(folder)
    rewrite(folder, backbone={"name": "resnet20", "m": 1})
    with pytest.raises(TypeError, match="resnet20 has no option 'm'"):
        zoo.load_pretrained(folder)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_the_files_is_none_of_save_pretrained(folder, lost):
    (folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{folder} has no {lost}: it is not a folder of save_pretrained"):
        zoo.load_pretrained(folder)


def test_weights_that_are_not_finite_are_named_with_their_file(tmp_path):
    model = small_net()
    state = copy(model)
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    model.load_state_dict(state)
    folder = zoo.save_pretrained(model, tmp_path / "saved")
    with pytest.raises(ValueError, match=rf"{folder / 'model.safetensors'} are not all finite numbers: conv1\.weight"):
        zoo.load_pretrained(folder)


# --- on the hub -------------------------------------------------------------------------------------------------


def filled(model: zoo.Backbone, source: str) -> zoo.Backbone:
    zoo.load_weights(model, source)
    return model


LOADS = {
    "load_pretrained": zoo.load_pretrained,
    "load_weights": lambda source: filled(zoo.create_model("resnet20", n=1, num_classes=3).eval(), source),
    "checkpoint_path": lambda source: zoo.create_model("resnet20", num_classes=3, checkpoint_path=source).eval(),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_repository_gives_the_scores_and_preprocessing_of_the_revision_that_is_asked_for(hub, tmp_path, load):
    x, asked = torch.rand(2, 3, 32, 32), {}
    for revision, size in ("v1", 32), ("main", 48):
        model = asked[f"hf-hub:org/net@{revision}"] = small_net()
        model.preprocess = replace(FACTS, size=size)
        hub.hold("org/net", content(zoo.save_pretrained(model, tmp_path / revision)), revision=revision)
    asked["hf-hub:org/net"] = model
    for _ in range(2):
        for source, expected in asked.items():
            model = load(source)
            assert torch.equal(model(x), expected(x))
            assert model.preprocess == expected.preprocess
        hub.pages.clear()  # what was fetched is not asked for again


def test_a_repository_with_weights_alone_tells_nothing_and_is_not_asked_again_either(hub, folder):
    hub.hold("org/net", {"model.safetensors": content(folder)["model.safetensors"]})
    for _ in range(2):
        hub.requests.clear()
        model = zoo.create_model("resnet20", n=1, num_classes=3, checkpoint_path="hf-hub:org/net")
        assert_same(model, small_net_state(folder))
        assert model.preprocess is None
        with pytest.raises(
            ValueError, match=r"hf-hub:org/net: .* create_model\(name, checkpoint_path=…\) takes weights"
        ):
            zoo.load_pretrained("hf-hub:org/net")
    assert not hub.requests


def test_a_repository_whose_two_files_are_of_two_saves_is_refused(hub, folder, tmp_path):
    other = zoo.save_pretrained(small_net(), tmp_path / "other")
    hub.hold("org/net", {**content(folder), "model.safetensors": content(other)["model.safetensors"]})
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 is not the one in config\.json"):
        zoo.load_pretrained("hf-hub:org/net")
