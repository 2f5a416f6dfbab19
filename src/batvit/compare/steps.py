"""Which reduction keeps most for the time: every plan at the same MACs and at the same measured time, on the same pictures."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy, schedule_of
from batvit.budget import TIME_TOLERANCE, Family, at_macs, at_time, macs_of
from batvit.compare.results import COSTS, OUTCOMES, Row, Study
from batvit.compare.scores import DENSE, Outcomes, collect_errors, finite_logits
from batvit.config.config import BATConfig
from batvit.measure.accuracy import paired_interval
from batvit.measure.clock import in_turns, peak_memory, quartiles
from batvit.storage.run_folder import digest

QUICK_ROUNDS, WARMUP = 7, 3
SAVE_SECONDS = 60


@dataclass(frozen=True)
class Clock:
    """Times configurations beside the dense model, in turns, at one batch size and for one picture alone."""

    dense: nn.Module
    images: Tensor
    """(B, 3, H, W), on the model's device and in its precision"""
    rounds: int

    @cached_property
    def macs(self) -> int:
        """Of the dense model, for one picture."""
        return macs_of(self.dense, None)

    @torch.inference_mode()
    def share(self, config: BATConfig) -> float:
        """Time over the dense model's: the median over a few rounds."""
        models = (self.dense.eval(), reduced_copy(self.dense, config).eval())
        dense, own = in_turns(
            [partial(model, self.images) for model in models],
            self.images,
            rounds=QUICK_ROUNDS,
            warmup=1,
        )
        return 1 / _speedup(dense, own)

    def row(self, plan: str, target: float, at: str, config: BATConfig) -> Row:
        """What is known of a configuration before it is timed."""
        counts, macs = schedule_of(reduced_copy(self.dense, config)), macs_of(self.dense, config)
        row = Row(
            plan,
            target,
            at,
            config.to_dict(),
            [c.block for c in counts],
            [c.tokens_out for c in counts],
        )
        row.gmacs, row.mac_share = macs / 1e9, macs / self.macs
        return row

    @torch.inference_mode()
    def time(self, rows: Sequence[Row]) -> tuple[Row, dict[int, Exception]]:
        """Time rows and the dense model in one run, in turns, and fill in what is found.

        Returns:
            The dense model's row, and what went wrong by the place of the row; such a row is left as it is.
        """
        failed: dict[int, Exception] = {}

        def run(i: int, action: Callable[..., Any], *arguments: Any) -> Any:
            # from its first error on, nothing is asked of it
            if i not in failed:
                with collect_errors(failed, i):
                    return action(*arguments)
            return None

        def turns(images: Tensor, rounds: int) -> list[list[float]]:
            runs = [
                partial(self.dense, images),
                *(partial(run, i, model, images) for i, model in enumerate(models)),
            ]
            return in_turns(runs, images, rounds=rounds, warmup=WARMUP)

        models = [
            run(i, reduced_copy, self.dense, BATConfig.from_dict(row.config or {}))
            for i, row in enumerate(rows)
        ]
        dense = Row(DENSE, *rows[0].group, gmacs=self.macs / 1e9, mac_share=1.0)
        dense.peak_memory_mb = peak_memory(self.dense.eval(), self.images) or None
        for i, row in enumerate(rows):
            row.peak_memory_mb = run(i, peak_memory, models[i], self.images) or None
        many, alone = turns(self.images, self.rounds), turns(self.images[:1], 2 * self.rounds)
        for i, row in enumerate((dense, *rows)):
            if i - 1 not in failed:
                _fill_times(row, (many[0], many[i]), (alone[0], alone[i]), len(self.images))
        return dense, failed


