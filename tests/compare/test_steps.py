"""The steps of a comparison: what they fill in, and what they ask for."""

from dataclasses import replace

import pytest
import timm
import torch
from example_rows import timing

from batvit.compare import steps
from batvit.compare.results import Results
from batvit.compare.rows import Key, Row, RowGroup
from batvit.compare.scores import Scores
from batvit.compare.steps import fit_plans, score_plans, time_plans
from batvit.compare.stopwatch import Stopwatch, TimedGroup
from batvit.config import BATConfig

MODEL = {"depth": 2, "embed_dim": 48, "num_classes": 3, "img_size": 32}


def row(plan="bat", target=0.5, at="macs", **fields):
    config = None if plan == "dense" else BATConfig(tokens=(2,), blocks=(1,))
    return Row(plan, RowGroup(target, at), config, (1,), (2,), 0.6, 0.5, **fields)


class Told(Stopwatch):
    """A clock that finds what it is told."""

    def time(self, rows):
        timed = []
        for known, speedup in zip(rows, (1.9, 2.0, 2.3, 1.7), strict=True):
            timed.append(replace(known, timing=timing(speedup=speedup)))
        group = rows[0].key.group
        return TimedGroup(row("dense", *group, timing=timing(speedup=1.0)), tuple(timed), {})


def test_what_is_measured_off_target_is_marked_and_kept(tmp_path):
    rows = [row(plan, 0.5, at) for at in ("macs", "time") for plan in "abcd"]
    results = Results(tmp_path, {}, rows=rows)
    said = []
    clock = Told(torch.nn.Identity(), torch.zeros(1, 3, 2, 2), 1)
    time_plans(results, clock, progress=said.append)
    assert said == ["timing all at 0.5 of the MACs", "timing all at 0.5 of the measured time"]
    marked = [known.timing.off_target for known in results.rows]
    assert marked == [False] * 4 + [False, False, True, True]
    assert [known.group for known in results.dense_rows] == [
        RowGroup(0.5, "macs"),
        RowGroup(0.5, "time"),
    ]
    # all is timed, so nothing is to be done
    time_plans(results, clock, progress=said.append)
    assert len(said) == 2


def test_a_plan_that_cannot_be_timed_is_left_out(tmp_path):
    class Failing(Stopwatch):
        def time(self, rows):
            dense = row("dense", *rows[0].key.group, timing=timing())
            return TimedGroup(dense, (), {known.key: ValueError("no") for known in rows})

    results = Results(tmp_path, {}, rows=[row("a")])
    time_plans(results, Failing(torch.nn.Identity(), torch.zeros(1, 3, 2, 2), 1))
    assert results.rows == []
    assert [failure.reason for failure in results.failures] == ["no"]


@pytest.fixture(scope="module")
def model():
    return timm.create_model("deit_tiny_patch16_224", **MODEL)


def test_every_plan_is_fitted_by_macs_and_by_time(tmp_path, model, monkeypatch):
    config = BATConfig(tokens=(2,), blocks=(1,))

    def at_time(dense, family, target, share):
        if family.method == "tome":
            raise RuntimeError("this plan\nbreaks")
        return config, target

    monkeypatch.setattr(steps, "at_macs", lambda dense, family, target: config)
    monkeypatch.setattr(steps, "at_time", at_time)
    results = Results(tmp_path, {})
    said = []
    clock = Stopwatch(model, torch.zeros(1, 3, 32, 32), 1)
    fit_plans(results, clock, plans=["bat", "tome"], targets=[0.5], progress=said.append)
    macs, by_time = RowGroup(0.5, "macs"), RowGroup(0.5, "time")
    assert [known.key for known in results.rows] == [
        Key("bat", macs),
        Key("bat", by_time),
        Key("tome", macs),
    ]
    assert [str(failure) for failure in results.failures] == [
        "tome at 0.5 of the measured time: this plan breaks"
    ]
    assert said[0] == "bat at 0.5 of the MACs"
    assert Results.open(tmp_path, {}, resume=True).rows == results.rows


def test_a_dense_model_that_is_not_finite_is_found_at_once(tmp_path):
    class Bad(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 3), torch.nan)

    clock = Stopwatch(Bad(), torch.zeros(1, 3, 32, 32), 1)
    with pytest.raises(ValueError, match="the dense model: logits are not finite"):
        fit_plans(Results(tmp_path, {}), clock, plans=["bat"], targets=[0.5])
    assert list(tmp_path.iterdir()) == []


def scored(folder, model, rows, samples, weights=None):
    """Score rows on so many pictures; also the places from which pictures were asked for."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    labels = torch.tensor([0, 1, 2, 0])
    asked = []

    def batches(start):
        asked.append(start)
        return [(images[i : i + 2], labels[i : i + 2]) for i in range(start, samples, 2)]

    dense_rows = [row("dense", timing=timing())]
    results = Results(folder, {}, rows=list(rows), dense_rows=dense_rows)
    score_plans(
        results, model, batches, samples=list(range(samples)), weights=weights, progress=print
    )
    return results, asked


def test_accuracies_are_means_and_are_not_computed_again(tmp_path, model):
    results, asked = scored(tmp_path, model, [row("bat")], 4)
    assert asked == [0]
    (known,) = results.rows
    (dense,) = results.dense_rows
    accuracy = known.accuracy
    assert accuracy.difference == pytest.approx(accuracy.top1 - dense.accuracy.top1)
    assert accuracy.difference_low <= accuracy.difference <= accuracy.difference_high
    assert (dense.accuracy.agreement, dense.accuracy.difference) == (100, 0)
    assert accuracy.top5 == 100
    again, asked = scored(tmp_path, model, [row("bat")], 4)
    assert asked == []
    assert again.rows == results.rows
    # with other weights or pictures they are
    assert scored(tmp_path, model, [row("bat")], 4, weights="others")[1] == [0]
    assert scored(tmp_path, model, [row("bat")], 2)[1] == [0]


def test_what_was_done_is_saved_when_it_is_interrupted(tmp_path, model, monkeypatch):
    update = Scores.update

    def interrupted(self, *arguments, **settings):
        for done in update(self, *arguments, **settings):
            yield done
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Scores, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scored(tmp_path, model, [row("bat")], 4)
    assert scored(tmp_path, model, [row("bat")], 4)[1] == [2]
