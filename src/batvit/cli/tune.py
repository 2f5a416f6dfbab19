"""Search for the configuration that keeps most within a budget."""

import argparse
import json
import math
import random
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.cli import console, load_models, options
from batvit.config.config import BATConfig
from batvit.data.loading import data_config, loader
from batvit.measure.speed import SpeedComparison, benchmark
from batvit.measure.tables import as_csv
from batvit.storage import provenance
from batvit.storage.files import check_folder, read_json, write_atomic
from batvit.storage.provenance import git_commit
from batvit.storage.run_folder import check_same, claimed, digest
from batvit.tune.cost_model import (
    CostModel,
    Sample,
    counted,
    load_samples,
    save_samples,
    timed,
)
from batvit.tune.finalists import held, may_be_written, preset_beside, winner
from batvit.tune.objective import TuningSet, beside, judge
from batvit.tune.search import Goal, Search, best_of, front_of
from batvit.tune.space import varied
from batvit.tune.trials import (
    FIRST_TRIALS,
    JOURNAL,
    complete,
    finished,
    leaders,
    newest,
    open_study,
    optuna_part,
    studies,
)

CONFIG, FRONT, RESULT, TIME, ABOUT = (
    "config.json",
    "front.csv",
    "result.json",
    "time.json",
    "about.json",
)
FITTED_TO, ROUNDS = 24, 15
PARTS, TIMED = 3, 6
SAME = (
    *(
        "model",
        "checkpoint",
        "data",
        "class_map",
        "labels",
        "samples",
        "precision",
        "device",
        "batch_size",
        "seed",
    ),
    *("target_speedup", "target_macs", "max_drop"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, goal and length."""
    options.add_model(parser)
    options.add_data(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "--target-speedup",
        type=float,
        metavar="X",
        help="times as fast as the dense model, as measured here",
    )
    goal.add_argument(
        "--target-macs",
        type=options.macs,
        metavar="N",
        help="multiply-accumulates, such as 0.8G, or a share of dense, 0.5",
    )
    goal.add_argument(
        "--max-drop",
        type=float,
        metavar="P",
        help="points of top-1 that may be lost at most; needs --labels",
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="let the folders' labels decide; the dense model's word otherwise",
    )
    parser.add_argument(
        "--samples",
        type=options.at_least(2),
        default=200,
        metavar="N",
        help="pictures to search on (200)",
    )
    held = "other pictures, on which the result is checked (as many)"
    parser.add_argument("--held-out", type=options.at_least(1), metavar="N", help=held)
    parser.add_argument(
        "--minutes", type=float, default=12.0, metavar="M", help="how long to search at most (12)"
    )
    parser.add_argument(
        "--trials",
        type=options.at_least(1),
        metavar="N",
        help="how many configurations to try at most",
    )
    parser.add_argument("--seed", type=options.at_least(0), default=0, help="of the search (0)")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="DIR",
        help=f"a new folder; {CONFIG} in it is for --config",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search in the output folder"
    )
    options.add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Calibrate, fit the time, search, verify."""
    _check(args)
    console.silence_profiler()
    folder = check_folder(args.output)
    if (folder / JOURNAL).exists() and not args.resume:
        raise FileExistsError(
            f"{folder}: already holds a search; go on with it by --resume, or name another folder"
        )
    load_models.check_inputs(args)
    dense = load_models.load_dense(args, pretrained=True)
    loaders, goal = _pictures(args, dense), _goal(args, dense)
    with claimed(folder):
        about = _about(args, folder, dense, loaders)
        calibration, held_out = (
            TuningSet.of(dense, list(batches), labelled=args.labels) for batches in loaders
        )
        # not before all pictures were read: those that cannot be are left out the next time
        options.write_json(folder / ABOUT, about)
        _tune(args, folder, dense, calibration, held_out, goal)


def _tune(
    args: argparse.Namespace,
    folder: Path,
    dense: nn.Module,
    calibration: TuningSet,
    held_out: TuningSet,
    goal: Goal,
) -> None:
    """Search in a folder of its own, and write what was found."""
    images = load_models.noise(dense, args.batch_size)
    samples = _samples(args, folder, dense, images)
    try:
        search = _search(
            args, folder, partial(Search, dense, calibration, goal=goal), samples, images
        )
    finally:
        # also when it is interrupted, or nothing was found
        if (study := newest(studies(folder))) is not None:
            with suppress(ValueError):
                BATConfig.from_dict(best_of(study, goal)["config"]).save(folder / CONFIG)
    front = front_of([*complete(search.study), *search.around()])
    rows = [
        {name: one[name] for name in ("cost", "loss", "drop")}
        | {"config": json.dumps(one["config"])}
        for one in front
    ]
    write_atomic(folder / FRONT, as_csv(rows))
    result = _verify(args, search, images, held_out)
    BATConfig.from_dict(result["config"]).save(folder / CONFIG)
    options.write_json(folder / RESULT, result)
    options.write_json(args.json, result)
    _show(front, result, folder)


def _search(
    args: argparse.Namespace,
    folder: Path,
    start: partial[Search],
    samples: list[Sample],
    images: Tensor,
) -> Search:
    """Search for a speed in parts: after each but the last, the best are timed, so that the next knows all costs better."""
    first = min(samples[-1].part, len(studies(folder)))
    enough = PARTS if args.trials is None else max(1, args.trials // FIRST_TRIALS)
    parts = max(first + 1, min(PARTS, enough) if args.target_speedup is not None else 1)
    seconds = 60 * args.minutes / (parts - first)
    with Progress(console=console.stderr, transient=True) as bar:
        task = bar.add_task("searching", total=args.trials)
        for part in range(first, parts):
            before, study = studies(folder)[:part], open_study(folder, seed=args.seed, part=part)
            search = start(
                cost=CostModel.fit(start.args[0], samples), study=study, before=newest(before)
            )
            tried = sum(map(finished, before))
            allowed = (
                None if args.trials is None else math.ceil(args.trials * (part + 1) / parts) - tried
            )
            search.run(
                trials=allowed,
                seconds=seconds,
                progress=partial(_progress, bar, task, study, tried),
            )
            best = [
                BATConfig.from_dict(trial.user_attrs["config"]) for trial in leaders(study)[:TIMED]
            ]
            if best and part + 1 < parts:
                bar.update(task, description="timing the best so far")
                samples = [
                    *samples,
                    *timed(search.dense, best, images, rounds=ROUNDS, part=part + 1),
                ]
                save_samples(folder / TIME, samples)
    return replace(search, study=newest(studies(folder)) or search.study)


def _progress(bar: Progress, task: TaskID, study: Any, before: int) -> None:
    """Show how far a search is."""
    losses, tried = [trial["loss"] for trial in complete(study)], before + finished(study)
    text = f"{tried} tried" + (f", best {min(losses):.4f}" if losses else "")
    bar.update(task, description=text, completed=tried)


def _check(args: argparse.Namespace) -> None:
    options.check_outputs(args.json, keep=load_models.inputs(args))
    if args.target_speedup is not None and not 1 < args.target_speedup < 100:
        raise ValueError(
            f"--target-speedup must be above 1 and below 100, got {args.target_speedup:g}; 1.5 is half as fast again"
        )
    if args.max_drop is not None and not args.labels:
        raise ValueError(
            "--max-drop is about accuracy, and needs labels; add --labels, or give --target-speedup or --target-macs"
        )
    if args.max_drop is not None and not 0 <= args.max_drop <= 100:
        raise ValueError(f"--max-drop is in points of top-1, 0 to 100, got {args.max_drop}")
    if not 0 < args.minutes < 1e6:
        raise ValueError(f"--minutes must be above 0, got {args.minutes}")
    # before minutes go into what it alone can use
    optuna_part("optuna")


def _pictures(args: argparse.Namespace, dense: nn.Module) -> list[Any]:
    """Some to search on, and others to check on, drawn by the seed: a loader of each, that decodes when it is read."""
    pictures = load_models.pictures(args, dense, labelled=args.labels)
    random.Random(args.seed).shuffle(pictures.samples)
    apart = args.held_out or args.samples
    if len(pictures) < args.samples + apart:
        raise ValueError(
            f"{args.data}: has {len(pictures)} pictures, --samples {args.samples} and --held-out {apart} need "
            f"{args.samples + apart}; lower them"
        )
    parts = pictures.samples[: args.samples], pictures.samples[args.samples : args.samples + apart]
    return [
        loader(
            replace(pictures, samples=part), dense, batch_size=args.batch_size, workers=args.workers
        )
        for part in parts
    ]


def _about(
    args: argparse.Namespace, folder: Path, dense: nn.Module, loaders: list[Any]
) -> dict[str, Any]:
    """What the search is about, and where time is taken; refused if another was begun in the folder."""
    about = {name: getattr(args, name) for name in SAME} | {
        "img_size": list(data_config(dense)["input_size"][1:])
    }
    about |= {
        "weights": options.weights(args),
        "pictures": digest(options.stamped(loaders[0].dataset)),
        "commit": git_commit(),
    }
    if args.target_macs is None:
        about |= provenance.machine(args.device)
    if (folder / ABOUT).exists():
        check_same(folder, read_json(folder / ABOUT), about)
    return about


def _goal(args: argparse.Namespace, dense: nn.Module) -> Goal:
    if args.max_drop is not None:
        return Goal(max_drop=args.max_drop)
    if args.target_speedup is not None:
        return Goal(budget=1 / args.target_speedup)
    macs = macs_of(dense, None)
    share = args.target_macs / macs if args.target_macs > 1 else args.target_macs
    if not 0 < share < 1:
        raise ValueError(f"--target-macs must be below the {macs / 1e9:.3f}G of the dense model")
    return Goal(budget=share)


def _samples(
    args: argparse.Namespace, folder: Path, dense: nn.Module, images: Tensor
) -> list[Sample]:
    """What some configurations cost: in MACs, or in time as this machine takes it, timed once."""
    configs = varied(anatomy_of(dense), FITTED_TO)
    if args.target_macs is not None:
        return counted(dense, configs)
    if not (folder / TIME).exists():
        with console.stderr.status("timing whole models, to learn what blocks and sites cost here"):
            save_samples(folder / TIME, timed(dense, configs, images))
    return load_samples(folder / TIME)


def _verify(
    args: argparse.Namespace, search: Search, images: Tensor, data: TuningSet
) -> dict[str, Any]:
    """What was found, measured, and the preset beside it, on the pictures held out."""

    @cache
    def measure(config: BATConfig) -> SpeedComparison:
        return benchmark(search.dense, reduced_copy(search.dense, config), images, rounds=ROUNDS)

    clock = args.target_macs is None
    best = winner(search, measure, timed=clock)
    at, preset, missing = preset_beside(search.dense, best.final, measure, timed=clock)
    tuned = judge(reduced_copy(search.dense, best.final.config), data)
    result: dict[str, Any] = {
        "model": args.model,
        "held_out": data.samples,
        "predicted": best.trial,
    }
    written, drop, told = best.final, tuned.drop, list(missing)
    result |= {"tuned": best.final.row(tuned), "preset_at_same": at, "preset": None}
    if preset is not None:
        other = judge(reduced_copy(search.dense, preset.config), data)
        difference = tuned.minus(other)
        result |= {
            "preset": preset.row(other),
            "difference": {name: one._asdict() for name, one in difference.items()},
        }
        told.append(
            f"on {data.samples} pictures held out {beside(difference, f'the preset at equal {at}')}"
        )
        if may_be_written(search.goal, preset, timed=clock):
            # chosen by the pictures searched on, so that those held out say how good the choice is
            own, its = (search.judged(one.config)["loss"] for one in (best.final, preset))
            if its < own:
                told.append(
                    f"the preset loses {its:.4f} on the pictures searched on, tuned {own:.4f}: the preset is written"
                )
                written, drop = replace(preset, predicted=search.cost(preset.config)), other.drop
    result |= {"time_error": written.error, "fitted_error": best.fitted.error} if clock else {}
    told.insert(0, held(search.goal, written, drop, timed=clock))
    return result | {"config": written.config.to_dict(), "verdict": told}


def _show(front: list[dict[str, Any]], result: dict[str, Any], folder: Path) -> None:
    console.say(
        "the front: cost as a share of the dense model's, loss and drop on the calibration pictures"
    )
    table = console.table("cost", "loss", "drop", "sites", "tokens at the end")
    for one in front:
        tokens = one["config"]["tokens"]
        table.add_row(
            f"{one['cost']:.3f}",
            f"{one['loss']:.4f}",
            f"{one['drop']:.1f}",
            str(len(tokens)),
            str(tokens[-1]),
        )
    console.stdout.print(table)
    console.say(f"on {result['held_out']} pictures held out")
    table = console.table("", "speed-up", "G MACs", "loss", "drop")
    for name, row in (
        ("tuned", result["tuned"]),
        (f"preset, equal {result['preset_at_same']}", result["preset"]),
    ):
        if row is not None:
            numbers = (
                f"{row['speedup']:.2f}",
                f"{row['gmacs']:.3f}",
                f"{row['loss']:.4f}",
                f"{row['drop']:.1f}",
            )
            table.add_row(name, *numbers)
    console.stdout.print(table)
    for sentence in result["verdict"]:
        console.say(sentence)
    if "time_error" in result:
        written, fitted = (100 * abs(result[name]) for name in ("time_error", "fitted_error"))
        console.say(
            f"predicted time within {written:.1f} % of the measured one; {fitted:.1f} % as the search had it"
        )
    console.say(
        f"wrote {folder / CONFIG}; use it with --config {folder / CONFIG}, or batvit.patch(model, BATConfig.load(…))"
    )
