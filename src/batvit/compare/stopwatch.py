"""The times of a comparison: configurations and the dense model, in turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy, schedule_of
from batvit.budget import macs_of
from batvit.compare.failures import collect_errors
from batvit.compare.rows import DENSE, Key, Row, RowGroup, RowTiming
from batvit.config import BATConfig
from batvit.measure.clock import (
    all_steady,
    in_turns,
    is_steady,
    peak_memory,
    quartiles,
    speedup,
)

QUICK_ROUNDS = 7
WARMUP = 3


class Rounds(NamedTuple):
    """Times of the dense model and of a reduced one in the same rounds, in milliseconds."""

    dense: Sequence[float]
    reduced: Sequence[float]


class TimedGroup(NamedTuple):
    """What was found when a group was timed."""

    dense: Row
    rows: tuple[Row, ...]
    """those that could be timed"""
    errors: dict[Key, Exception]
    """of the others"""


class Attempts:
    """Reduced copies of the dense model, each of which is left alone from its first error on."""

    def __init__(self, dense: nn.Module, rows: Sequence[Row]) -> None:
        self.errors: dict[Key, Exception] = {}
        self.models = {row.key: self._attempt(row.key, reduced_model, dense, row) for row in rows}

    def peaks(self, images: Tensor) -> list[float | None]:
        """Measure the memory of each; None if it is not seen."""
        peaks = []
        for key, model in self.models.items():
            peaks.append(self._attempt(key, peak_memory, model, images) or None)
        return peaks

    def runs(self, images: Tensor) -> list[Callable[[], Any]]:
        """Return what runs each on a batch, and raises nothing."""
        runs: list[Callable[[], Any]] = []
        for key, model in self.models.items():
            runs.append(partial(self._attempt, key, model, images))
        return runs

    def _attempt(self, key: Key, action: Callable[..., Any] | None, *arguments: Any) -> Any:
        # without a model, which could not be made, there is an error already
        if action is not None and key not in self.errors:
            with collect_errors(self.errors, key):
                return action(*arguments)
        return None


@dataclass(frozen=True)
class Stopwatch:
    """Times configurations and the dense model in turns, in batches and for one picture alone."""

    dense: nn.Module
    images: Tensor
    """(B, 3, H, W), on the model's device and in its precision"""
    rounds: int
    """of each run; up to three times as many where times spread too much"""

    @cached_property
    def macs(self) -> int:
        """MACs of the dense model, for one picture."""
        return macs_of(self.dense, None)

    @torch.inference_mode()
    def share(self, config: BATConfig) -> float:
        """Measure quickly which share of the dense model's time a configuration takes."""
        dense = self.dense.eval()
        reduced = reduced_copy(self.dense, config).eval()
        runs = [partial(dense, self.images), partial(reduced, self.images)]
        times = in_turns(runs, self.images, rounds=QUICK_ROUNDS, warmup=1, enough=all_steady)
        return 1 / speedup(*times).median

    def untimed_row(self, key: Key, config: BATConfig) -> Row:
        """Return what is known of a configuration before it is timed."""
        counts = schedule_of(reduced_copy(self.dense, config))
        macs = macs_of(self.dense, config)
        return Row(
            plan=key.plan,
            group=key.group,
            config=config,
            blocks=tuple(site.block for site in counts),
            tokens=tuple(site.tokens_out for site in counts),
            gmacs=macs / 1e9,
            mac_share=macs / self.macs,
        )

    @torch.inference_mode()
    def time(self, rows: Sequence[Row]) -> TimedGroup:
        """Time the rows of one group and the dense model in one run, in turns."""
        attempts = Attempts(self.dense, rows)
        dense_peak = peak_memory(self.dense.eval(), self.images) or None
        peaks = attempts.peaks(self.images)
        times = []
        for images, rounds in ((self.images, self.rounds), (self.images[:1], 2 * self.rounds)):
            runs: list[Callable[[], Any]] = [partial(self.dense, images)]
            runs += attempts.runs(images)
            times.append(in_turns(runs, images, rounds=rounds, warmup=WARMUP, enough=all_steady))
        batches, alone = times
        measured = partial(row_timing, batch_size=len(self.images))
        timed = []
        for i, row in enumerate(rows):
            if row.key not in attempts.errors:
                timing = measured(
                    Rounds(batches[0], batches[i + 1]),
                    Rounds(alone[0], alone[i + 1]),
                    mac_share=row.mac_share,
                    peak_memory_mb=peaks[i],
                )
                timed.append(replace(row, timing=timing))
        dense_timing = measured(
            Rounds(batches[0], batches[0]),
            Rounds(alone[0], alone[0]),
            mac_share=1.0,
            peak_memory_mb=dense_peak,
        )
        dense = self._dense_row(rows[0].key.group, dense_timing)
        return TimedGroup(dense, tuple(timed), attempts.errors)

    def _dense_row(self, group: RowGroup, timing: RowTiming) -> Row:
        return Row(
            plan=DENSE,
            group=group,
            config=None,
            blocks=(),
            tokens=(),
            gmacs=self.macs / 1e9,
            mac_share=1.0,
            timing=timing,
        )


def row_timing(
    batches: Rounds,
    alone: Rounds,
    *,
    batch_size: int,
    mac_share: float,
    peak_memory_mb: float | None,
) -> RowTiming:
    """Return the timing of a row.

    Args:
        batches: times of a batch.
        alone: times of one picture alone.
        batch_size: pictures a batch.
        mac_share: of the dense model's MACs.
        peak_memory_mb: as measured.
    """
    step = quartiles(batches.reduced)
    latency = quartiles(alone.reduced)
    speedups = speedup(*batches)
    ratio = speedups.median
    return RowTiming(
        step_time=step.median,
        step_time_iqr=step.range,
        samples_per_sec=1e3 * batch_size / step.median,
        speedup=ratio,
        speedup_low=speedups.low,
        speedup_high=speedups.high,
        unsteady=not is_steady(*batches),
        off_target=False,
        realised_share=ratio * mac_share,
        peak_memory_mb=peak_memory_mb,
        latency_ms=latency.median,
        latency_iqr=latency.range,
        latency_speedup=speedup(*alone).median,
        rounds=len(batches.reduced),
    )


def reduced_model(dense: nn.Module, row: Row) -> nn.Module:
    """Return a copy of the dense model, reduced as a row says."""
    assert row.config is not None
    return reduced_copy(dense, row.config)
