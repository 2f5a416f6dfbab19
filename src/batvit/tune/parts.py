"""The search of a tuning: one part for MACs or a drop, several for a speed, each knowing more."""

import math
from dataclasses import replace

from batvit.backbones.registry import anatomy_of
from batvit.tune.cost_model import (
    CostModel,
    Sample,
    count_samples,
    load_samples,
    save_samples,
    time_samples,
)
from batvit.tune.result import CONFIG
from batvit.tune.search import Search, best_or_none
from batvit.tune.settings import ROUNDS, Job, Settings
from batvit.tune.space import varied_configs
from batvit.tune.trials import (
    FIRST_TRIALS,
    complete,
    count_all_finished,
    count_finished,
    leaders,
    losses,
    newest,
    open_study,
    studies,
)

TIME = "time.json"
# configurations that a cost is fitted to
FITTED_TO = 24
# parts of a search for a speed, and how many of the best are timed after each
PARTS = 3
TIMED = 6


def search_in_parts(job: Job) -> Search:
    """Fit the cost and search, from where the search in the folder was left.

    However it ends, the best configuration so far is written.
    """
    samples = _samples(job)
    try:
        return _search(job, samples)
    finally:
        _save_best(job)


def _samples(job: Job) -> list[Sample]:
    """Return what some configurations cost: MACs, or time as this machine takes it, timed once."""
    configs = varied_configs(anatomy_of(job.dense), FITTED_TO)
    if not job.settings.timed:
        return count_samples(job.dense, configs)
    path = job.folder / TIME
    if not path.exists():
        job.progress("timing whole models, to learn what blocks and sites cost here", 0)
        save_samples(path, time_samples(job.dense, configs, job.images))
    return load_samples(path)


def _search(job: Job, samples: list[Sample]) -> Search:
    """Run the parts that are left.

    After each part but the last the best are timed, so that the next part knows all costs better.
    """
    first = _first_part(job, samples)
    parts = _number_of_parts(job.settings, first)
    seconds = 60 * job.settings.minutes / (parts - first)
    for part in range(first, parts):
        search = _open_part(job, samples, part)
        _run_part(job, search, part=part, parts=parts, seconds=seconds)
        best = [trial.config for trial in leaders(search.study)[:TIMED]]
        if best and part + 1 < parts:
            job.progress("timing the best so far", count_all_finished(job.folder))
            timed = time_samples(job.dense, best, job.images, rounds=ROUNDS, part=part + 1)
            samples = [*samples, *timed]
            save_samples(job.folder / TIME, samples)
    # where nothing is cheap enough for the last part, the one before has the best
    study = newest(studies(job.folder))
    return search if study is None else replace(search, study=study)


def _first_part(job: Job, samples: list[Sample]) -> int:
    """Return the part to go on with, from 0.

    The last one that was opened is begun anew if the costs it needs were not timed yet.
    """
    opened = len(studies(job.folder))
    with_costs = samples[-1].part
    return min(opened, with_costs)


def _number_of_parts(settings: Settings, first: int) -> int:
    """Return how many parts a search has that goes on with part ``first``: at least that one."""
    parts = 1
    if settings.target_speedup is not None:
        parts = PARTS
        if settings.trials is not None:
            # each part needs trials enough for the sampler to learn from
            parts = min(PARTS, max(1, settings.trials // FIRST_TRIALS))
    return max(first + 1, parts)


def _open_part(job: Job, samples: list[Sample], part: int) -> Search:
    """Return a part of the search, new or as it was left."""
    return Search(
        dense=job.dense,
        data=job.searched,
        cost=CostModel.fit(job.dense, samples),
        goal=job.goal,
        before=newest(studies(job.folder)[:part]),
        study=open_study(job.folder, seed=job.settings.seed, part=part),
    )


def _run_part(job: Job, search: Search, *, part: int, parts: int, seconds: float) -> None:
    """Run a part with its share of the trials."""
    tried_before = 0
    for study in studies(job.folder)[:part]:
        tried_before += count_finished(study)
    allowed = None
    if job.settings.trials is not None:
        allowed = math.ceil(job.settings.trials * (part + 1) / parts) - tried_before

    def show() -> None:
        tried = tried_before + count_finished(search.study)
        known = losses(search.study)
        best = f", best {min(known):.4f}" if known else ""
        job.progress(f"{tried} tried{best}", tried)

    job.progress("searching", tried_before + count_finished(search.study))
    search.run(trials=allowed, seconds=seconds, progress=show)


def _save_best(job: Job) -> None:
    """Write the best configuration that meets the goal, if there is one so far."""
    study = newest(studies(job.folder))
    if study is None:
        return
    best = best_or_none(complete(study), job.goal)
    if best is not None:
        best.config.save(job.folder / CONFIG)
