"""How far a reduced model is from the dense one, with labels and without."""

import itertools

import pytest
import torch

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.module_copy import light_copy
from batvit.tune.objective import Difference, Score, TuningSet, difference_sentence, score


def broken(model, value):
    """A copy with a class whose logit is not finite."""
    copy = light_copy(model)
    copy.head = torch.nn.Linear(48, 4)
    torch.nn.init.constant_(copy.head.bias, value)
    return copy


def test_the_dense_model_is_no_distance_from_itself(model, data):
    found = score(model, data)
    assert found.loss == pytest.approx(0, abs=1e-6)
    assert found.drop == 0


def test_loss_is_the_divergence_from_the_dense_models_word(model, candidate, data):
    reduced = batvit.patch(light_copy(model), candidate.at(2.0, anatomy_of(model)))
    heard = []
    found = score(reduced, data, lambda step, loss: heard.append((step, loss)))

    def probabilities(model):
        with torch.no_grad():
            return torch.cat([model(images) for images in data.batches]).double().softmax(1)

    p = probabilities(model)
    q = probabilities(reduced)
    expected = (p * (p / q).log()).sum(1)
    reverse = (q * (q / p).log()).sum(1)
    torch.testing.assert_close(found.losses.double(), expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(expected, reverse, rtol=1e-2)
    assert found.lost.tolist() == (100.0 * (p.argmax(1) != q.argmax(1))).tolist()
    ends = list(itertools.accumulate(map(len, data.batches)))
    assert [step for step, _ in heard] == list(range(len(ends)))
    means = [float(expected[:end].mean()) for end in ends]
    assert [loss for _, loss in heard] == pytest.approx(means, rel=1e-3)


def test_labels_count_instead_if_they_are_given(model, candidate, tuning_set):
    data = tuning_set(model, labelled=True)
    reduced = batvit.patch(light_copy(model), candidate.at(2.0, anatomy_of(model)))
    found = score(reduced, data)
    with torch.no_grad():
        logits = torch.cat([reduced(images) for images in data.batches])
        dense = torch.cat([model(images) for images in data.batches])
    labels = torch.cat(data.labels)
    expected = float(torch.nn.functional.cross_entropy(logits, labels))
    assert found.loss == pytest.approx(expected, rel=1e-5)
    right = (dense.argmax(1) == labels).sum() - (logits.argmax(1) == labels).sum()
    assert found.drop == pytest.approx(100 * float(right) / len(labels))


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_that_are_no_classes_are_refused(model, label):
    batch = (torch.zeros(1, 3, 96, 96), torch.tensor([label]))
    with pytest.raises(ValueError, match=f"labels {label} .. {label} do not fit 4 cl"):
        TuningSet.of(model, [batch], labelled=True)
    # where they do not count they may be what they like
    assert TuningSet.of(model, [batch], labelled=False).labels is None


def test_a_dense_model_that_says_nothing_finite_is_refused(model, tuning_set):
    with pytest.raises(ValueError, match="the dense model: logits are not finite"):
        tuning_set(broken(model, float("nan")))


def test_a_reduced_model_that_says_nothing_finite_is_refused(model, data):
    with pytest.raises(ValueError, match="the reduced model: logits are not finite"):
        score(broken(model, float("inf")), data)


def test_one_that_loses_less_is_told_apart_from_another():
    def of(losses):
        return Score(torch.tensor(losses), torch.tensor([0.0, 100.0, 0.0]))

    better = of([0.1, 0.2, 0.1])
    worse = of([0.2, 0.3, 0.4])
    difference = better.compare_to(worse)
    assert difference["loss"].mean == pytest.approx(-1 / 6)
    assert difference["drop"] == Difference(0, 0, 0)
    sentence = difference_sentence(difference, "the preset")
    assert sentence.startswith("tuned is better than the preset: loss -0.167 [-0.3")
    assert sentence.endswith("], drop +0.000 [+0.000, +0.000]")
    reverse = difference_sentence(worse.compare_to(better), "the preset")
    assert "tuned is worse than the preset: loss +0.167 [" in reverse
    mixed = of([0.3, 0.1, 0.2]).compare_to(of([0.2, 0.2, 0.2]))
    assert "tuned is not told apart from the preset: loss +0.000 [" in difference_sentence(
        mixed, "the preset"
    )
