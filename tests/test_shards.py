"""Folders of images → tar shards → batches, from disk and from servers; and what is said of shards that are damaged."""

import io
import json
import logging
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback import Page, Site
from PIL import Image
from test_data import same

from zoo.data import DATASETS, Batches, create_data, packing, remote
from zoo.data.packing import pack
from zoo.data.shards import AHEAD, INDEX, Shards

CLASSES = {"cat": 30, "dog": 22, "fox": 20}
Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Noisy JPEGs in class folders of train/ and test/."""
    rng = np.random.default_rng(0)
    for part, times in ("train", 1), ("test", 0.5):
        for name, count in CLASSES.items():
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(int(count * times)):
                noise = Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype=np.uint8))
                noise.save(tmp_path / "images" / part / name / f"{i}.jpg")
    return tmp_path / "images"


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    """The same as shards: nine for training of eight images each, five for test."""
    pack(folder, tmp_path / "shards", megabytes=0.027)
    return tmp_path / "shards"


@pytest.fixture
def served(packed: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the shards at a site; further attempts are made at once."""
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    for file in packed.iterdir():
        site.serve(f"/set/{file.name}", file.read_bytes())
    return site.url + "/set"


def shards(root: Path | str, **options) -> Shards:
    """The training part."""
    return DATASETS.build("shards", root=str(root), **{"size": 16, "workers": 0, **options}).train


def plan(count: int) -> Iterator[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(7)
    return ((chosen, step) for step, chosen in enumerate(torch.randperm(count, generator=generator).split(10)))


def shuffled(images: Shards, **options) -> Batches:
    return Batches(images, **{"batch_size": 8, "training": True, "shuffle": True, **options})


def open_at_once(images: Shards, indices: torch.Tensor) -> int:
    """The most shards of which some images were shown and others are still to come."""
    file = images.paths.file[indices].tolist()
    first, last = ({f: i for i, f in ends} for ends in (reversed(list(enumerate(file))), enumerate(file)))
    return max(sum(first[f] <= i <= last[f] for f in first) for i in range(len(file)))


# --- writing ----------------------------------------------------------------------------------------------------


def test_the_library_webdataset_reads_the_files_own_bytes_and_classes(folder: Path, packed: Path):
    wds = pytest.importorskip("webdataset")
    files = sorted((folder / "train").rglob("*.jpg"), key=lambda path: (path.parent.name, path.name))
    expected = {(path.read_bytes(), sorted(CLASSES).index(path.parent.name)) for path in files}
    tars = sorted(map(str, packed.glob("train-*.tar")))
    found = [(each["jpg"], int(each["cls"])) for each in wds.WebDataset(tars, shardshuffle=False)]
    assert len(found) == len(files)
    assert set(found) == expected


def test_the_same_folder_and_seed_give_the_same_bytes_and_another_seed_another_order(folder: Path, tmp_path: Path):
    for name, seed in ("one", 0), ("again", 0), ("other", 1):
        pack(folder, tmp_path / name, megabytes=0.027, seed=seed)
    one, again, other = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "again", "other"))
    assert one == again
    assert {name for name in one if one[name] != other[name]} == {n for n in one if n.startswith("train") or n == INDEX}


