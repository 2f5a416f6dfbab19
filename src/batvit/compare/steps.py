"""The steps of a comparison: fit every plan, time all in turns, show all the same pictures."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from batvit.budget import TIME_TOLERANCE, Family, at_macs, at_time
from batvit.compare.failures import collect_errors
from batvit.compare.results import Results
from batvit.compare.rows import DENSE, Key, Row, RowAccuracy
from batvit.compare.scores import SCORES_FILE, ImageScores, Scores
from batvit.compare.stopwatch import Stopwatch, reduced_model
from batvit.config import BATConfig
from batvit.measure.accuracy import paired_interval
from batvit.measure.logits import finite_logits
from batvit.storage.run_folder import digest

SAVE_SECONDS = 60


def fit_plans(
    results: Results,
    stopwatch: Stopwatch,
    *,
    plans: Sequence[str],
    targets: Sequence[float],
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Find, for each plan and target, the configuration that meets it in MACs and in time.

    Args:
        results: gets a row for each, or the reason why there is none, and is saved after each.
        stopwatch: times the models.
        plans: names of :func:`batvit.budget.contenders`.
        targets: shares of the dense model's MACs and time, in (0, 1).
        progress: called with what is done next.

    Raises:
        ValueError: if the dense model's logits are not finite.
    """
    finite_logits(stopwatch.dense, stopwatch.images, name="the dense model")
    errors: dict[Key, Exception] = {}
    for key in results.missing(plans, targets):
        progress(str(key))
        with collect_errors(errors, key):
            results.rows.append(stopwatch.untimed_row(key, _fitted(stopwatch, key)))
        if key in errors:
            results.fail(key, errors[key])
        results.save()


def time_plans(
    results: Results, stopwatch: Stopwatch, *, progress: Callable[[str], None] = lambda text: None
) -> None:
    """Time all plans of a group and the dense model in one run, for each group that needs it.

    A plan at equal time is marked as ``off_target`` if its measured time misses the target by more
    than 7.5 % of it.

    Args:
        results: its rows get their timing, and it is saved after each group.
        stopwatch: times the models.
        progress: called with what is done next.
    """
    for group in results.untimed():
        progress(f"timing all at {group}")
        found = stopwatch.time([row for row in results.rows if row.group == group])
        results.update(_marked(row) for row in found.rows)
        for key, error in found.errors.items():
            results.fail(key, error)
        others = [row for row in results.dense_rows if row.group != group]
        results.dense_rows = [*others, found.dense]
        results.save()


def score_plans(
    results: Results,
    dense: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    *,
    samples: Sequence[Any],
    weights: Any = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Show every model the same pictures in one pass.

    Args:
        results: its rows get their accuracy; scores are saved every minute, and not computed again.
        dense: the dense model.
        batches: given an index, pictures and labels from that picture on, always in one order.
        samples: plain values that identify each picture, and its label.
        weights: plain values that identify the weights; if they change, every picture is scored
            again.
        progress: called with how many pictures are done.
    """
    names = {_name(row): row for row in results.rows}
    configs = {DENSE: None} | {name: row.to_dict()["config"] for name, row in names.items()}
    common = digest((results.metadata, weights, samples))
    digests = {name: digest([common, config]) for name, config in configs.items()}
    path = results.folder / SCORES_FILE
    scores = Scores.load(path, digests, len(samples))
    models = {name: reduced_model(dense, row) for name, row in names.items()}
    start = min(scores.by_model[name].done for name in digests)
    remaining = batches(start) if start < len(samples) else ()
    saved = time.monotonic()
    try:
        for done in scores.update(dense, models, remaining, start=start):
            progress(done)
            if time.monotonic() - saved > SAVE_SECONDS:
                scores.save(path)
                saved = time.monotonic()
    finally:
        # also when it is interrupted
        scores.save(path)
    for name, error in scores.errors.items():
        results.fail(names[name].key, error)
    of_dense = scores.by_model[DENSE]
    scored = []
    for row in results.rows:
        scored.append(replace(row, accuracy=_accuracy(scores.by_model[_name(row)], of_dense)))
    results.rows = scored
    dense_accuracy = _accuracy(of_dense, of_dense)
    results.dense_rows = [replace(row, accuracy=dense_accuracy) for row in results.dense_rows]
    results.save()


def _fitted(stopwatch: Stopwatch, key: Key) -> BATConfig:
    """Return the configuration of a plan at a target."""
    family = Family.of(key.plan, stopwatch.dense)
    if key.group.at == "macs":
        return at_macs(stopwatch.dense, family, key.group.target)
    config, _ = at_time(stopwatch.dense, family, key.group.target, stopwatch.share)
    return config


def _marked(row: Row) -> Row:
    """Mark a row at equal time that does not take the time it should."""
    target, at = row.key.group
    if at != "time" or row.timing is None:
        return row
    off_target = abs(1 / row.timing.speedup - target) > TIME_TOLERANCE * target
    return replace(row, timing=replace(row.timing, off_target=off_target))


def _name(row: Row) -> str:
    """Return the name of a row's model among the scores."""
    target, at = row.key.group
    return f"{row.plan}/{target}/{at}"


def _accuracy(own: ImageScores, dense: ImageScores) -> RowAccuracy:
    """Return the means over all pictures, and the difference to the dense model."""
    difference = 100 * (own.top1 - dense.top1)
    low, high = paired_interval(difference)
    return RowAccuracy(
        top1=100 * float(own.top1.mean()),
        top5=100 * float(own.top5.mean()),
        difference=float(difference.mean()),
        difference_low=low,
        difference_high=high,
        agreement=100 * float(own.agreement.mean()),
        kl=float(own.kl.mean()),
    )
