"""Accuracy: against counting by hand, with any module."""

import numpy as np
import pytest
import torch
from torch import nn

from batvit.measure.accuracy import (
    Evaluation,
    Totals,
    beside_dense,
    best_classes,
    evaluate,
    hits,
    paired_interval,
)


class Table(nn.Module):
    """A classifier that looks its logits up: picture i is filled with i."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float32))
        self.batches = []

    def forward(self, x):
        self.batches.append((self.training, torch.is_inference_mode_enabled(), len(x)))
        return self.rows[x[:, 0, 0, 0].float().round().long()]


class Answers(nn.Module):
    """Answers every batch with one thing."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer


def batches(labels, size):
    pictures = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    labels = torch.tensor(labels)
    return list(zip(pictures.split(size), labels.split(size), strict=True))


def one_hot(predictions, classes):
    return torch.eye(classes)[torch.tensor(predictions)].tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_accuracy_is_what_counting_gives(size):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 9, generator=generator)
    labels = [3, 1, 8, 0, 3]
    order = rows.argsort(dim=1, descending=True).tolist()
    found = evaluate({"a": Table(rows.tolist())}, batches(labels, size))["a"]
    assert found.samples == 5
    assert found.top1 == 20 * sum(row[0] == label for row, label in zip(order, labels, strict=True))
    assert found.top5 == 20 * sum(
        label in row[:5] for row, label in zip(order, labels, strict=True)
    )
    assert (found.top1_err, found.top5_err) == (100 - found.top1, 100 - found.top5)
    assert found.agreement == 100
    assert found.loss == pytest.approx(
        float(nn.functional.cross_entropy(rows, torch.tensor(labels)))
    )


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_no_class_has_are_refused(label):
    with pytest.raises(
        ValueError, match=rf"a: labels {min(label, 0)} \.\. {max(label, 0)} do not fit 3 classes"
    ):
        evaluate({"a": Table(one_hot([0, 1], 3))}, batches([0, label], 2))


def test_every_module_goes_back_to_its_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 2))
    model[1].eval()
    evaluate({"a": model}, batches([0, 1], 2))
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_two_models_see_the_same_pictures_in_one_pass():
    first, second = Table(one_hot([0, 1, 2, 0], 3)), Table(one_hot([0, 1, 0, 1], 3))
    seen = []
    shown = (
        seen.append(len(labels)) or (images, labels) for images, labels in batches([0, 1, 2, 1], 3)
    )
    found = evaluate({"dense": first, "reduced": second}, shown)
    assert seen == [3, 1]
    assert [len(model.batches) for model in (first, second)] == [2, 2]
    assert (found["dense"].top1, found["reduced"].top1) == (75, 75)
    assert (found["dense"].agreement, found["reduced"].agreement) == (100, 50)


def test_with_fewer_than_five_classes_all_of_them_are_the_top_five():
    found = evaluate({"a": Table(one_hot([0, 1, 1], 2))}, batches([1, 0, 1], 2))["a"]
    assert (found.top1, found.top5) == (pytest.approx(100 / 3), 100)


def test_models_run_in_eval_mode_without_gradients_and_come_back_as_they_were():
    training, evaluating = Table(one_hot([0], 2)).train(), Table(one_hot([0], 2)).eval()
    evaluate({"a": training, "b": evaluating}, batches([0], 1))
    assert training.batches == evaluating.batches == [(False, True, 1)]
    assert (training.training, evaluating.training) == (True, False)


def test_models_come_back_as_they_were_after_an_error():
    model = Table(one_hot([0], 2)).train()
    with pytest.raises(ValueError, match="b: expected logits"):
        evaluate({"a": model, "b": Answers(torch.ones(3))}, batches([0], 1))
    assert model.training


def test_each_model_gets_its_own_precision():
    rows = one_hot([0, 1], 2)
    found = evaluate(
        {"fp32": Table(rows), "bf16": Table(rows).bfloat16(), "fp16": Table(rows).half()},
        batches([0, 1], 2),
    )
    assert {result.top1 for result in found.values()} == {100}


