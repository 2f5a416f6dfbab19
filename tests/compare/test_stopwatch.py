"""Times of configurations beside the dense model."""

import pytest
import timm
import torch

from batvit.compare import stopwatch
from batvit.compare.rows import Key, RowGroup
from batvit.compare.stopwatch import Rounds, Stopwatch, row_timing
from batvit.config import BATConfig


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    # torch's profiler writes notes to standard error
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")


@pytest.fixture(scope="module")
def model():
    return timm.create_model(
        "deit_tiny_patch16_224", depth=4, embed_dim=48, num_classes=3, img_size=32
    )


def clock_of(model, rounds=1, batch=2):
    return Stopwatch(model, torch.zeros(batch, 3, 32, 32), rounds)


def test_the_speed_is_the_median_of_the_ratios_of_single_rounds():
    timing = row_timing(
        Rounds([10.0, 20.0, 30.0], [10.0, 5.0, 30.0]),
        Rounds([1.0, 3.0], [1.0, 1.0]),
        batch_size=4,
        mac_share=0.5,
        peak_memory_mb=None,
    )
    assert (timing.speedup, timing.step_time, timing.samples_per_sec) == (1.0, 10.0, 400.0)
    assert (timing.realised_share, timing.latency_speedup, timing.latency_ms) == (0.5, 2.0, 1.0)
    assert not timing.off_target


def test_a_share_is_one_of_the_dense_models_time(model, monkeypatch):
    monkeypatch.setattr(
        stopwatch, "in_turns", lambda *a, **k: [[10.0, 20.0, 30.0], [5.0, 10.0, 15.0]]
    )
    assert clock_of(model).share(BATConfig(tokens=(2,), blocks=(1,))) == 0.5


def test_a_row_knows_its_counts_before_it_is_timed(model):
    clock = clock_of(model)
    row = clock.untimed_row(Key("bat", RowGroup(0.5, "macs")), BATConfig(tokens=(2,), blocks=(1,)))
    assert (row.blocks, row.tokens, row.timing, row.accuracy) == ((1,), (2,), None, None)
    assert 0 < row.mac_share < 1
    assert row.gmacs == row.mac_share * clock.macs / 1e9


def test_all_rows_and_the_dense_model_are_timed_in_turns(model, monkeypatch):
    asked = []

    def in_turns(runs, images, *, rounds, warmup, enough):
        asked.append((len(runs), len(images), rounds))
        for run in runs:
            run()
        return [[float(4 - i)] * rounds for i in range(len(runs))]

    monkeypatch.setattr(stopwatch, "in_turns", in_turns)
    clock = clock_of(model, rounds=3)
    group = RowGroup(0.5, "macs")
    config = BATConfig(tokens=(2,), blocks=(1,))
    rows = [clock.untimed_row(Key(plan, group), config) for plan in ("a", "b")]
    found = clock.time(rows)
    # in batches, and twice as often one picture alone
    assert asked == [(3, 2, 3), (3, 1, 6)]
    assert [row.timing.step_time for row in (found.dense, *found.rows)] == [4.0, 3.0, 2.0]
    assert [row.timing.speedup for row in found.rows] == [4 / 3, 2.0]
    assert (found.dense.plan, found.dense.group, found.dense.timing.speedup) == ("dense", group, 1)
    assert found.errors == {}
    assert all(row.timing.peak_memory_mb > 0 for row in (found.dense, *found.rows))


def test_a_plan_is_left_alone_from_its_first_error_on(model, monkeypatch):
    calls = []

    class Breaks(torch.nn.Module):
        def forward(self, images):
            calls.append(len(images))
            raise IndexError("no kernel")

    copy = stopwatch.reduced_copy
    monkeypatch.setattr(
        stopwatch,
        "reduced_copy",
        lambda dense, config: Breaks() if config.blocks == (2,) else copy(dense, config),
    )
    monkeypatch.setattr(stopwatch, "schedule_of", lambda model: [])
    clock = clock_of(model)
    group = RowGroup(0.5, "macs")
    good, bad = (
        clock.untimed_row(Key(plan, group), BATConfig(tokens=(2,), blocks=(block,)))
        for plan, block in (("good", 1), ("bad", 2))
    )
    found = clock.time([bad, good])
    assert [row.plan for row in found.rows] == ["good"]
    assert {str(key): repr(error) for key, error in found.errors.items()} == {
        "bad at 0.5 of the MACs": "IndexError('no kernel')"
    }
    assert len(calls) == 1
