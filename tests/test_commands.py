"""python -m zoo: what each command prints and writes, and torch.hub's door."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import Ended
from PIL import Image
from test_fit import assert_same

import zoo
from zoo import bundle, checkpoint
from zoo.__main__ import main
from zoo.export import ONNX, check_close
from zoo.probes.predictions import image, predict
from zoo.sources import CIFAR10

ROOT = Path(__file__).resolve().parents[1]


def has_onnx() -> bool:
    return all(importlib.util.find_spec(package) for package in ONNX)


needs_onnx = pytest.mark.skipif(not has_onnx(), reason="needs the extra onnx: pip install onnx onnxruntime onnxscript")


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """ask("list", "resnet*") → exit code and what was printed."""

    def asked(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        return Ended(main([str(argument) for argument in arguments]), *capsys.readouterr())

    return asked


def one_line(ended: Ended, told: str) -> None:
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1
    assert re.search(told, ended.err), ended.err


CLASSES = ("cat", "dog", "owl")


def run_folder(folder: Path, name: str = "lenet5", **options: object) -> Path:
    """A run's folder as train.py leaves it, optimiser and random states included."""
    backbone = {"name": name, "num_classes": len(CLASSES), "in_chans": 1, **options}
    model = zoo.on_pixels(zoo.create_model(**backbone), mean=0.25, std=0.5)
    channels = model.backbone.in_chans
    card = {
        "format": bundle.FORMAT,
        "backbone": backbone,
        "preprocess": {
            "size": model.backbone.image_size,
            "resize": model.backbone.image_size,
            "interpolation": "bilinear",
            "mean": [0.25] * channels,
            "std": [0.5] * channels,
            "classes": list(CLASSES),
        },
        "config": {"seed": 7, "plugins": [], "criterion": {"name": "supervised"}},
    }
    content = {
        "state_dict": model.state_dict(),
        "zoo": card,
        "optimizer_states": [{"momentum": [torch.randn_like(p) for p in model.parameters()]}],
        "random": checkpoint.random_states(),
    }
    checkpoint.write(folder / "checkpoints" / "best.ckpt", content)
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


# --- list, info, help -------------------------------------------------------------------------------------------


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_without_a_command_the_help_is_printed(ask):
    ended = ask()
    assert (ended.code, ended.err) == (0, "")
    for command in "list", "models", "info", "predict", "export":
        assert re.search(rf"^ +{command} ", ended.out, re.MULTILINE), command


def test_list_has_a_line_for_each_name_with_size_error_and_tags_in_columns(ask):
    ended = ask("list", "resnet[25]0")
    head, first, second = ended.out.splitlines()
    assert cells(head) == ["name", "family", "parameters, M", "mult-adds, M", "published error, %", "weights"]
    assert cells(first) == ["resnet20", "resnet_cifar", "0.270", "40.6", "CIFAR-10+ 8.75 (akamaster)", "cifar10"]
    assert cells(second)[:4] == ["resnet50", "resnet", "25.6", "4,090"]
    assert cells(second)[-1] == "IMAGENET1K_V2, IMAGENET1K_V1"
    end = head.index("parameters, M") + len("parameters, M")
    assert [line[end - 5 : end].strip() for line in (first, second)] == ["0.270", "25.6"]


def test_list_pretrained_leaves_out_names_without_weights(ask):
    every, released = (
        [cells(line)[0] for line in ask("list", *more).out.splitlines()[1:]] for more in ([], ["--pretrained"])
    )
    assert every == zoo.list_models()
    assert released == zoo.list_models(pretrained=True)
    assert {"lenet5", "capsnet"} <= set(every) - set(released)


def test_names_that_do_not_exist_or_have_no_weights_are_one_line(ask):
    one_line(ask("list", "resnet2O"), r"no model matches 'resnet2O'; did you mean resnet20")
    one_line(ask("list", "lenet*", "--pretrained"), r"no model that matches 'lenet\*' has released weights")
    one_line(ask("info", "resnet2O"), r"no backbone is named 'resnet2O'; did you mean resnet20")