def fit_plans(
    study: Study,
    clock: Clock,
    *,
    plans: Sequence[str],
    targets: Sequence[float],
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Bring every plan to every target, by MACs and by measured time.

    Args:
        study: gets a row for each, or the reason why there is none, and is saved after each.
        clock: measures the time.
        plans: names of :func:`batvit.budget.contenders`.
        targets: shares of the dense model's MACs and time, in (0, 1).
        progress: told what is done next.

    Raises:
        ValueError: if the dense model's logits are not finite.
    """
    with torch.inference_mode():
        finite_logits(clock.dense, clock.images)
    failed: dict[tuple[str, float, str], Exception] = {}
    for key in study.missing(plans, targets):
        plan, target, at = key
        progress(f"{plan} at {target:g} of the {COSTS[at]}")
        with collect_errors(failed, key):
            family = Family.of(plan, clock.dense)
            by_macs = at == "macs"
            config = (
                at_macs(clock.dense, family, target)
                if by_macs
                else at_time(clock.dense, family, target, clock.share)[0]
            )
            study.rows.append(clock.row(plan, target, at, config))
        if key in failed:
            study.fail(key, failed[key])
        study.save()


def time_plans(
    study: Study, clock: Clock, *, progress: Callable[[str], None] = lambda text: None
) -> None:
    """Time all plans at a target beside the dense model, in one run, for each target whose plans were not.

    A plan at equal time whose share of the dense model's is not within 7.5 % of the target is marked.

    Args:
        study: its rows are filled in, and it is saved after each target.
        clock: measures.
        progress: told what is done next.
    """
    for group in study.untimed():
        progress(f"timing all at {group[0]:g} of the {COSTS[str(group[1])]}")
        rows = [row for row in study.rows if row.group == group]
        dense, failed = clock.time(rows)
        for i, row in enumerate(rows):
            if i in failed:
                study.fail(row.key, failed[i])
            elif row.at == "time" and row.target and row.speedup:
                row.off_target = abs(1 / row.speedup - row.target) > TIME_TOLERANCE * row.target
        study.beside = [*(row for row in study.beside if row.group != group), dense]
        study.save()


def watch_plans(
    study: Study,
    dense: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    *,
    samples: Sequence[Any],
    weights: Any = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Show every model the same pictures in one pass, and fill in what the rows have to say of them.

    Args:
        study: its rows are filled in; what was seen is kept every minute, and not looked at again.
        dense: the dense model.
        batches: pictures and labels from a place on, always in the same order.
        samples: for each picture what tells it from others, and its label, for JSON.
        weights: what tells the weights from others, for JSON; with others, everything is looked at again.
        progress: told how many were seen.
    """
    names = {_name(row): row for row in study.rows}
    digests = _digests(
        (study.about, weights, samples),
        {DENSE: None} | {name: row.config for name, row in names.items()},
    )
    outcomes = Outcomes.load(study.folder / OUTCOMES, digests, len(samples))
    models = {
        name: reduced_copy(dense, BATConfig.from_dict(row.config or {}))
        for name, row in names.items()
    }
    start, saved = min(map(outcomes.seen, digests)), time.monotonic()
    try:
        for seen in outcomes.watch(
            dense, models, batches(start) if start < len(samples) else (), start=start
        ):
            progress(seen)
            if time.monotonic() - saved > SAVE_SECONDS:
                outcomes.save(study.folder / OUTCOMES)
                saved = time.monotonic()
    finally:
        # also when it is interrupted
        outcomes.save(study.folder / OUTCOMES)
    for name, error in outcomes.failed.items():
        study.fail(names[name].key, error)
    for row in study.rows:
        _fill(row, outcomes, _name(row))
    for row in study.beside:
        _fill(row, outcomes, DENSE)
    study.save()


def _speedup(dense: Sequence[float], own: Sequence[float]) -> float:
    """Median over rounds, in each of which both were timed one after the other."""
    return statistics.median(one / other for one, other in zip(dense, own, strict=True))


Times = tuple[list[float], list[float]]


def _fill_times(row: Row, many: Times, alone: Times, batch: int) -> None:
    """From the times of the dense model and its own, in batches and for one picture alone."""
    low, median, high = quartiles(many[1])
    row.step_time, row.step_time_iqr, row.samples_per_sec = median, high - low, 1e3 * batch / median
    row.speedup, row.latency_speedup = _speedup(*many), _speedup(*alone)
    row.realised_share = row.speedup * row.mac_share if row.mac_share else None
    row.latency_ms = statistics.median(alone[1])


def _name(row: Row) -> str:
    return "/".join(map(str, row.key))


def _digests(given: Any, configs: dict[str, Any]) -> dict[str, str]:
    """Of each configuration, with all that is given besides."""
    common = digest(given)
    return {name: digest([common, config]) for name, config in configs.items()}


def _fill(row: Row, outcomes: Outcomes, name: str) -> None:
    own, dense = outcomes.of(name), outcomes.of(DENSE)
    row.top1, row.top5, row.agreement = (
        100 * float(own[i].mean()) for i in ("top1", "top5", "same")
    )
    row.kl = float(own["kl"].mean())
    difference = 100 * (own["top1"] - dense["top1"])
    row.difference = float(difference.mean())
    row.difference_low, row.difference_high = paired_interval(difference)
