"""Compare reductions: every plan at the same MACs and the same time, on the same pictures."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from batvit.cli import console, load_models, numbers, options

if TYPE_CHECKING:
    import batvit.compare.comparison

TARGETS = (0.65, 0.5)
# options that are arguments of batvit.compare.run
ARGUMENTS = ("plans", "targets", "batch_size", "workers", "rounds", "samples", "drawn")
# options that must be the same when a comparison is resumed, besides those that are arguments
METADATA = ("model", "checkpoint", "data", "class_map")
# both presets of BAT for a pretrained model, then its peers
PLANS = ("bat", "bat_gradual", *options.METHODS[1:])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, plans, targets and output."""
    options.add_model(parser)
    options.add_data(parser)
    plans = f"with commas; by default all: {','.join(PLANS)}"
    parser.add_argument("--plans", type=_plans, default=PLANS, metavar="NAME,…", help=plans)
    targets = (
        "shares of the dense model's MACs, and of its time, with commas "
        f"({','.join(map(str, TARGETS))})"
    )
    parser.add_argument(
        "--targets", type=_targets, default=TARGETS, metavar="SHARE,…", help=targets
    )
    parser.add_argument(
        "--samples",
        type=numbers.at_least(1),
        metavar="N",
        help="pictures, taken evenly; all by default",
    )
    parser.add_argument(
        "--rounds",
        type=numbers.at_least(1, numbers.MOST_ROUNDS),
        default=15,
        metavar="N",
        help="measurements of each model (15)",
    )
    parser.add_argument(
        "--drawn",
        type=numbers.at_least(0),
        default=2,
        metavar="N",
        help="pictures whose groups are drawn (2)",
    )
    options.add_output(
        parser, "a new folder for report.html, table.csv, result.json", resumed="comparison"
    )
    options.add_device(parser)


def kept(args: argparse.Namespace) -> str:
    """Say what an interrupt leaves."""
    return options.kept_in(args.output, "what was found")


def run(args: argparse.Namespace) -> None:
    """Load the model and the pictures, compare, print the tables."""
    from batvit import compare
    from batvit.compare.comparison import Settings, check_ready

    arguments: dict[str, Any] = {name: getattr(args, name) for name in ARGUMENTS}
    # what is wrong is told before a model is loaded
    Settings(**arguments)
    folder = check_ready(args.output, resume=args.resume)
    options.check_outputs(args.json, keep=load_models.inputs(args))
    console.silence_profiler()
    load_models.check_inputs(args)
    dense = load_models.load_dense(args, pretrained=True)
    pictures = load_models.pictures(args, dense)
    with _shown_progress() as progress:
        comparison = compare.run(
            dense,
            pictures,
            folder,
            **arguments,
            resume=args.resume,
            metadata={name: getattr(args, name) for name in METADATA},
            command=shlex.join(["batvit", *sys.argv[1:]]),
            progress=progress,
        )
    options.write_json(args.json, comparison.to_dict())
    for note in comparison.notes:
        console.note(note)
    console.say(str(comparison))
    console.say(
        f"wrote {comparison.report}, {comparison.table}, {comparison.result}, {comparison.plot}"
    )


@contextmanager
def _shown_progress() -> Iterator["Callable[[batvit.compare.comparison.Stage], None]"]:
    """Show how far a comparison is, in a bar on standard error."""
    bar = Progress(console=console.stderr, transient=True)
    with ExitStack() as shown:

        def show(stage: "batvit.compare.comparison.Stage") -> None:
            # what is refused before any work shows no bar
            if not bar.tasks:
                shown.enter_context(bar)
                bar.add_task("", total=None)
            task = bar.task_ids[0]
            bar.update(task, description=stage.text, completed=stage.done, total=stage.total)

        yield show


def _plans(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _targets(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, got {text!r}") from None