def test_info_spells_out_errors_sources_options_taps_and_what_weights_expect(ask):
    out = ask("info", "resnet20").out
    assert "Deep residual learning" in out
    facts = {key: value for key, value, *_ in (cells(line) for line in out.splitlines() if len(cells(line)) == 2)}
    assert facts["input"] == "3×32×32"
    assert facts["parameters"] == "269,722"
    assert facts["taps"] == "layer1, layer2, layer3"
    assert facts["num_classes"] == "10"
    assert facts["SHA-256"] == "12fca82f …"
    assert facts["mean"] == "0.485, 0.456, 0.406"
    assert facts["licence"] == "BSD-2-Clause"
    assert facts["reported error, %"] == "8.27"
    assert 'akamaster: README of akamaster/pytorch_resnet_cifar10, column "Test err (paper)"' in out
    assert "weights cifar10, the default" in out


@pytest.mark.parametrize("name", ["lenet5", "inception_v3", "efficientnet_v2_m", "efficientnet_lite0"])
def test_info_names_every_tag_option_and_tap(ask, name):
    ended = ask("info", name)
    known = zoo.model_info(name)
    assert ended.code == 0
    for word in *known.weights, *zoo.BACKBONES[name].options, *zoo.create_model(name).taps, known.paper:
        assert word in ended.out, word
    assert ended.out.count("\nweights ") == len(known.weights)


def test_a_reader_that_stops_reading_is_no_error():
    command = f"{sys.executable} -m zoo models | true"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- predict ----------------------------------------------------------------------------------------------------


def asked_for(ended: Ended) -> list[dict]:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_predictions_are_the_models_probabilities_of_the_resized_and_cut_image(ask, trained, pictures):
    found = asked_for(ask("predict", *pictures, "--model", trained, "--json"))
    model = zoo.load_checkpoint(trained)
    transform = zoo.create_transform(model)
    x = torch.stack([transform(Image.open(path).convert("L")) for path in pictures])
    with torch.inference_mode():
        expected = zoo.probabilities(model, x)
    assert [one["file"] for one in found] == [str(path) for path in pictures]
    for one, row in zip(found, expected, strict=True):
        order = [p["index"] for p in one["predictions"]]
        assert order == row.argsort(descending=True).tolist()
        assert [p["class"] for p in one["predictions"]] == [model.classes[i] for i in order]
        assert [p["probability"] for p in one["predictions"]] == pytest.approx(row[order].tolist(), abs=1e-6)


def test_the_table_has_class_names_and_percent_and_each_image_once(ask, trained, pictures):
    out = ask("predict", *pictures[:2], "--model", trained, "--topk", "2").out
    head, *lines = out.splitlines()
    assert cells(head) == ["image", "class", "probability, %"]
    assert [len(cells(line)) for line in lines] == [3, 2, 3, 2]
    assert [cells(line)[0] for line in lines[::2]] == [str(path) for path in pictures[:2]]
    found = asked_for(ask("predict", *pictures[:2], "--model", trained, "--topk", "2", "--json"))
    told = [(p["class"], f"{100 * p['probability']:.2f}") for one in found for p in one["predictions"]]
    assert [tuple(cells(line)[-2:]) for line in lines] == told


def test_a_topk_of_more_than_the_classes_gives_all_of_them_which_add_up_to_one(ask, trained, pictures):
    (one,) = asked_for(ask("predict", pictures[0], "--model", trained, "--topk", "99", "--json"))
    assert sum(p["probability"] for p in one["predictions"]) == pytest.approx(1)
    assert {p["class"] for p in one["predictions"]} == {"cat", "dog", "owl"}


