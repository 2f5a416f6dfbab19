"""Plot loss and accuracy of training runs over the epochs."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from batvit.cli import console, options
from batvit.storage.formats import FIGURE_FORMATS
from batvit.training.logs import TrainingCurve, log_file, read_curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs and outputs."""
    runs = (
        "the folder of a run, or its log (ours, DeiT's log.txt, timm's summary.csv); "
        "NAME=RUN renames it"
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help=runs)
    parser.add_argument(
        "-o", "--output", default="curves.png", metavar="FILE", help="the figure (curves.png)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")


def run(args: argparse.Namespace) -> None:
    """Read every log, then write the figure."""
    options.check_suffix("--output", args.output, FIGURE_FORMATS)
    runs = [_named(text) for text in args.runs]
    logs = [log_file(path) for _, path in runs]
    options.check_outputs(args.json, args.output, keep=logs)
    curves = _read(runs)
    # only now, as matplotlib takes long to import
    from batvit.storage.figures import save
    from batvit.training.plot import plot_curves

    save(plot_curves(curves), args.output)
    console.stdout.print(_table(curves))
    console.say(f"wrote {args.output}")
    paths = [path for _, path in runs]
    results = [_result(curve, path) for curve, path in zip(curves, paths, strict=True)]
    options.write_json(args.json, {"runs": results})


def _named(text: str) -> tuple[str | None, str]:
    """Return the name of a run, if one is given, and its path; a path may hold a ``=``."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, text
    if not name or not path:
        raise ValueError(f"{text!r} must be RUN or NAME=RUN; give both parts")
    return name, path


def _read(runs: Sequence[tuple[str | None, str]]) -> list[TrainingCurve]:
    """Return the curve of each run; no two have the same name."""
    curves: list[TrainingCurve] = []
    names = set()
    for name, path in runs:
        curve = read_curve(path)
        if name is not None:
            curve = replace(curve, name=name)
        if curve.name in names:
            raise ValueError(
                f"two runs are named {curve.name!r}; rename one, such as {curve.name}-2={path}"
            )
        names.add(curve.name)
        curves.append(curve)
    return curves


def _table(curves: Sequence[TrainingCurve]) -> Any:
    table = console.table("", "epochs", "best top-1 %", "at epoch", "last top-1 %", "last loss")
    for curve in curves:
        best = curve.best
        last = curve.points[-1]
        # a name is not markup
        table.add_row(
            Text(console.printable(curve.name)),
            str(len(curve.points)),
            "-" if best is None else f"{best.top1:.2f}",
            "-" if best is None else str(best.epoch),
            "-" if last.top1 is None else f"{last.top1:.2f}",
            "-" if last.train_loss is None else f"{last.train_loss:.4f}",
        )
    return table


def _result(curve: TrainingCurve, path: str) -> dict[str, object]:
    return {
        "name": curve.name,
        "path": path,
        "best": None if curve.best is None else asdict(curve.best),
        "epochs": [asdict(point) for point in curve.points],
    }
