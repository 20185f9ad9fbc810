import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.metrics import Totals, classes_of, confusion, found_in


def errors(scores: Tensor, y: Tensor, k: int) -> float:
    """Percent of images whose class is not among the k best, by sorting every row."""
    missed = 0
    for row, label in zip(scores.tolist(), y.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda c: -row[c])[:k]
        missed += label not in best
    return 100 * missed / len(y)


@pytest.mark.parametrize("num_classes", [2, 4, 5, 6, 20])
def test_totals_over_uneven_batches_are_the_errors_over_all_images_in_percent(num_classes):
    scores, y = torch.randn(61, num_classes), torch.randint(num_classes, (61,))
    losses = F.cross_entropy(scores, y, reduction="none")
    totals = Totals()
    for part in torch.arange(61).split([32, 20, 8, 1]):
        totals.add(losses[part].mean(), {"half": losses[part].mean() / 2}, scores[part], y[part])
    means = totals.read()
    assert totals.images == 61
    assert means["top1_error"] == pytest.approx(errors(scores, y, 1))
    assert means["top5_error"] == pytest.approx(errors(scores, y, 5))
    assert means["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert means["half"] == pytest.approx(losses.mean().item() / 2, rel=1e-5)


def test_the_vectors_of_two_processes_add_up_to_the_totals_of_all_images():
    scores, y, loss = torch.randn(30, 8), torch.randint(8, (30,)), torch.tensor(2.0)
    whole, ranks = Totals(), (Totals(), Totals())
    for target, part in (whole, slice(0, 30)), (ranks[0], slice(0, 19)), (ranks[1], slice(19, 30)):
        target.add(loss, {}, scores[part], y[part])
    summed = ranks[0].tensor(torch.device("cpu")) + ranks[1].tensor(torch.device("cpu"))
    assert ranks[0].read(summed) == pytest.approx(whole.read())


def test_small_losses_do_not_drown_in_a_large_sum():
    totals, scores, y = Totals(), torch.eye(2), torch.tensor([0, 1])
    totals.add(torch.tensor(2.0**24), {}, scores, y)
    for _ in range(4):
        totals.add(torch.tensor(0.5), {}, scores, y)
    assert totals.read()["loss"] == (2.0**24 + 2) / 5


@pytest.mark.parametrize(
    "y",
    [
        torch.tensor([2, 0]),
        torch.tensor([[0.1, 0.3, 0.6], [0.9, 0.1, 0.0]]),
        {"label": torch.tensor([2, 0]), "shift": torch.zeros(2, 2)},
    ],
    ids=["classes", "mixed", "dict"],
)
def test_errors_are_counted_against_the_label_however_it_is_given(y):
    assert classes_of(y).tolist() == [2, 0]
    totals = Totals()
    totals.add(torch.tensor(0.0), {}, torch.tensor([[0.0, 1, 2], [0, 1, 2]]), y)
    assert totals.read()["top1_error"] == 50


def test_confusion_counts_true_classes_in_rows_and_predicted_ones_in_columns():
    scores = F.one_hot(torch.tensor([0, 1, 1, 0, 2, 1])).float()
    counts = confusion(scores, torch.tensor([0, 0, 0, 1, 2, 1]), 4)
    assert counts.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_an_image_of_two_digits_is_right_when_both_are_the_best_and_among_five_when_both_are():
    scores = torch.tensor([[9.0, 8, 1, 2, 3, 4, 5], [9.0, 8, 1, 2, 3, 4, 5], [9.0, 8, 1, 2, 3, 4, 5]])
    y = {"label": torch.zeros(3, 7), "digits": torch.tensor([[1, 0], [0, 6], [0, 2]])}
    assert found_in(scores, y, 1).tolist() == [True, False, False]
    assert found_in(scores, y, 5).tolist() == [True, True, False]