def test_more_images_than_a_batch_holds_have_the_predictions_that_each_has_alone(trained, pictures):
    model = zoo.load_checkpoint(trained)
    many = [pictures[number % 3] for number in range(70)]
    alone = {path: predict(model, [path])[0] for path in pictures}
    for path, found in zip(many, predict(model, many), strict=True):
        assert [p.index for p in found] == [p.index for p in alone[path]]
        assert [p.probability for p in found] == pytest.approx([p.probability for p in alone[path]], abs=1e-6)


@pytest.mark.parametrize("kind", ["file", "run", "folder", "slim"])
def test_a_file_a_run_and_a_folder_of_save_pretrained_predict_the_same(ask, trained, pictures, here, kind):
    zoo.save_pretrained(zoo.load_checkpoint(trained), here / "folder")
    assert ask("export", trained, "--to", "checkpoint", "--out", here / "slim.ckpt").code == 0
    places = {"file": trained / "checkpoints" / "best.ckpt", "folder": here / "folder", "slim": here / "slim.ckpt"}
    expected = asked_for(ask("predict", *pictures, "--model", trained, "--json"))
    assert asked_for(ask("predict", *pictures, "--model", places.get(kind, trained), "--json")) == expected


def test_a_registered_name_predicts_with_its_released_weights(ask, shared, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(shared / "weights"))
    for more in [], ["--weights", "cifar10"]:
        (one,) = asked_for(ask("predict", pictures[0], "--model", "resnet20", "--json", *more))
        assert len(one["predictions"]) == 5
        assert {p["class"] for p in one["predictions"]} < set(CIFAR10)
    one_line(ask("predict", pictures[0], "--model", "resnet20", "--weights", "imagenet"), "no weights of 'resnet20'")
    one_line(ask("predict", pictures[0], "--model", "lenet5"), "no pretrained weights are known for 'lenet5'")


def test_classes_without_names_are_their_index(ask, tmp_path, pictures):
    zoo.save_pretrained(zoo.create_model("lenet5", num_classes=4), tmp_path / "folder")
    (one,) = asked_for(ask("predict", pictures[0], "--model", tmp_path / "folder", "--json"))
    assert [p["class"] for p in one["predictions"]] == [None] * 4
    lines = ask("predict", pictures[0], "--model", tmp_path / "folder").out.splitlines()[1:]
    assert [cells(line)[-2] for line in lines] == [str(p["index"]) for p in one["predictions"]]


def test_lengths_of_capsules_are_told_as_such_and_not_made_to_add_up_to_one(ask, tmp_path, pictures):
    folder = run_folder(tmp_path / "capsules", "capsnet")
    ended = ask("predict", pictures[0], "--model", folder)
    assert cells(ended.out.splitlines()[0])[-1] == "capsule length, %"
    assert "need not add up to 100 %" in ended.out
    (one,) = asked_for(ask("predict", pictures[0], "--model", folder, "--json"))
    assert sum(p["probability"] for p in one["predictions"]) != pytest.approx(1, abs=0.01)


