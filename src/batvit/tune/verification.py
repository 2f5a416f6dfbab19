"""The check of what a search found: measured beside the preset, on pictures held out."""

from dataclasses import replace
from functools import cache

from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy
from batvit.config import BATConfig
from batvit.measure.speed import benchmark
from batvit.tune.finalists import (
    Measure,
    Measured,
    Measurement,
    PresetMatch,
    best_finalist,
    goal_sentence,
    preset_at_same,
    preset_may_win,
)
from batvit.tune.objective import difference_sentence, score
from batvit.tune.result import Checked, TimeErrors, Tuned
from batvit.tune.search import Search
from batvit.tune.settings import ROUNDS, Job
from batvit.tune.trials import Trial, count_all_finished


def verify(job: Job, search: Search, front: tuple[Trial, ...], *, model: str) -> Tuned:
    """Measure the best of a search and the preset, and score both on the pictures held out.

    Args:
        job: of the tuning.
        search: that came to an end.
        front: of the search.
        model: its name, for the result.

    Raises:
        ValueError: if nothing meets the goal.
    """
    timed = job.settings.timed
    job.progress("measuring the best", count_all_finished(job.folder))
    measure = _measure_once(job.dense, job.images)
    winner = best_finalist(search, measure, timed=timed)
    match = preset_at_same(job.dense, winner.final, measure, timed=timed)
    tuned = _checked(job, winner.final)
    preset = None
    differences = None
    written = tuned
    sentences = list(match.missing)
    if match.measured is not None:
        preset = _checked(job, match.measured)
        differences = tuned.score.compare_to(preset.score)
        sentence = difference_sentence(differences, f"the preset at equal {match.at}")
        sentences.append(f"on {job.held_out.samples} pictures held out {sentence}")
        sentences += _doubt(match, winner.final)
        reason = _why_preset(search, tuned, preset, timed=timed)
        if reason is not None:
            sentences.append(reason)
            predicted = search.cost(preset.measured.config)
            written = preset._replace(measured=replace(preset.measured, predicted=predicted))
    goal = goal_sentence(search.goal, written.measured, written.score.drop, timed=timed)
    time_errors = None
    if timed:
        time_errors = TimeErrors(written.measured.error, winner.first.error)
    return Tuned(
        folder=job.folder,
        model=model,
        config=written.measured.config,
        front=front,
        samples=job.held_out.samples,
        predicted=winner.trial,
        tuned=tuned,
        preset=preset,
        preset_at_same=match.at,
        differences=differences,
        time_errors=time_errors,
        sentences=(goal, *sentences),
    )


def _measure_once(dense: nn.Module, images: Tensor) -> Measure:
    """Return what times a configuration beside the dense model, each but once."""

    @cache
    def measure(config: BATConfig) -> Measurement:
        speed = benchmark(dense, reduced_copy(dense, config), images, rounds=ROUNDS)
        return Measurement(
            speed.speedup, speed.macs, speed.dense_macs, speed.speedups, speed.unsteady
        )

    return measure


def _doubt(match: PresetMatch, tuned: Measured) -> list[str]:
    """Return a sentence where a preset at equal time may not take equal time."""
    assert match.measured is not None
    unsteady = tuned.measurement.unsteady or match.measured.measurement.unsteady
    if match.at != "time" or not unsteady:
        return []
    return ["times spread too much to say that the two take equal time"]


def _checked(job: Job, measured: Measured) -> Checked:
    """Score what was measured on the pictures held out."""
    reduced = reduced_copy(job.dense, measured.config)
    return Checked(measured, score(reduced, job.held_out))


def _why_preset(search: Search, tuned: Checked, preset: Checked, *, timed: bool) -> str | None:
    """Write a sentence about why the preset is written, if it is: it loses less.

    The pictures searched on decide, so that those held out say how good the choice is.
    """
    if not preset_may_win(search.goal, preset.measured, timed=timed):
        return None
    tuned_loss = search.loss_of(tuned.measured.config)
    preset_loss = search.loss_of(preset.measured.config)
    if preset_loss >= tuned_loss:
        return None
    return (
        f"the preset loses {preset_loss:.4f} on the pictures searched on, "
        f"tuned {tuned_loss:.4f}: the preset is written"
    )