def test_shards_are_of_one_size_and_those_for_training_mix_the_classes(packed: Path):
    parts = json.loads((packed / INDEX).read_text())["parts"]
    assert parts["train"]["counts"] == list(CLASSES.values())
    for part, count in ("train", 72), ("test", 36):
        tars = parts[part]["shards"]
        assert sum(tar["images"] for tar in tars) == count
        assert max(tar["images"] for tar in tars) - min(tar["images"] for tar in tars) <= 1
        assert all(tar["bytes"] == (packed / tar["file"]).stat().st_size < 45_000 for tar in tars)
    assert len(parts["train"]["shards"]) == 9
    assert all(len(set(tar["labels"])) > 1 for tar in parts["train"]["shards"])


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["failed", "interrupted"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_writing_that_ends_early_leaves_nothing(
    error: BaseException, there: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written, write = [], packing.write

    def failing(path: Path, *rest: object) -> object:
        if len(written) == 3:
            raise error
        written.append(path)
        return write(path, *rest)

    monkeypatch.setattr(packing, "write", failing)
    if there:
        (tmp_path / "out").mkdir()
    with pytest.raises(type(error)):
        pack(folder, tmp_path / "out", megabytes=0.027)
    assert len(written) == 3
    assert (tmp_path / "out").exists() == there
    assert not there or list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_recognised_and_written_anew(folder: Path, tmp_path: Path):
    left = tmp_path / "out" / ".part"
    left.mkdir(parents=True)
    (left / "train-000000.tar").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match=f"{INDEX} is missing: .*python -m zoo shards.*interrupted"):
        create_data("shards", root=str(tmp_path / "out"))
    pack(folder, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        INDEX,
        "test-000000.tar",
        "train-000000.tar",
    ]


def test_a_folder_that_is_not_empty_is_left_as_it_is(folder: Path, packed: Path):
    before = {file.name: file.read_bytes() for file in packed.iterdir()}
    with pytest.raises(FileExistsError, match=rf"{packed} is not empty \({INDEX}\)"):
        pack(folder, packed)
    assert before == {file.name: file.read_bytes() for file in packed.iterdir()}
    with pytest.raises(ValueError, match="would be taken for a class"):
        pack(folder, folder / "shards")


def test_class_folders_without_parts_are_cut_as_a_folder_of_images_is_or_are_all_for_test(folder: Path, tmp_path: Path):
    for share in 0.25, 1.0:
        pack(folder / "train", tmp_path / f"{share}", test_fraction=share)
        here = DATASETS.build("shards", root=str(tmp_path / f"{share}"))
        there = DATASETS.build("image_folder", root=str(folder / "train"), test_fraction=share)
        assert torch.equal(here.train.labels, there.train.labels)
        assert torch.equal(here.test.labels, there.test.labels)
        assert (here.val, here.classes) == (None, ("cat", "dog", "fox"))


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, {"random_resized_crop": {}, "color_jitter": {}}], ids=["plain", "augmented"])
def test_shards_are_the_folder_that_they_were_made_of(augment: dict | None, folder: Path, packed: Path):
    options = {"size": 16, "workers": 0, "val_fraction": 0.25, "seed": 3, "batch_size": 8, "augment": augment}
    there = create_data("image_folder", root=str(folder), **options)
    here = create_data("shards", root=str(packed), **options)
    assert (here.classes, here.mean, here.preprocess) == (there.classes, there.mean, there.preprocess)
    for part in there.parts:
        assert torch.equal(here.parts[part].labels, there.parts[part].labels)
    sources = [data.training(epoch=int).images if augment else data.parts["train"] for data in (there, here)]
    assert same(*(list(images.batches(plan(54))) for images in sources))
    assert same(list(there.batches("test")), list(here.batches("test")))


def test_an_epoch_shows_each_image_once_in_an_order_that_seed_and_epoch_decide(packed: Path):
    images = shards(packed)
    orders = [shuffled(images, seed=seed).order(epoch).tolist() for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(72)) for order in orders)
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize("window", [1, 2, 4])
def test_an_order_needs_the_window_of_shards_and_one_more_at_a_time(window: int, packed: Path):
    for epoch in range(5):
        images = shards(packed, window=window)
        at_once = open_at_once(images, shuffled(images).order(epoch))
        assert window <= at_once <= window + 1 if window > 1 else at_once == 1


