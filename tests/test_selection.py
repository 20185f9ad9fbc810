"""Which images train, under which labels, in which shares, and where they lie."""

from dataclasses import replace

import pytest
import torch
from test_data import draws, numbered, textures
from torch import Tensor

from zoo.data import Batches, create_data, resident
from zoo.data.images import Arrays
from zoo.data.selection import fewer, long_tailed, relabelled
from zoo.data.streams import streamed

CLASSES = tuple("abcdefghij")


def uneven(count: int = 1000) -> Tensor:
    """Labels of ten classes, each of another size."""
    return torch.multinomial(torch.arange(1.0, 11), count, replacement=True, generator=draws())


def test_a_fraction_keeps_its_share_of_each_class_and_the_same_images_for_the_same_seed():
    labels = uneven()
    kept = fewer(labels, 0.25, 3, CLASSES)
    assert len(kept) == 250
    assert ((labels[kept].bincount() - labels.bincount() / 4).abs() < 1).all()
    assert torch.equal(kept, fewer(labels, 0.25, 3, CLASSES))
    assert not torch.equal(kept, fewer(labels, 0.25, 4, CLASSES))


def test_a_long_tail_keeps_all_of_the_first_class_and_its_share_of_the_last():
    labels = torch.arange(5000) % 10
    kept = long_tailed(labels, 100, 0, CLASSES)
    assert labels[kept].bincount().tolist() == [int(500 * 100 ** (-k / 9)) for k in range(9)] + [5]


