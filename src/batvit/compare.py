"""Which reduction keeps most for the time: every plan at the same MACs and at the same measured time, on the same pictures."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy, schedule
from batvit.benchmark import compare
from batvit.budget import Family, at_macs, at_time
from batvit.config import BATConfig
from batvit.evaluate import paired_interval
from batvit.outcomes import DENSE, Outcomes
from batvit.study import Row, Study

OUTCOMES = "outcomes.safetensors"
QUICK_ROUNDS = 5
SAVE_SECONDS = 60


@dataclass(frozen=True)
class Clock:
    """Times configurations beside the dense model, in turns, at one batch size and for one picture alone."""

    dense: nn.Module
    images: Tensor
    """(B, 3, H, W), on the model's device and in its precision"""
    rounds: int

    def share(self, config: BATConfig) -> float:
        """Time over the dense model's, in a few rounds."""
        return 1 / compare(self.dense, reduced_copy(self.dense, config), self.images, rounds=QUICK_ROUNDS, warmup=1).speedup

    def row(self, plan: str, target: float, at: str, config: BATConfig) -> tuple[Row, Row]:
        """The dense model's measured side, and the plan's."""
        reduced = reduced_copy(self.dense, config)
        many = compare(self.dense, reduced, self.images, rounds=self.rounds)
        one = compare(self.dense, reduced, self.images[:1], rounds=2 * self.rounds)
        counts = schedule(reduced)
        dense = Row(DENSE, gmacs=many.dense_macs / 1e9, mac_share=1.0, speedup=1.0, realised_share=1.0, latency_speedup=1.0)
        found = Row(plan, target, at, config.to_dict(), [c.block for c in counts], [c.tokens_out for c in counts])
        found.gmacs, found.mac_share, found.speedup = many.macs / 1e9, many.macs / many.dense_macs, many.speedup
        found.realised_share, found.latency_speedup = many.realised_share, one.speedup
        for row, batch, alone in ((dense, many.dense, one.dense), (found, many.reduced, one.reduced)):
            row.step_time, row.step_time_iqr, row.samples_per_sec = batch.step_time, batch.step_time_iqr, batch.samples_per_sec
            row.peak_memory_mb, row.latency_ms = batch.peak_memory_mb, alone.step_time
        return dense, found


def fit_plans(
    study: Study,
    dense: nn.Module,
    images: Tensor,
    *,
    plans: Sequence[str],
    targets: Sequence[float],
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Bring every plan to every target, by MACs and by measured time, and time it beside the dense model.

    Args:
        study: gets a row for each, or the reason why there is none, and is saved after each.
        dense, images, rounds: see :class:`Clock`.
        plans: names of :data:`batvit.budget.CONTENDERS`.
        targets: shares of the dense model's MACs and time, in (0, 1).
        progress: told what is done next.
    """
    clock = Clock(dense, images, rounds)
    measured: list[Row] = [row for row in study.rows if row.plan == DENSE]
    for plan, target, at in study.missing(plans, targets):
        progress(f"{plan} at {target:g} of the {'MACs' if at == 'macs' else 'time'}")
        try:
            family = Family.of(plan, dense)
            config = at_macs(dense, family, target) if at == "macs" else at_time(dense, family, target, clock.share)[0]
            own, row = clock.row(plan, target, at, config)
        except (ValueError, TypeError, RuntimeError) as error:
            study.fail((plan, target, at), error)
        else:
            study.rows.append(row)
            measured.append(own)
            # a machine is now faster, now slower; the dense model was timed beside each of the others
            middle = sorted(measured, key=lambda one: one.step_time or 0)[len(measured) // 2]
            middle.latency_ms = statistics.median(one.latency_ms or 0 for one in measured)
            study.rows = [middle, *(other for other in study.rows if other.plan != DENSE)]
        study.save()


def watch(
    study: Study,
    dense: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    samples: int,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Show every model the same pictures in one pass, and fill in what the rows have to say of them.

    Args:
        study: its rows are filled in; what was seen is kept every minute, and not looked at again.
        dense: the dense model.
        batches: pictures and labels, always in the same order.
        samples: how many pictures there are.
        progress: told how many were seen.
    """
    configs = {row.key: BATConfig.from_dict(row.config) for row in study.rows if row.config is not None}
    models = {key: reduced_copy(dense, config) for key, config in configs.items()}
    names = [_name(key) for key in models]
    outcomes = Outcomes.load(study.folder / OUTCOMES, names, samples)
    saved = time.monotonic()
    try:
        for seen in outcomes.watch(dense, dict(zip(names, models.values(), strict=True)), batches):
            progress(seen)
            if time.monotonic() - saved > SAVE_SECONDS:
                outcomes.save(study.folder / OUTCOMES)
                saved = time.monotonic()
    finally:
        # also when it is interrupted
        outcomes.save(study.folder / OUTCOMES)
    for key, name in zip(models, names, strict=True):
        if name in outcomes.failed:
            study.fail(key, outcomes.failed[name])
    for row in study.rows:
        _fill(row, outcomes, DENSE if row.config is None else _name(row.key))
    study.save()


def _name(key: tuple[str, float | None, str | None]) -> str:
    return "/".join(map(str, key))


def _fill(row: Row, outcomes: Outcomes, name: str) -> None:
    own, dense = outcomes.of(name), outcomes.of(DENSE)
    row.top1, row.top5, row.agreement = (100 * float(own[i].mean()) for i in ("top1", "top5", "same"))
    row.kl = float(own["kl"].mean())
    difference = 100 * (own["top1"] - dense["top1"])
    row.difference = float(difference.mean())
    row.difference_low, row.difference_high = paired_interval(difference)