def test_a_model_without_weights_is_evaluated():
    assert evaluate({"a": Answers(torch.eye(2))}, batches([0, 1], 2))["a"].top1 == 100


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.ones(2, 3, 4), r"expected logits \(2, classes\), got \(2, 3, 4\)"),
        (torch.ones(3, 4), r"expected logits \(2, classes\), got \(3, 4\)"),
        (torch.ones(2, 0), r"got \(2, 0\)"),
        (torch.ones(2), r"got \(2,\)"),
        ((torch.ones(2, 3), torch.ones(2, 3)), "got tuple"),
        (None, "got NoneType"),
        (torch.tensor([[0.0, torch.nan], [0, 0]]), "not finite; run it in fp32 or bf16"),
        (torch.tensor([[0.0, torch.inf], [0, 0]]), "not finite"),
    ],
)
def test_what_are_no_logits_is_refused_by_name(answer, said):
    with pytest.raises(ValueError, match=f"^wrong: .*{said}"):
        evaluate({"wrong": Answers(answer)}, batches([0, 1], 2))


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="no model"):
        evaluate({}, batches([0], 1))
    with pytest.raises(ValueError, match="no picture"):
        evaluate({"a": Table(one_hot([0], 2))}, [])


def test_the_best_five_are_in_order_and_of_equal_ones_the_lower_is_first():
    assert best_classes(torch.tensor([[1.0, 3, 3, 0, 2, 3, 1]])).tolist() == [[1, 2, 5, 4, 0]]
    assert best_classes(torch.zeros(1, 1000)).tolist() == [[0, 1, 2, 3, 4]]
    assert best_classes(torch.tensor([[0.0, 1.0]])).tolist() == [[1, 0]]


def test_hits_by_hand():
    logits = torch.tensor([[3.0, 1, 0], [0, 1, 3], [1, 2, 0]])
    found = hits(logits, torch.tensor([0, 0, 1]), torch.tensor([0, 2, 2]))
    assert found.top1.tolist() == [True, True, False]
    assert found.top5.tolist() == [True] * 3
    assert found.agreeing.tolist() == [True, False, True]


def test_totals_of_parts_add_up_to_those_of_all():
    generator = torch.Generator().manual_seed(0)
    model, labels = Table(torch.randn(7, 9, generator=generator).tolist()), [3, 1, 8, 0, 3, 2, 5]
    every = batches(labels, 2)
    whole = evaluate({"a": model}, every)["a"]
    first, second = (evaluate({"a": model}, part)["a"] for part in (every[:2], every[2:]))
    both = Evaluation.from_totals(first.totals() + second.totals())
    assert both.samples == 7
    for name in ("top1", "top5", "agreement", "loss"):
        assert getattr(both, name) == pytest.approx(getattr(whole, name))
    assert Evaluation.from_totals(Totals(4.0, 1.0, 2.0, 3.0, 8.0)) == Evaluation(
        4, 25.0, 50.0, 75.0, 2.0
    )


def by_hand(differences, repeats):
    """The interval, one bootstrap after the other."""
    draw = np.random.default_rng(1)
    values = differences.numpy()
    means = [draw.choice(values, len(values)).mean() for _ in range(repeats)]
    return np.percentile(means, (2.5, 97.5))


@pytest.mark.parametrize("kind", ["few", "many"])
def test_the_interval_is_that_of_bootstraps_one_by_one(kind, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    few = 100.0 * (torch.randint(0, 20, (400,), generator=draw).clamp(max=2) - 1)
    differences = few if kind == "few" else few + torch.randn(400, generator=draw)
    # parts of several bootstraps, and a rest
    monkeypatch.setattr("batvit.measure.accuracy.AT_ONCE", 400 * 300)
    found = paired_interval(differences)
    assert found == paired_interval(differences)
    low, high = by_hand(differences, 4000)
    assert found == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_interval_of_a_constant_is_the_constant():
    assert paired_interval(torch.full((7,), -100.0)) == (-100, -100)
    assert paired_interval(torch.tensor([3.5])) == (3.5, 3.5)


def test_a_reduced_model_is_told_beside_the_dense_one():
    dense = Evaluation(samples=4, top1=75.0, top5=100.0, agreement=100.0, loss=0.5)
    reduced = Evaluation(samples=4, top1=50.0, top5=75.0, agreement=75.0, loss=1.0)
    assert beside_dense(dense, reduced) == {
        "samples": 4,
        "top1": 50.0,
        "top5": 75.0,
        "agreement": 75.0,
        "loss": 1.0,
        "top1_err": 50.0,
        "top5_err": 25.0,
        "dense_top1": 75.0,
        "dense_top5": 100.0,
    }