def test_within_the_window_images_are_shuffled_and_not_only_shards(packed: Path):
    for window, least, most in (1, 1, 2), (4, 3, 5):
        images = shards(packed, window=window)
        batches = [shuffled(images).order(epoch)[32:40] for epoch in range(50)]
        assert least <= np.mean([len(images.paths.file[batch].unique()) for batch in batches]) <= most
        assert any(batch.tolist() != batch.sort().values.tolist() for batch in batches)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch_without_overlap_each_with_shards_of_its_own(world: int, packed: Path):
    images = shards(packed, window=1)
    orders = [shuffled(images, rank=rank, world=world).order(0) for rank in range(world)]
    assert {len(order) for order in orders} == {72 // (8 * world) * 8}
    assert len(torch.cat(orders).unique()) == sum(map(len, orders))
    assert all(len(images.paths.file[order].unique()) <= -(-9 // world) + 1 for order in orders)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_evaluating_processes_see_every_image_once_between_them_with_its_label(world: int, packed: Path):
    data = create_data("shards", root=str(packed), size=16, workers=0, batch_size=4)
    parts = [data.batches("test", rank=rank, world=world) for rank in range(world)]
    seen = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(batches) for batches in seen]
    assert same([batch for batches in seen for batch in batches], list(data.batches("test"))) or world > 1
    pixels = torch.cat([x for batches in seen for x, _ in batches]).sum((1, 2, 3)).sort()
    everything = torch.cat([x for x, _ in data.batches("test")]).sum((1, 2, 3)).sort()
    torch.testing.assert_close(pixels.values, everything.values)


def test_batches_are_the_same_by_any_number_of_workers_and_gone_on_with_from_any(packed: Path):
    alone, by_workers = (shuffled(shards(packed, workers=workers)) for workers in (0, 2))
    whole = list(alone)
    assert same(whole, list(by_workers))
    by_workers.load_state_dict({"given": 5})
    assert same(whole[5:], list(by_workers))


def test_classes_that_are_drawn_as_often_still_come_from_few_shards(packed: Path):
    images = shards(packed, window=2)
    order = shuffled(images, balanced=True).order(0)
    assert len(order) == 72
    assert len(order.unique()) < 72
    assert open_at_once(images, order) <= 3


def test_resident_shards_are_decoded_once(packed: Path):
    data = create_data("shards", root=str(packed), size=16, workers=0, batch_size=8, resident=True)
    streamed = create_data("shards", root=str(packed), size=16, workers=0, batch_size=8)
    assert same(list(data.batches("test")), list(streamed.batches("test")))


def test_a_net_is_trained_and_measured_on_shards(packed: Path, tmp_path: Path, run):
    data = ("data=shards", f"data.root={packed}", "data.size=28", "data.batch_size=16", "data.workers=0")
    small = ("backbone=lenet5", "logger=none", "trainer=cpu", "trainer.max_epochs=1")
    trained = run("train", *data, *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert trained.code == 0, trained.err
    measured = run("evaluate", f"checkpoint={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'measured'}")
    assert measured.code == 0, measured.err
    wrong = run("train", "data=shards", "data.root=/nowhere", *small, f"hydra.run.dir={tmp_path / 'other'}")
    assert wrong.err == "error: no such folder: data.root=/nowhere\n"


# --- from elsewhere ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_from_a_server_come_the_batches_that_come_from_disk(workers: int, packed: Path, served: str, site: Site):
    here = [list(shuffled(shards(packed, window=2), epoch=lambda e=e: e)) for e in range(2)]
    there = shards(served, window=2, workers=workers)
    for epoch in range(2):
        site.requests.clear()
        assert same(here[epoch], list(shuffled(there, epoch=lambda e=epoch: e)))
        assert sorted(path for _, path in site.requests) == [f"/set/train-{i:06d}.tar" for i in range(9)]


def test_few_shards_of_a_server_are_here_at_a_time_and_none_afterwards(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = [len(list(tmp_path.glob("zoo-*/*.tar"))) for _ in shuffled(shards(served, window=1))]
    assert 1 <= max(held) <= 1 + AHEAD
    for _ in shuffled(shards(served)):
        break  # whoever stops early leaves nothing either
    assert list(tmp_path.glob("zoo-*")) == []


def test_a_resumed_epoch_and_a_process_of_several_fetch_only_what_they_show(served: str, site: Site):
    batches = shuffled(shards(served, window=1))
    batches.load_state_dict({"given": 6})
    site.requests.clear()
    assert len(list(batches)) == 3
    assert len(site.requests) == 3
    site.requests.clear()
    assert len(list(shuffled(shards(served, window=1), rank=1, world=3))) == 3
    assert len(site.requests) == 1 + 3


def test_what_stands_behind_a_question_mark_is_sent_and_not_shown(packed: Path, site: Site):
    for file in packed.iterdir():
        site.serve(f"/set/{file.name}?token=secret", file.read_bytes())
    images = shards(f"{site.url}/set/?token=secret")
    assert same(list(Batches(shards(packed), batch_size=9)), list(Batches(images, batch_size=9)))
    assert str(images.paths[0]).startswith(f"{site.url}/set/train-")
    assert "secret" not in str(images.paths[0])


def test_a_connection_that_breaks_off_is_made_again(packed: Path, served: str, site: Site):
    for i in range(9):
        site.pages[f"/set/train-{i:06d}.tar"].cuts = [5000]
    site.pages[f"/set/{INDEX}"].answers = [503]
    images = shards(served)
    assert same(list(shuffled(shards(packed))), list(shuffled(images)))


@pytest.mark.parametrize("damage", ["cut off", "damaged"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_wrong_on_the_server_is_told_or_left_out(
    damage: str, workers: int, served: str, site: Site, caplog
):
    page = site.pages["/set/train-000004.tar"]
    content = page.content[:9000] if damage == "cut off" else page.content[:700] + b"12345" + page.content[705:]
    site.pages["/set/train-000004.tar"] = Page(content)
    told = rf"{served}/train-000004.tar is {damage} .*should hold 8 images.*data.on_error=skip"
    with pytest.raises(ValueError, match=told):
        list(shuffled(shards(served, workers=workers)))
    with caplog.at_level(logging.WARNING, logger="zoo"):
        shown = sum(len(x) for x, _ in shuffled(shards(served, workers=workers, on_error="skip")))
    assert 64 < shown < 72 if damage == "cut off" else shown >= 71
    assert any(f"train-000004.tar is {damage}" in text for text in caplog.messages)


@pytest.mark.parametrize(
    ("lost", "kind", "told"),
    [
        (INDEX, FileNotFoundError, f"/set/{INDEX} is missing: no shards are there"),
        ("train-000002.tar", FileNotFoundError, "/set/train-000002.tar could not be read: the server answered 404"),
    ],
)
def test_what_a_server_lacks_is_named(lost: str, kind: type, told: str, served: str, site: Site):
    del site.pages[f"/set/{lost}"]
    with pytest.raises(kind, match=told):
        list(shuffled(shards(served)))


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "WAITS", ())
    with pytest.raises(OSError, match=f"http://127.0.0.1:1/set/{INDEX} could not be read: .*refused"):
        shards("http://127.0.0.1:1/set")


def test_object_storage_is_read_through_fsspec(packed: Path):
    fsspec = pytest.importorskip("fsspec")
    storage = fsspec.filesystem("memory")
    for file in packed.iterdir():
        storage.pipe_file(f"/bucket/set/{file.name}", file.read_bytes())
    try:
        images = shards("memory://bucket/set", workers=1)
        assert same(list(shuffled(shards(packed))), list(shuffled(images)))
        storage.rm_file("/bucket/set/train-000001.tar")
        with pytest.raises(FileNotFoundError, match=r"memory://bucket/set/train-000001.tar could not be read"):
            list(shuffled(images))
    finally:
        storage.rm("/bucket", recursive=True)


def test_without_the_extra_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fsspec")
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ModuleNotFoundError, match=r's3://bucket/set cannot be read.*pip install "cnn-zoo\[stream\]"'):
        shards("s3://bucket/set")
    with pytest.raises(ValueError, match="gopher://bucket/set cannot be read"):
        shards("gopher://bucket/set")


# --- shards that are damaged ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 9000])
def test_a_shard_that_is_cut_off_is_told_with_what_it_should_hold_before_training_starts(length: int, packed: Path):
    file = packed / "train-000003.tar"
    size = file.stat().st_size
    os.truncate(file, length)
    told = rf"{file} is cut off \({length} of {size} bytes\): it should hold 8 images; .*data.on_error=skip"
    with pytest.raises(ValueError, match=told):
        shards(packed)


def test_what_is_left_of_a_shard_that_is_cut_off_is_shown_with_its_labels_where_one_says_so(packed: Path, caplog):
    whole = shards(packed)
    os.truncate(packed / "train-000003.tar", 9000)
    lost = (whole.paths.file == 3) & (whole.paths.offset + whole.paths.size > 9000)
    assert 0 < lost.sum() < 8
    with caplog.at_level(logging.WARNING, logger="zoo"):
        shown = torch.cat([y for _, y in Batches(shards(packed, on_error="skip"), batch_size=6)])
    assert torch.equal(shown.bincount(), whole.labels[~lost].bincount())
    assert "train-000003.tar is cut off" in caplog.messages[0]
    assert sum("train-000003.tar ends before it" in text for text in caplog.messages) == lost.sum()


def test_a_shard_that_is_missing_is_named_whether_errors_are_skipped_or_not(packed: Path):
    (packed / "test-000001.tar").unlink()
    for on_error in "error", "skip":
        with pytest.raises(FileNotFoundError, match=r"lacks the shard test-000001.tar, which holds 7 images"):
            shards(packed, on_error=on_error)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_none_is_named_by_its_shard_and_number(workers: int, packed: Path):
    images = shards(packed, workers=workers)
    piece = images.paths[20]
    with piece.path.open("r+b") as file:
        file.seek(piece.offset)
        file.write(b"<html>" + bytes(40))
    with pytest.raises(ValueError, match=rf"unreadable image: {piece.path}, image 00000020 \(.*no image"):
        list(Batches(images, batch_size=8))
    with tarfile.open(piece.path) as tar:
        broken = tar.extractfile("00000020.jpg").read()
    assert broken.startswith(b"<html>")
    kept = Batches(shards(packed, workers=workers, on_error="skip"), batch_size=8)
    assert sum(len(x) for x, _ in kept) == 71


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text[: len(text) // 2], "damaged, or no index of shards"),
        (lambda text: "[]", "damaged, or no index of shards"),
        (lambda text: text.replace('"format":1', '"format":2'), "its format is 2, here 1 is known"),
        (lambda text: text.replace("train-000000.tar", "../../train.tar"), "'../../train.tar' is no shard's name"),
        (lambda text: text.replace('"images":8', '"images":9', 1), "not one for each image"),
        (lambda text: text.replace('"test":', '"tests":'), "its parts are train, tests"),
        (lambda text: text.replace('"cat",', ""), "label 2, the classes are 0 to 1"),
    ],
    ids=["cut off", "no index", "newer", "outside", "counts", "parts", "classes"],
)
def test_an_index_that_cannot_be_used_is_told_with_what_is_wrong(change: Callable, told: str, packed: Path):
    (packed / INDEX).write_text(change((packed / INDEX).read_text()))
    with pytest.raises(ValueError, match=told):
        shards(packed)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 0}, "data.window=0 must be 1 or above"),
        ({"on_error": "ignore"}, "data.on_error must be error or skip"),
        ({"channels": 2}, "data.channels must be 1 or 3"),
        ({"size": 32, "resize": 16}, "resize is at least size"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_told(options: dict, told: str, packed: Path):
    with pytest.raises(ValueError, match=told):
        shards(packed, **options)


def test_images_of_any_kind_go_in_under_their_ending(tmp_path: Path):
    for name, ending in ("a", "png"), ("b", "JPEG"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(tmp_path / "images" / name / f"it.{i}.{ending}")
    pack(tmp_path / "images", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        assert {Path(name).suffix for name in tar.getnames()} == {".png", ".jpeg", ".cls"}
        assert Image.open(io.BytesIO(tar.extractfile(tar.getnames()[0]).read())).size == (8, 8)
    x, y = next(iter(Batches(shards(tmp_path / "out", size=8), batch_size=8)))
    assert (len(x), y.bincount().tolist()) == (8, [4, 4])
