"""Per-image scores: saved, resumed, and never mixed up."""

import pytest
import torch
from torch import nn

from batvit.compare.scores import ImageScores, Scores
from batvit.measure.accuracy import best_classes, evaluate


class Says(nn.Module):
    """The same logits for every picture, but for the first channel's mean."""

    def __init__(self, logits, fails_at=None):
        super().__init__()
        self.logits, self.fails_at, self.calls = nn.Parameter(torch.tensor(logits)), fails_at, 0

    def forward(self, images):
        self.calls += 1
        if self.calls == self.fails_at:
            raise IndexError("no kernel")
        return self.logits * images.mean(dim=(1, 2, 3)).unsqueeze(1)


class Far(nn.Module):
    """Logits so far apart that their softmax overflows."""

    def forward(self, images):
        return torch.tensor([[3e38, -3e38, 0.0]]).expand(len(images), 3)


def batches(counts=(2, 2, 1)):
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.rand(n, 3, 2, 2, generator=draw), torch.randint(0, 3, (n,), generator=draw))
        for n in counts
    ]


def updated(scores, models, data, dense=None, **settings):
    return list(scores.update(dense or Says([3.0, 1.0, 0.0]), models, data, **settings))


def opened(path, *names, samples=5, **digests):
    """Scores of the dense model and of others; each has its own digest, unless one is given."""
    return Scores.load(path, {name: f"of {name}" for name in ("dense", *names)} | digests, samples)