GREY = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype(np.uint8)
FORMS = {
    "grey": Image.fromarray(GREY),
    "16 bits": Image.fromarray(GREY.astype(np.uint16) * 257),
    "RGB": Image.fromarray(GREY).convert("RGB"),
    "RGBA": Image.fromarray(GREY).convert("RGBA"),
    "palette": Image.fromarray(GREY).convert("P"),
    "grey with alpha": Image.fromarray(GREY).convert("LA"),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_any_kind_is_seen_as_the_same_grey_or_rgb(tmp_path, form):
    path = tmp_path / "image.png"
    FORMS[form].save(path)
    with Image.open(path) as opened:
        assert opened.mode == {"16 bits": "I;16", "grey": "L", "palette": "P", "grey with alpha": "LA"}.get(form, form)
    for channels, seen in (1, GREY), (3, np.stack([GREY] * 3, -1)):
        difference = np.asarray(image(path, channels)).astype(int) - seen
        assert np.abs(difference).max() <= 1  # rounding of RGB → grey


def test_a_missing_or_unreadable_image_is_one_line_that_names_it(ask, trained, pictures, tmp_path):
    gone, text, cut = tmp_path / "gone.png", tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("not an image")
    cut.write_bytes(pictures[0].read_bytes()[:1000])
    one_line(ask("predict", pictures[0], gone, "--model", "no such model"), rf"no such image: {gone}")
    one_line(ask("predict", tmp_path, "--model", trained), rf"{tmp_path} is a folder: name its images")
    for broken in text, cut:
        one_line(ask("predict", pictures[0], broken, "--model", trained), rf"unreadable image: {broken}")


def test_a_model_that_cannot_be_shown_the_images_is_one_line(ask, tmp_path, pictures, trained):
    run_folder(tmp_path / "four", in_chans=4)
    one_line(ask("predict", pictures[0], "--model", tmp_path / "four"), "in_chans=4, the images have 3 channels")
    zoo.save_pretrained(zoo.create_model("lenet5", num_classes=0), tmp_path / "features")
    one_line(ask("predict", pictures[0], "--model", tmp_path / "features"), "has no classes")
    told = "resnet2O is neither a registered name nor .* did you mean resnet20"
    one_line(ask("predict", pictures[0], "--model", "resnet2O"), told)
    one_line(ask("predict", pictures[0], "--model", trained, "--weights", "V1"), "--weights is for registered names")


@pytest.mark.parametrize("arguments", [["--model", "x"], ["a.png"], ["a.png", "--model", "x", "--topk", "0"]])
def test_predict_without_images_or_model_or_classes_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["predict", *arguments])
    assert ended.value.code == 2
    assert "usage: python -m zoo predict" in capsys.readouterr().err


# --- export -----------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_slim_checkpoint_has_weights_and_card_alone_and_its_hash_in_its_name(ask, trained, here):
    ended = ask("export", trained, "--to", "checkpoint")
    (path,) = here.iterdir()
    assert path.name == f"lenet5-{sha256(path)[:8]}.ckpt"
    assert ended.out.splitlines() == [
        f"{path.name}: {path.stat().st_size / 1e6:.3g} MB, SHA-256 {sha256(path)}",
        f"zoo.load_checkpoint({path.name!r})",
    ]
    whole = trained / "checkpoints" / "best.ckpt"
    slim, content = (torch.load(file, weights_only=True) for file in (path, whole))
    assert slim.keys() == {"state_dict", "zoo"}
    assert slim["zoo"] == content["zoo"]
    assert path.stat().st_size < 0.6 * whole.stat().st_size
    ours, theirs = zoo.load_checkpoint(path), zoo.load_checkpoint(whole)
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(ours(x), theirs(x))
    assert (ours.classes, ours.config) == (theirs.classes, theirs.config)


def test_evaluate_measures_a_slim_checkpoint_as_it_does_the_whole_one(run, tmp_path):
    small = ("data=textures", "data.size=28", "data.channels=1", "data.count=64", "data.batch_size=32")
    folder, slim = tmp_path / "run", tmp_path / "slim.ckpt"
    assert run("train", "backbone=lenet5", *small, "trainer.max_epochs=1", f"hydra.run.dir={folder}").code == 0
    assert main(["export", str(folder), "--to", "checkpoint", "--out", str(slim)]) == 0
    measured = []
    for source in folder, slim:
        out = tmp_path / f"measured {source.name}"
        assert run("evaluate", f"checkpoint={source}", f"hydra.run.dir={out}").code == 0
        measured.append(json.loads((out / "results.json").read_text())["test"])
    assert measured[0] == measured[1]


def test_the_same_checkpoint_is_exported_under_the_same_name(ask, trained, here):
    for _ in range(2):
        assert ask("export", trained, "--to", "checkpoint").code == 0
    assert len(list(here.iterdir())) == 1


def test_a_folder_holds_what_save_pretrained_writes_and_its_line_loads_it(ask, trained, here):
    ended = ask("export", trained / "checkpoints" / "best.ckpt", "--to", "folder")
    first, line = ended.out.splitlines()
    assert first.startswith("lenet5-pretrained: ")
    assert first.endswith(sha256(here / "lenet5-pretrained" / "model.safetensors"))
    model, expected = eval(line), zoo.load_checkpoint(trained)
    x = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(zoo.on_pixels(model)(x), expected(x))
    assert model.preprocess.classes == expected.classes


