"""Search for the configuration that keeps most within a budget."""

import argparse
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID
from torch import Tensor, nn

from batvit.backbones.patch import anatomy_of, reduced_copy
from batvit.benchmark import as_csv, compare
from batvit.budget import Family, OutOfReachError, at_macs, at_time, macs_of
from batvit.calibration import Calibration, Judgement, judge
from batvit.cli import models, options
from batvit.compare import Clock
from batvit.config import BATConfig
from batvit.cost import FEATURES, Cost, CostModel, fit_macs, fit_time
from batvit.data import data_config, image_folder, loader
from batvit.files import check_folder, check_same, read_json, write_atomic
from batvit.training.record import claimed
from batvit.tune import JOURNAL, Goal, Search, Shape, best_of, front_of, optuna_part

CONFIG, FRONT, RESULT, TIME, ABOUT = "config.json", "front.csv", "result.json", "time.json", "about.json"
FITTED_TO = 2 * len(FEATURES)
ROUNDS = 15
SAME = (
    *("model", "checkpoint", "data", "class_map", "labels", "samples", "precision", "device", "batch_size", "threads", "seed"),
    *("target_speedup", "target_macs", "max_drop"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, goal and length."""
    options.add_model(parser)
    options.add_data(parser)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--target-speedup", type=float, metavar="X", help="times as fast as the dense model, as measured here")
    goal.add_argument(
        "--target-macs", type=_macs, metavar="N", help="multiply-accumulates, such as 0.8G, or a share of dense, 0.5"
    )
    goal.add_argument("--max-drop", type=float, metavar="P", help="points of top-1 that may be lost at most; needs --labels")
    parser.add_argument(
        "--labels", action="store_true", help="let the folders' labels decide; the dense model's word otherwise"
    )
    parser.add_argument("--samples", type=options.at_least(2), default=200, metavar="N", help="pictures to search on (200)")
    held = "other pictures, on which the result is checked (as many)"
    parser.add_argument("--held-apart", type=options.at_least(1), metavar="N", help=held)
    parser.add_argument("--minutes", type=float, default=12.0, metavar="M", help="how long to search at most (12)")
    parser.add_argument("--trials", type=options.at_least(1), metavar="N", help="how many configurations to try at most")
    parser.add_argument("--seed", type=options.at_least(0), default=0, help="of the search (0)")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help=f"a new folder; {CONFIG} in it is for --config")
    parser.add_argument("--resume", action="store_true", help="go on with the search in the output folder")
    options.add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Calibrate, fit the time, search, verify."""
    _check(args)
    options.silence_profiler()
    folder = check_folder(args.output)
    if (folder / JOURNAL).exists() and not args.resume:
        raise FileExistsError(f"{folder}: already holds a search; go on with it by --resume, or name another folder")
    dense = models.load_dense(args, pretrained=True)
    calibration, held_apart = _pictures(args, dense)
    goal = _goal(args, dense)
    with claimed(folder):
        _tune(args, folder, dense, calibration, held_apart, goal)


def _tune(
    args: argparse.Namespace, folder: Path, dense: nn.Module, calibration: Calibration, held_apart: Calibration, goal: Goal
) -> None:
    """Search in a folder of its own, and write what was found."""
    _begin(args, folder, dense)
    images = models.noise(dense, args.batch_size)
    cost = _cost(args, folder, dense, images)
    with Progress(console=options.progress_console, transient=True) as bar:
        progress = _shown(bar, bar.add_task("searching", total=args.trials))
        found = Search(dense, calibration, cost, goal, folder, args.seed)
        study = found.run(trials=args.trials, seconds=60 * args.minutes, progress=progress)
    best = best_of(study, goal)
    config = BATConfig.from_dict(best["config"])
    config.save(folder / CONFIG)
    front = front_of(study)
    write_atomic(folder / FRONT, as_csv([one | {"config": json.dumps(one["config"])} for one in front]))
    result = _verify(args, dense, images, config, held_apart, best)
    options.write_json(folder / RESULT, result)
    options.write_json(args.json, result)
    _show(front, result, folder)


def _check(args: argparse.Namespace) -> None:
    options.check_outputs(args.json)
    if args.target_speedup is not None and not 1 < args.target_speedup < 100:
        raise ValueError(f"--target-speedup must be above 1, got {args.target_speedup}; 1.5 is half as fast again")
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


def _pictures(args: argparse.Namespace, dense: nn.Module) -> tuple[Calibration, Calibration]:
    """Some to search on, and others to check on, drawn by the seed."""
    classes: Any = dense.num_classes if args.labels else None
    pictures = image_folder(args.data, class_map=args.class_map, num_classes=classes, skip_unreadable=args.skip_unreadable)
    random.Random(args.seed).shuffle(pictures.samples)  # noqa: S311 - no secret
    apart = args.held_apart or args.samples
    if len(pictures) < args.samples + apart:
        raise ValueError(
            f"{args.data}: has {len(pictures)} pictures, --samples {args.samples} and --held-apart {apart} need "
            f"{args.samples + apart}; lower them"
        )
    parts = pictures.samples[: args.samples], pictures.samples[args.samples : args.samples + apart]
    loaders = [
        loader(replace(pictures, samples=part), dense, batch_size=args.batch_size, workers=args.workers) for part in parts
    ]
    first, second = (Calibration.of(dense, list(batches), labelled=args.labels) for batches in loaders)
    return first, second


def _begin(args: argparse.Namespace, folder: Path, dense: nn.Module) -> None:
    """Write down what the search is about, or refuse to go on with anything else."""
    about = {name: getattr(args, name) for name in SAME} | {"img_size": list(data_config(dense)["input_size"][1:])}
    if (folder / ABOUT).exists():
        check_same(folder, read_json(folder / ABOUT), about)
    options.write_json(folder / ABOUT, about)


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


def _cost(args: argparse.Namespace, folder: Path, dense: nn.Module, images: Tensor) -> Cost:
    """MACs, or the time as this machine takes it, fitted once."""
    if args.target_macs is not None:
        return fit_macs(dense, _varied(dense))
    if (folder / TIME).exists():
        return CostModel.load(folder / TIME, dense)
    with options.progress_console.status("timing whole models, to learn what blocks and sites cost here"):
        found = fit_time(dense, _varied(dense), images)
    found.save(folder / TIME)
    return found


def _varied(dense: nn.Module) -> list[BATConfig]:
    """Some configurations that are unlike one another, always the same."""
    anatomy, draw = anatomy_of(dense), random.Random(0)  # noqa: S311 - no secret
    found: list[BATConfig] = []
    while len(found) < FITTED_TO:
        sites, last = draw.randint(1, anatomy.depth - 2), draw.randint(anatomy.depth // 2, anatomy.depth - 1)
        curve, centres = draw.uniform(0.5, 1.5), draw.uniform(0.2, 0.9)
        shape = Shape(sites, draw.randint(0, anatomy.depth // 2), last, curve, centres, 0.1, 2, "tokens", "size", True)
        config = shape.at(draw.uniform(1, anatomy.patches * 0.8), anatomy)
        try:
            config.schedule(depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix)
        except ValueError:
            continue
        found.append(config)
    return found


def _shown(bar: Progress, task: TaskID) -> Callable[[Any], None]:
    def progress(study: Any) -> None:
        losses = [trial.user_attrs["loss"] for trial in study.trials if "loss" in trial.user_attrs]
        text = f"{len(study.trials)} tried" + (f", best {min(losses):.4f}" if losses else "")
        bar.update(task, description=text, completed=len(study.trials))

    return progress


def _verify(
    args: argparse.Namespace, dense: nn.Module, images: Tensor, config: BATConfig, data: Calibration, best: dict[str, Any]
) -> dict[str, Any]:
    """The configuration, and the preset at the same time or else MACs, measured, on the pictures held apart."""
    family = Family.of("bat", dense)
    taken = compare(dense, reduced_copy(dense, config), images, rounds=ROUNDS)
    at, preset = "macs", at_macs(dense, family, taken.macs / taken.dense_macs)
    if args.target_macs is None and taken.speedup > 1:
        with suppress(OutOfReachError):
            at, preset = "time", at_time(dense, family, 1 / taken.speedup, Clock(dense, images, ROUNDS).share)[0]
    of_preset = compare(dense, reduced_copy(dense, preset), images, rounds=ROUNDS)
    rows = {}
    for name, one, timing in (("tuned", config, taken), ("preset", preset, of_preset)):
        found: Judgement = judge(reduced_copy(dense, one), data)
        rows[name] = {"config": one.to_dict(), **found._asdict(), "speedup": timing.speedup, "gmacs": timing.macs / 1e9}
    error = None if args.target_macs is not None else best["cost"] * taken.speedup - 1
    told = {"model": args.model, "held_apart": data.samples, "predicted": best, "time_error": error, "preset_at_same": at}
    return told | rows


def _show(front: list[dict[str, Any]], result: dict[str, Any], folder: Path) -> None:
    options.say("the front: cost as a share of the dense model's, loss and drop on the calibration pictures")
    table = options.table("cost", "loss", "drop", "sites", "tokens at the end")
    for one in front:
        tokens = one["config"]["tokens"]
        table.add_row(f"{one['cost']:.3f}", f"{one['loss']:.4f}", f"{one['drop']:.1f}", str(len(tokens)), str(tokens[-1]))
    options.console.print(table)
    options.say(f"on {result['held_apart']} pictures held apart")
    table = options.table("", "speed-up", "G MACs", "loss", "drop")
    for name in ("tuned", "preset"):
        row = result[name]
        numbers = (f"{row['speedup']:.2f}", f"{row['gmacs']:.3f}", f"{row['loss']:.4f}", f"{row['drop']:.1f}")
        table.add_row(name, *numbers)
    options.console.print(table)
    if result["time_error"] is not None:
        options.say(f"predicted time within {100 * abs(result['time_error']):.1f} % of the measured one")
    options.say(f"wrote {folder / CONFIG}; use it with --config {folder / CONFIG}, or batvit.patch(model, BATConfig.load(…))")


def _macs(text: str) -> float:
    units = {"G": 1e9, "M": 1e6}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1.0)
    try:
        value = float(number) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected MACs such as 0.8G or 620M, or a share such as 0.5, got {text!r}") from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    return value