def equal(first, second):
    """Whether the scores of the model "other" are the same."""
    pairs = zip(first.by_model["other"], second.by_model["other"], strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


def test_every_kind_by_hand(tmp_path):
    scores = opened(tmp_path / "o", "other")
    data = batches()
    assert updated(scores, {"other": Says([0.0, 1.0, 3.0])}, data) == [2, 4, 5]
    labels, scale = (
        torch.cat([y for _, y in data]),
        torch.cat([x.mean(dim=(1, 2, 3)) for x, _ in data]).unsqueeze(1),
    )
    dense, other = scores.by_model["dense"], scores.by_model["other"]
    assert torch.equal(dense.top1, (labels == 0).float())
    assert torch.equal(other.top1, (labels == 2).float())
    # of three classes all are among the first five
    assert dense.top5.tolist() == other.top5.tolist() == [1.0] * 5
    assert dense.agreement.tolist() == [1.0] * 5
    assert other.agreement.tolist() == [0.0] * 5
    assert dense.kl.abs().max() < 1e-6
    p, q = (
        (torch.tensor(logits) * scale).softmax(dim=1)
        for logits in ([3.0, 1.0, 0.0], [0.0, 1.0, 3.0])
    )
    torch.testing.assert_close(other.kl, (p * (p / q).log()).sum(dim=1))


def test_a_pass_that_was_left_is_taken_up_where_it_was(tmp_path):
    path, data = tmp_path / "o", batches()
    whole = opened(path, "other")
    updated(whole, {"other": Says([0.0, 1.0, 3.0])}, data)
    first = opened(path, "other")
    for seen in first.update(Says([3.0, 1.0, 0.0]), {"other": Says([0.0, 1.0, 3.0])}, data):
        if seen == 4:
            break
    first.save(path)
    second, model = opened(path, "other"), Says([0.0, 1.0, 3.0])
    assert (second.by_model["dense"].done, second.by_model["other"].done) == (4, 4)
    # what was seen need not even be given
    assert updated(second, {"other": model}, data[2:], start=4) == [5]
    assert model.calls == 1
    assert equal(second, whole)


def test_a_model_that_is_added_sees_the_pictures_alone(tmp_path):
    path, data = tmp_path / "o", batches()
    first = opened(path, "other")
    updated(first, {"other": Says([0.0, 1.0, 3.0])}, data)
    first.save(path)
    second, known, added = (
        opened(path, "other", "added"),
        Says([0.0, 1.0, 3.0]),
        Says([1.0, 0.0, 3.0]),
    )
    assert updated(second, {"other": known, "added": added}, data) == [2, 4, 5]
    assert (known.calls, added.calls) == (0, 3)
    assert equal(second, first)
    assert second.by_model["added"].done == 5


def test_what_was_kept_of_another_model_is_not_taken(tmp_path):
    path = tmp_path / "o"
    kept = opened(path, "other")
    updated(kept, {"other": Says([0.0, 1.0, 3.0])}, batches())
    kept.save(path)
    fresh = opened(path, "other", other="of its weights as they are now")
    assert (fresh.by_model["dense"].done, fresh.by_model["other"].done) == (5, 0)
    for fresh in (opened(path, "another"), opened(path, "other", samples=6)):
        (name,) = fresh.digests.keys() - {"dense"}
        assert fresh.by_model[name].done == 0
        assert isinstance(fresh.by_model[name], ImageScores)
        assert fresh.by_model[name].kl.shape == fresh.by_model["dense"].kl.shape


def test_a_model_that_fails_is_left_out_and_the_others_go_on(tmp_path):
    scores = opened(tmp_path / "o", "bad", "nan", "far", "good")
    models = {
        "bad": Says([0.0, 1.0, 3.0], fails_at=2),
        "nan": Says([float("nan"), 1.0, 3.0]),
        "far": Far(),
        "good": Says([3.0, 1.0, 0.0]),
    }
    assert updated(scores, models, batches()) == [2, 4, 5]
    assert {name: repr(error) for name, error in scores.errors.items()} == {
        "bad": "IndexError('no kernel')",
        "nan": "ValueError('nan: logits are not finite; run it in fp32 or bf16, or check its "
        "weights')",
        "far": "ValueError('the divergence from the dense model is not finite')",
    }
    assert models["bad"].calls == 2
    assert scores.by_model["good"].agreement.tolist() == [1.0] * 5


def test_a_model_that_failed_before_is_tried_again_from_there(tmp_path):
    path, data = tmp_path / "o", batches()
    first = opened(path, "bad", "good")
    updated(first, {"bad": Says([0.0, 1.0, 3.0], fails_at=2), "good": Says([3.0, 1.0, 0.0])}, data)
    first.save(path)
    second, model = opened(path, "bad", "good"), Says([0.0, 1.0, 3.0])
    assert (second.by_model["bad"].done, second.by_model["good"].done) == (2, 5)
    updated(second, {"bad": model, "good": Says([3.0, 1.0, 0.0])}, data)
    assert (second.by_model["bad"].done, model.calls, second.errors) == (5, 2, {})


def test_a_dense_model_that_is_not_finite_says_so(tmp_path):
    with pytest.raises(
        ValueError, match="the dense model: logits are not finite; run it in fp32 or bf16"
    ):
        updated(opened(tmp_path / "o"), {}, batches(), dense=Says([float("inf"), 0.0, 0.0]))


def test_of_equal_logits_the_lower_class_counts_for_everyone(tmp_path):
    # as in bf16, where a thousand classes share few values
    draw = torch.Generator().manual_seed(6)
    logits = torch.randint(0, 4, (1000,), generator=draw).float()
    assert best_classes(logits.unsqueeze(0)).tolist() == [(logits == 3).nonzero()[:5, 0].tolist()]
    scores = opened(tmp_path / "o", "other")
    dense = Says(logits.tolist())
    updated(scores, {"other": Says(logits.tolist())}, batches(), dense=dense)
    for of_model in scores.by_model.values():
        assert of_model.agreement.tolist() == [1.0] * 5
    labels = [(images, torch.full((len(images),), int(logits.argmax()))) for images, _ in batches()]
    assert evaluate({"dense": dense}, labels)["dense"].top1 == 100


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "o"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"o: cannot be read .*; remove it"):
        opened(path, "other")