def test_out_is_a_folder_to_put_a_file_in_or_its_path(ask, trained, here):
    assert ask("export", trained, "--to", "checkpoint", "--out", "new/deep/").code == 0
    assert ask("export", trained, "--to", "checkpoint", "--out", "new/name.ckpt").code == 0
    (inside,) = (here / "new" / "deep").iterdir()
    assert inside.read_bytes() == (here / "new" / "name.ckpt").read_bytes()


def test_what_is_exported_or_belongs_to_a_run_is_not_replaced(ask, trained, here):
    whole = trained / "checkpoints" / "best.ckpt"
    before = whole.read_bytes()
    other = run_folder(here / "other") / "checkpoints" / "best.ckpt"
    for out in whole, other:
        one_line(ask("export", trained, "--to", "checkpoint", "--out", out), rf"{out} is not replaced")
    one_line(ask("export", trained, "--to", "folder", "--out", here), "holds other things")
    assert whole.read_bytes() == before
    assert zoo.load_checkpoint(other)
    assert ask("export", trained, "--to", "checkpoint", "--out", "slim.ckpt").code == 0
    one_line(ask("export", "slim.ckpt", "--to", "checkpoint", "--out", "./slim.ckpt"), "is not replaced")


def test_a_write_that_fails_leaves_nothing_and_is_one_line(ask, trained, here):
    (here / "file").write_text("in the way")
    one_line(ask("export", trained, "--to", "checkpoint", "--out", "file/slim.ckpt"), "file")
    if os.geteuid():
        here.chmod(0o500)
        one_line(ask("export", trained, "--to", "checkpoint"), "Permission denied")
        here.chmod(0o700)
    assert [path.name for path in here.iterdir()] == ["file"]


def test_a_folder_of_save_pretrained_has_no_run_to_make_a_checkpoint_of(ask, tmp_path):
    zoo.save_pretrained(zoo.create_model("lenet5"), tmp_path / "folder")
    one_line(ask("export", tmp_path / "folder", "--to", "checkpoint"), "no run's configuration")


def test_torchvision_loads_what_is_exported_for_it_with_the_line_that_is_printed(ask, tmp_path, here):
    run = run_folder(tmp_path / "r18", "resnet18", in_chans=3)
    ended = ask("export", run, "--to", "torchvision")
    (path,) = here.iterdir()
    assert path.name == f"resnet18-{sha256(path)[:8]}.pth"
    first, line, note = ended.out.splitlines()
    assert first.endswith(sha256(path))
    assert note.endswith("less mean [0.25, 0.25, 0.25], divided by std [0.5, 0.5, 0.5]")
    names = {"torch": torch, "torchvision": torchvision}
    exec(line, names)
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(names["model"].eval()((x - 0.25) / 0.5), zoo.load_checkpoint(run)(x))


def test_googlenet_is_exported_with_and_without_its_auxiliary_heads(ask, tmp_path, here):
    for aux in True, False:
        run = run_folder(tmp_path / str(aux), "googlenet", in_chans=3, aux_logits=aux)
        ended = ask("export", run, "--to", "torchvision")
        assert f'get_model("googlenet", num_classes=3, aux_logits={aux}, init_weights=False)' in ended.out
        names = {"torch": torch, "torchvision": torchvision}
        exec(ended.out.splitlines()[1], names)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("resnet20", {"in_chans": 3}, "torchvision has no resnet20"),
        ("resnet18", {"in_chans": 3, "stem": "small"}, "torchvision's resnet18 cannot be built with stem=small"),
        ("squeezenet1_1", {"in_chans": 1}, "torchvision's squeezenet1_1 cannot be built with in_chans=1"),
    ],
)
def test_what_torchvision_cannot_build_is_not_exported_for_it(ask, tmp_path, here, name, options, told):
    one_line(ask("export", run_folder(tmp_path / "run", name, **options), "--to", "torchvision"), told)
    assert not list(here.iterdir())


