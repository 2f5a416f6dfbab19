"""Search for the configuration that keeps most within a budget."""

import argparse
from typing import Any

from rich.progress import Progress

from batvit.cli import console, load_models, numbers, options

# options that are arguments of batvit.tune.run
ARGUMENTS = (
    "target_speedup",
    "target_macs",
    "max_drop",
    "labels",
    "samples",
    "held_out",
    "minutes",
    "trials",
    "seed",
    "batch_size",
    "workers",
)
# options that must be the same when a search is resumed, besides those that are arguments
METADATA = ("model", "checkpoint", "data", "class_map")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add model, pictures, goal and length."""
    options.add_model(parser)
    options.add_data(parser)
    _add_goal(parser)
    parser.add_argument(
        "--labels",
        action="store_true",
        help="let the folders' labels decide; the dense model's word otherwise",
    )
    parser.add_argument(
        "--samples",
        type=numbers.at_least(2),
        default=200,
        metavar="N",
        help="pictures to search on (200)",
    )
    parser.add_argument(
        "--held-out",
        type=numbers.at_least(1),
        metavar="N",
        help="other pictures, on which the result is checked (as many)",
    )
    parser.add_argument(
        "--minutes", type=float, default=12.0, metavar="M", help="how long to search at most (12)"
    )
    parser.add_argument(
        "--trials",
        type=numbers.at_least(1),
        metavar="N",
        help="how many configurations to try at most",
    )
    parser.add_argument(
        "--seed",
        type=numbers.at_least(0, numbers.MOST_SEED),
        default=0,
        metavar="N",
        help="of the search (0)",
    )
    options.add_output(parser, "a new folder; config.json in it is for --config", resumed="search")
    options.add_device(parser)


def kept(args: argparse.Namespace) -> str:
    """Say what an interrupt leaves."""
    return options.kept_in(args.output, "what was tried")


def run(args: argparse.Namespace) -> None:
    """Load the model, search, print what was found."""
    from batvit.tune import tuning
    from batvit.tune.result import CONFIG
    from batvit.tune.settings import Settings

    options.check_outputs(args.json, keep=load_models.inputs(args))
    arguments: dict[str, Any] = {name: getattr(args, name) for name in ARGUMENTS}
    # what is wrong is told before a model is loaded
    Settings(**arguments)
    tuning.check_ready(args.output, resume=args.resume)
    load_models.check_inputs(args)
    console.silence_profiler()
    dense = load_models.load_dense(args, pretrained=True)
    pictures = load_models.pictures(args, dense, labelled=args.labels)
    metadata = {name: getattr(args, name) for name in METADATA}
    metadata["weights"] = options.weights(args)
    screen = console.stderr
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=args.trials)

        def show(text: str, trials: int) -> None:
            bar.update(task, description=text, completed=trials)

        tuned = tuning.run(
            dense,
            pictures,
            args.output,
            resume=args.resume,
            metadata=metadata,
            progress=show,
            **arguments,
        )
    options.write_json(args.json, tuned.to_dict())
    console.say(str(tuned))
    config = tuned.folder / CONFIG
    console.say(
        f"wrote {config}; use it with --config {config}, or batvit.patch(model, BATConfig.load(…))"
    )


def _add_goal(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "--target-speedup",
        type=float,
        metavar="X",
        help="times as fast as the dense model, as measured here",
    )
    goal.add_argument(
        "--target-macs",
        type=numbers.macs,
        metavar="N",
        help="multiply-accumulates, such as 0.8G, or a share of dense, 0.5",
    )
    goal.add_argument(
        "--max-drop",
        type=float,
        metavar="P",
        help="points of top-1 that may be lost at most; needs --labels",
    )
