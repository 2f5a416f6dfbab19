"""Plot loss and accuracy of training runs over the epochs."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from rich.text import Text

from batvit.cli import console, options
from batvit.storage.figures import FIGURE_FORMATS, save
from batvit.training.logs import Curve, log_file, read_curve
from batvit.training.plot import plot_curves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs and outputs."""
    runs = "the folder of a run, or its log (ours, DeiT's log.txt, timm's summary.csv); NAME=RUN renames it"
    parser.add_argument("runs", metavar="RUN", nargs="+", help=runs)
    parser.add_argument(
        "-o", "--output", default="curves.png", metavar="FILE", help="the figure (curves.png)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")


def run(args: argparse.Namespace) -> None:
    """Read every log, then write the figure."""
    options.check_suffix("--output", args.output, FIGURE_FORMATS)
    named = [_named(text) for text in args.runs]
    options.check_outputs(args.json, args.output, keep=[log_file(path) for _, path in named])
    curves: dict[str, Curve] = {}
    for name, path in named:
        curve = read_curve(path)
        curve = curve if name is None else replace(curve, name=name)
        if curve.name in curves:
            raise ValueError(
                f"two runs are named {curve.name!r}; rename one, such as {curve.name}-2={path}"
            )
        curves[curve.name] = curve
    save(plot_curves(list(curves.values())), args.output)
    _say(curves)
    console.say(f"wrote {args.output}")
    paths = [path for _, path in named]
    options.write_json(
        args.json,
        {"runs": [_json(curve, path) for curve, path in zip(curves.values(), paths, strict=True)]},
    )


def _named(text: str) -> tuple[str | None, str]:
    """Name, if one is given, and path; a path that is there may hold a ``=``."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, text
    if not name or not path:
        raise ValueError(f"{text!r} must be RUN or NAME=RUN; give both parts")
    return name, path


def _say(curves: dict[str, Curve]) -> None:
    table = console.table("", "epochs", "best top-1 %", "at epoch", "last top-1 %", "last loss")
    for name, curve in curves.items():
        best, last = curve.best, curve.points[-1]
        shown = ("-", "-") if best is None else (f"{best.top1:.2f}", str(best.epoch))
        numbers = (
            str(len(curve.points)),
            *shown,
            "-" if last.top1 is None else f"{last.top1:.2f}",
            "-" if last.train_loss is None else f"{last.train_loss:.4f}",
        )
        # a name is not markup
        table.add_row(Text(name), *numbers)
    console.stdout.print(table)


def _json(curve: Curve, path: str) -> dict[str, object]:
    return {
        "name": curve.name,
        "path": path,
        "best": None if curve.best is None else asdict(curve.best),
        "epochs": [asdict(point) for point in curve.points],
    }
