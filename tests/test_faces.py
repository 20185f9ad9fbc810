"""Drawn faces: what tells them from others, and what permuting their parts changes."""

import itertools

import pytest
import torch
from torch import Tensor

from zoo.data import DATASETS, create_data
from zoo.data.faces import FACE, KINDS, LOOK, PLACES, arranged, looks, painted
from zoo.data.sets import Sets


def faces(**options) -> Sets:
    return DATASETS.build("faces", **{"count": 64, "noise": 0.0, **options})


def arrangements(against: str, share: float, n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Labels, kinds, centres."""
    labels = torch.arange(n) % 2
    return labels, *arranged(labels, against, share, torch.Generator().manual_seed(0))


def straight(**look: float) -> dict[str, Tensor]:
    """A look of one image, in the middle of what is drawn, upright and in the centre, but for what is given."""
    middle = {name: sum(ends) / 2 for name, ends in LOOK.items()} | {"across": 0.0, "down": 0.0, "tilt": 0.0}
    return {name: torch.full((1, 1, 1), value) for name, value in (middle | look).items()}


def painting(kinds: tuple[int, ...] = FACE, size: int = 64, **look: float) -> Tensor:
    return painted(torch.tensor([kinds]), PLACES[None], straight(**look), size)[0]


def test_the_classes_are_of_one_size_and_always_the_same():
    one, again = faces(), faces()
    assert one.classes == ("face", "no face")
    for part, count in (one.train, 64), (one.test, 16):
        assert part.images.shape == (count, 1, 32, 32)
        assert part.labels.bincount().tolist() == [count // 2] * 2
    assert torch.equal(one.train.images, again.train.images)
    assert not set(map(bytes, one.test.images.numpy())) & set(map(bytes, one.train.images.numpy()))
    assert faces(size=48, channels=3).test.shape == (3, 48, 48)


def test_a_face_has_its_parts_in_their_places():
    image = painting(gaze=0.0, smile=0.0)
    torch.testing.assert_close(image, image.flip(1))  # the left is the right
    look = {name: value.item() for name, value in straight().items()}

    def shade(x: float, y: float) -> float:
        """At a point of the head, in its half heights."""
        at = torch.tensor([y, x]) * look["height"] * 64 + 31.5
        return image[tuple(at.round().long())].item()

    assert shade(-0.36, -0.26) == shade(0.36, -0.26) == pytest.approx(look["dark"])  # pupils
    assert shade(0.36 + 0.7 * look["eye"], -0.26) == pytest.approx(look["light"])
    assert shade(0, 0.2) == pytest.approx(0.55 * look["skin"])
    assert shade(0, 0.54) == pytest.approx(look["dark"])
    assert shade(0, -0.6) == pytest.approx(look["skin"])
    assert image[0, 0] == pytest.approx(look["behind"])


def test_edges_are_smooth_so_that_a_shape_moves_by_less_than_a_pixel():
    centre = []
    for across in 0.0, 0.25 / 64:
        head = painting(kinds=(), across=across, behind=0.0, skin=1.0)
        centre.append((head.sum(0) * torch.arange(64)).sum() / head.sum())
    assert centre[1] - centre[0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("against", ["shapes", "scattered", "permuted"])
def test_training_faces_are_whole_and_their_counterparts_are_not(against: str):
    labels, kinds, centres = arrangements(against, 0)
    home = (centres - PLACES).abs().amax((1, 2)) < 0.05
    whole = (kinds == torch.tensor(FACE)).all(1) & home
    assert torch.equal(whole, labels == 0)
    parts = [tuple(sorted(row)) for row in kinds[labels == 1].tolist()]
    expected = {"shapes": (3, 3, 4, 5)}.get(against, tuple(sorted(FACE)))
    assert set(parts) == {expected}
    assert torch.equal(home, torch.ones_like(home) if against != "scattered" else labels == 0)


def test_permuted_parts_take_all_eleven_other_arrangements():
    labels, kinds, _ = arrangements("shapes", 1.0)
    found = set(map(tuple, kinds[labels == 0].tolist()))
    assert found == set(itertools.permutations(FACE)) - {FACE}
    assert len(found) == 11


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_that_share_of_test_faces_is_permuted_and_still_labelled_a_face(share: float):
    whole, some = faces(count=320), faces(count=320, permuted=share)
    assert torch.equal(whole.train.images, some.train.images)
    assert torch.equal(whole.test.labels, some.test.labels)
    changed = (whole.test.images != some.test.images).flatten(1).any(1)
    assert changed.sum() == share * 40
    assert not changed[whole.test.labels == 1].any()


def test_a_permuted_face_has_the_same_parts_on_the_same_head():
    """So that its pixels, but for those that edges cut, are the same ones in other places."""
    whole, permuted = (faces(size=96, permuted=share).test for share in (0, 1))
    for one, other in zip(whole.images[whole.labels == 0], permuted.images[whole.labels == 0], strict=True):
        assert (one != other).float().mean() > 0.01
        counts = [image.flatten().bincount(minlength=256).float() for image in (one, other)]
        assert (counts[0] - counts[1]).abs().sum() / 2 < 0.01 * one.numel()


def test_parts_do_not_touch_wherever_they_are():
    look = straight(eye=LOOK["eye"][1], nose=LOOK["nose"][1], mouth=LOOK["mouth"][1])
    look = {name: value.expand(12, 1, 1) for name, value in look.items()}
    kinds = torch.tensor(sorted(set(itertools.permutations(FACE))))
    bare = painted(kinds[:1, :0], PLACES[None, :0], {name: value[:1] for name, value in look.items()}, 96)
    areas = [
        sum((painted(row[None, i : i + 1], PLACES[None, i : i + 1], look, 96)[0] != bare[0]).sum() for i in range(4))
        for row in kinds
    ]
    together = (painted(kinds, PLACES.expand(12, 4, 2), look, 96) != bare).flatten(1).sum(1)
    assert torch.equal(together, torch.stack(areas))


def test_heads_stay_inside_the_image():
    look = looks(500, torch.Generator().manual_seed(0))
    shade = {name: torch.full((500, 1, 1), value) for name, value in (("behind", 0.0), ("skin", 1.0))}
    nothing = torch.zeros(500, 0, dtype=torch.long)
    heads = painted(nothing, torch.zeros(500, 0, 2), look | shade, 32)
    border = torch.cat([heads[:, 0], heads[:, -1], heads[:, :, 0], heads[:, :, -1]], dim=1)
    assert border.max() < 0.5
    assert (heads.sum((1, 2)) > 0.2 * 32 * 32).all()


def test_faces_are_drawn_the_same_in_blocks_of_any_number():
    look, n = looks(300, torch.Generator().manual_seed(0)), 300
    kinds = torch.arange(n)[:, None].expand(n, 4) % len(KINDS)
    together = painted(kinds, PLACES.expand(n, 4, 2), look, 16)
    alone = painted(kinds[280:], PLACES.expand(20, 4, 2), {name: value[280:] for name, value in look.items()}, 16)
    torch.testing.assert_close(together[280:], alone)


def test_noise_has_the_deviation_that_is_asked_for():
    plain, noisy = faces(channels=3), faces(channels=3, noise=0.05)
    inner = (plain.train.images > 60) & (plain.train.images < 200)  # where nothing is clipped
    difference = noisy.train.images.float() - plain.train.images.float()
    assert difference[inner].std().item() / 255 == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"against": "cats"}, "data.against must be shapes, scattered or permuted, not 'cats'"),
        ({"permuted": 1.5}, "data.permuted=1.5 must be from 0 to 1"),
        ({"size": 8}, "faces need 16 pixels, .* not size=8"),
        ({"count": 4}, "count=4"),
    ],
)
def test_an_option_that_is_not_possible_is_named(options: dict, told: str):
    with pytest.raises(ValueError, match=told):
        faces(**options)


def test_true_permutes_all_faces_and_a_run_takes_the_set_by_name():
    assert torch.equal(faces(permuted=True).test.images, faces(permuted=1.0).test.images)
    data = create_data("faces", count=64, batch_size=8)
    assert (data.in_chans, data.image_size, data.num_classes) == (1, 32, 2)