def test_what_would_leave_a_class_without_images_is_refused_with_its_name():
    labels = uneven()
    with pytest.raises(ValueError, match=r"data.fraction=0.01 leaves no training image of class 'a'"):
        fewer(labels, 0.01, 0, CLASSES)
    with pytest.raises(ValueError, match=r"data.imbalance=1000 leaves no training image of class"):
        long_tailed(labels, 1000, 0, CLASSES)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_label_noise_changes_its_share_of_labels_each_to_any_other_class(share: float):
    labels = torch.arange(9000) % 10
    noisy = relabelled(labels, share, 1, 10)
    wrong = noisy != labels
    assert wrong.sum() == 9000 * share
    off = (noisy - labels)[wrong] % 10
    assert not share or off.bincount(minlength=10)[1:].min() > 0.8 * wrong.sum() / 9
    assert torch.equal(noisy, relabelled(labels, share, 1, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0}, "data.fraction=0 must be above 0"),
        ({"fraction": 1.5}, "data.fraction=1.5 must be above 0, at most 1"),
        ({"imbalance": 0.5}, "data.imbalance=0.5 must be 1"),
        ({"label_noise": 1.1}, "data.label_noise=1.1 must be from 0 to 1"),
        ({"resident": "gpu"}, "data.resident must be auto, true or false, not 'gpu'"),
    ],
)
def test_shares_that_are_none_are_refused_with_their_option(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        textures(**options)


def test_selection_changes_the_training_part_alone():
    whole, part = textures(count=400), textures(count=400, fraction=0.5, imbalance=4, label_noise=0.5)
    for name in "val", "test":
        assert torch.equal(whole.parts[name].images, part.parts[name].images)
        assert torch.equal(whole.parts[name].labels, part.parts[name].labels)
    assert len(part.parts["train"].labels) < len(whole.parts["train"].labels) / 2


def test_a_balanced_epoch_shows_each_class_about_as_often():
    labels = uneven(2000)
    images = Arrays(torch.zeros(2000, 1, 4, 4, dtype=torch.uint8), labels)
    batches = Batches(images, batch_size=100, training=True, shuffle=True, balanced=True)
    shown = torch.cat([y for _, y in batches]).bincount()
    assert len(batches) == 20
    assert shown.sum() == 2000
    assert shown.float().std() < 40  # of 200 each; the set's own counts differ by 100
    first, again = (next(iter(batches))[1] for _ in range(2))
    assert torch.equal(first, again)


def test_processes_share_a_balanced_epoch():
    images = numbered(64)
    orders = [
        Batches(images, batch_size=8, shuffle=True, training=True, balanced=True, rank=rank, world=2).order(0)
        for rank in (0, 1)
    ]
    whole = Batches(images, batch_size=8, shuffle=True, training=True, balanced=True).order(0)
    assert torch.equal(torch.stack(orders, dim=1).flatten(), whole)


def test_with_its_class_weights_every_class_of_a_long_tail_counts_alike():
    data = textures(count=800, imbalance=8)
    counts, weights = data.parts["train"].labels.bincount(), torch.tensor(data.class_weights)
    assert counts[0] > 6 * counts[-1]
    torch.testing.assert_close(counts * weights, counts.sum().expand(4) / 4, rtol=1e-4, atol=0)


# --- goes on inside an epoch -------------------------------------------------------------------------------------


def test_batches_go_on_where_they_were_when_their_state_was_taken():
    def loader() -> Batches:
        return textures(augment={"crop": {}, "flip": {}}, batch_size=16).training(epoch=lambda: 3)

    whole, stopped, resumed = list(loader()), loader(), loader()
    shown = iter(stopped)
    for _ in range(2):
        next(shown)
    resumed.load_state_dict(stopped.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - 2 == len(resumed) - 2
    for (x, y), (other, label) in zip(rest, whole[2:], strict=True):
        assert torch.equal(x, other)
        assert torch.equal(y, label)
    assert len(list(resumed)) == len(whole)  # the next epoch is whole again


def test_an_epoch_that_was_over_does_not_go_on_but_begins_anew():
    batches = textures(batch_size=16).training(epoch=int)
    given = len(list(batches))
    batches.load_state_dict(batches.state_dict())
    assert len(list(batches)) == given


# --- where images lie -------------------------------------------------------------------------------------------


def test_images_are_the_same_whether_they_are_resident_or_not():
    sets = [textures(resident=where, augment={"crop": {}}) for where in (True, False, "auto")]
    epochs = [list(data.training(epoch=lambda: 1)) for data in sets]
    for other in epochs[1:]:
        for (x, _), (again, _) in zip(epochs[0], other, strict=True):
            assert torch.equal(x, again)


def test_auto_leaves_a_set_where_it_is_that_takes_more_than_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch):
    images, meta = numbered(10), torch.device("meta")  # 10 × 3 × 8 × 8 bytes
    for room, moved in (2 * 1920, True), (2 * 1920 - 1, False):
        monkeypatch.setattr(resident, "free", lambda device, room=room: room)
        assert (resident.placed(images, meta, "auto").images.device == meta) == moved
    assert resident.placed(images, meta, True).images.device == meta
    assert resident.placed(images, meta, False) is images


def test_resident_files_are_decoded_once_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch):
    files = streamed(numbered(10), workers=0)
    placed = resident.placed(files, torch.device("cpu"), True)
    assert torch.equal(placed.images, numbered(10).images)
    assert torch.equal(placed.labels, files.labels)
    assert resident.placed(files, torch.device("cpu"), "auto") is files
    monkeypatch.setattr(resident, "free", lambda device: 1919)
    with pytest.raises(ValueError, match=r"data.resident=true: .* GB of pixels, .* GB of memory are free"):
        resident.placed(files, torch.device("cpu"), True)
    with pytest.raises(ValueError, match=r"data augmentation works on files"):
        resident.placed(replace(files, transforms=[lambda image: image]), torch.device("cpu"), True)


def test_a_set_is_placed_once_for_all_iterations_over_a_part():
    data = create_data("textures", count=64, size=16, batch_size=16)
    first, second = (data.batches("val").images for _ in range(2))
    assert first is second


def test_resident_files_are_not_cut_at_random_once_and_for_all():
    files = replace(streamed(numbered(4), workers=0), crop=lambda image, size: image)
    with pytest.raises(ValueError, match="data augmentation works on files"):
        resident.placed(files, torch.device("cpu"), True)
