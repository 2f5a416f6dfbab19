"""Measure accuracy on a folder of pictures, dense beside reduced."""

import argparse
from typing import TYPE_CHECKING, Any

from rich.progress import track

from batvit.cli import console, load_models, options

if TYPE_CHECKING:
    import batvit.measure.accuracy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add model, pictures, device and configuration."""
    options.add_model(parser)
    options.add_data(parser)
    options.add_device(parser)
    load_models.add_engine(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate both models in one pass."""
    from batvit.data.loading import loader
    from batvit.measure.accuracy import beside_dense, evaluate

    options.check_outputs(args.json, keep=load_models.inputs(args))
    load_models.check_inputs(args)
    pair = load_models.load(args, pretrained=True)
    pictures = load_models.pictures(args, pair.dense)
    batches = loader(pictures, pair.dense, batch_size=args.batch_size, workers=args.workers)
    bar = console.stderr
    tracked = track(batches, "evaluating", console=bar, transient=True, disable=not bar.is_terminal)
    accuracies = evaluate({"dense": pair.dense, "reduced": pair.reduced}, tracked)
    cost = pair.cost | {"model": args.model}
    _show(accuracies, cost)
    skipped = f", {len(pictures.skipped)} unreadable left out" if pictures.skipped else ""
    console.say(
        f"{accuracies['dense'].samples} pictures{skipped}, "
        f"{pair.precision}, {pair.device}, {pair.runtime}"
    )
    options.write_json(
        args.json,
        {
            **beside_dense(accuracies["dense"], accuracies["reduced"]),
            "skipped": len(pictures.skipped),
            "skipped_files": [str(path) for path in pictures.skipped],
            "precision": pair.precision,
            "device": pair.device,
            "runtime": pair.runtime,
            **cost,
        },
    )


def _show(
    accuracies: "dict[str, batvit.measure.accuracy.Evaluation]", cost: dict[str, Any]
) -> None:
    """Print a row for each of the two models."""
    table = console.table("", "top-1 %", "top-5 %", "same class as dense %", "G MACs")
    gmacs = {"dense": cost["dense_gmacs"], "reduced": cost["gmacs"]}
    for name, accuracy in accuracies.items():
        table.add_row(
            name,
            f"{accuracy.top1:.2f}",
            f"{accuracy.top5:.2f}",
            f"{accuracy.agreement:.2f}",
            f"{gmacs[name]:.3f}",
        )
    console.stdout.print(table)