def test_a_format_that_is_not_one_is_a_usage_error(trained, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(trained), "--to", "tflite"])
    assert ended.value.code == 2
    assert "invalid choice: 'tflite'" in capsys.readouterr().err


# --- ONNX -------------------------------------------------------------------------------------------------------


@needs_onnx
@pytest.mark.parametrize(
    ("name", "options"), [("lenet5", {}), ("capsnet", {}), ("resnet20", {"in_chans": 3}), ("stn_cnn", {})]
)
def test_onnx_runtime_gives_the_scores_of_pixels_for_any_number_of_images(ask, tmp_path, here, name, options):
    import onnxruntime

    run = run_folder(tmp_path / "run", name, **options)
    ended = ask("export", run, "--to", "onnx")
    assert ended.code == 0, ended.err
    path = here / f"{name}.onnx"
    assert [file.name for file in here.iterdir()] == [path.name]
    assert ended.out.splitlines()[0].endswith(sha256(path))
    model = zoo.load_checkpoint(run)
    for count in 1, 5:
        x = torch.rand(count, *model.backbone.input_size)
        with torch.inference_mode():
            expected = model(x)
        (scores,) = eval(ended.out.splitlines()[1], {"onnxruntime": onnxruntime, "x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    told = json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["zoo"])
    assert told["preprocess"]["classes"] == ["cat", "dog", "owl"]
    assert told["backbone"]["name"] == name


@needs_onnx
def test_an_export_that_onnx_runtime_computes_otherwise_is_an_error_and_leaves_no_file(ask, trained, here, monkeypatch):
    from zoo import export

    def wrong(model: zoo.OnPixels, path: Path) -> None:
        other = zoo.on_pixels(model.backbone, mean=0.0, std=0.1).eval()
        export_as_it_is(other, path)

    export_as_it_is = export.write_onnx
    monkeypatch.setattr(export, "write_onnx", wrong)
    one_line(ask("export", trained, "--to", "onnx"), "nothing was exported: .* lenet5 in ONNX Runtime differ")
    assert not list(here.iterdir())


@needs_onnx
def test_a_net_that_onnx_has_no_operation_for_is_one_line_that_names_it(ask, tmp_path, here):
    model = zoo.create_model("prelunet_a", widths=(1, 1, 1), depth=1, stem="small", num_classes=3)
    zoo.save_pretrained(model, tmp_path / "folder")
    told = r"prelunet_a cannot become ONNX: .* no translation of aten\.adaptive_max_pool2d"
    one_line(ask("export", tmp_path / "folder", "--to", "onnx"), told)
    assert not list(here.iterdir())


def test_without_the_extra_the_line_says_what_to_install(trained, here):
    without = "import sys; sys.modules['onnxruntime'] = None; from zoo.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", without, "export", str(trained), "--to", "onnx"]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    one_line(Ended(ended.returncode, ended.stdout, ended.stderr), r'onnxruntime.*: pip install "cnn-zoo\[onnx\]"')


def test_scores_that_are_not_numbers_or_of_another_shape_are_not_close(trained):
    model = zoo.load_checkpoint(trained)
    x = torch.rand(2, 1, 28, 28)
    ours = model(x).detach()
    check_close(model, x, ours * (1 + 1e-5), "itself")
    for theirs in ours * 1.001, ours * float("nan"), ours[:1]:
        with pytest.raises(ValueError, match="nothing was exported"):
            check_close(model, x, theirs, "another")


# --- stats and shards -------------------------------------------------------------------------------------------


def test_stats_takes_a_sets_name_and_its_options_as_train_does(ask):
    ended = ask("stats", "textures", "count=64", "data.size=8", "channels=1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("textures: 4 classes, images of 1×8×8\n")
    told = json.loads(ask("stats", "textures", "count=64", "size=8", "channels=1", "--json").out)
    assert {part: content["images"] for part, content in told["parts"].items()} == {"train": 58, "val": 6, "test": 16}
    assert f"{told['mean'][0]:.6f}  {told['std'][0]:.6f}" in ended.out


def test_stats_and_shards_take_a_folder_of_images_and_stats_the_shards(ask, tmp_path):
    for name in "cat", "dog":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (20 * i, 0, 255)).save(tmp_path / "photos" / name / f"{i}.jpg")
    ended = ask("shards", tmp_path / "photos", tmp_path / "out", "--size-mb", 0.02, "--test-fraction", 0.5, "--seed", 3)
    assert (ended.code, ended.err) == (0, "")
    assert [cells(line)[:3] for line in ended.out.splitlines()[:3]] == [
        ["part", "images", "shards"],
        ["train", "10", "2"],
        ["test", "10", "2"],
    ]
    assert ended.out.endswith(f"\npython train.py data=shards data.root={tmp_path / 'out'}\n")
    options = ("size=8", "workers=0", "val_fraction=0.2")
    ours = ask("stats", tmp_path / "out", *options)
    theirs = ask("stats", tmp_path / "photos", *options, "test_fraction=0.5")
    assert ours.code == theirs.code == 0
    assert ours.out.replace("shards", "image_folder") == theirs.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stats", "textrues"], "textrues is neither a data set nor a folder; did you mean textures"),
        (["stats", "textures", "siez=8"], "textures has no option 'siez'; did you mean size"),
        (["stats", "textures", "size"], "'size' is not of the form key=value"),
        (["stats", "image_folder"], "data set image_folder needs root="),
        (["shards", "nowhere", "out"], "no such image folder: data.root=nowhere"),
        (["shards", ".", "out"], "is empty of class folders"),
        (["shards", "photos", "photos/out"], "photos/out lies in the folder of images photos"),
        (["shards", "photos", "out", "--size-mb", "0"], "shards of 0.0 MB cannot be written"),
        (["shards", "photos", "full"], "full is not empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_data_that_cannot_be_counted_or_packed_is_one_line_and_nothing_is_written(ask, here, arguments, told):
    if "photos" in arguments:
        for name in "cat", "dog":
            (here / "photos" / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(here / "photos" / name / "it.jpg")
    if "full" in arguments:
        (here / "full").mkdir()
        (here / "full" / "mine.txt").touch()
    before = sorted(here.rglob("*"))
    one_line(ask(*arguments), told)
    assert sorted(here.rglob("*")) == before


# --- torch.hub --------------------------------------------------------------------------------------------------


def test_torch_hub_lists_every_name_and_nothing_else_with_paper_and_options():
    spec = importlib.util.spec_from_file_location("hubconf", ROOT / "hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    listed = [name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")]  # its rule
    assert sorted(listed) == sorted(zoo.list_models())
    told = module.resnet50.__doc__
    assert "Deep residual learning" in told
    assert "num_classes=1000" in told


def test_torch_hub_gives_released_weights_that_lie_in_the_cache_without_a_request(release, site):
    theirs = zoo.create_model("resnet20")
    planted = release("resnet20", theirs)
    planted.parent.mkdir()
    planted.write_bytes(site.pages.pop(f"/{planted.name}").content)
    model = torch.hub.load(str(ROOT), "resnet20", source="local", pretrained=True)
    assert_same(model, theirs.state_dict())
    assert model.preprocess.classes == CIFAR10
    assert not site.requests


def test_torch_hub_builds_a_name_with_options():
    model = torch.hub.load(str(ROOT), "resnet20", source="local", pretrained=False, num_classes=7)
    assert isinstance(model, zoo.Backbone)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 7)
    with pytest.raises(TypeError, match="resnet20 has no option 'num_clases'; did you mean num_classes"):
        torch.hub.load(str(ROOT), "resnet20", source="local", num_clases=7)
