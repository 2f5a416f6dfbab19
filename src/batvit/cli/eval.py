"""Measure accuracy on a folder of pictures, dense beside reduced."""

import argparse
from dataclasses import asdict

from rich.progress import track

from batvit.cli import console, load_models, options
from batvit.data.loading import loader
from batvit.measure.accuracy import evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, device and configuration."""
    options.add_model(parser)
    options.add_data(parser)
    options.add_device(parser)
    load_models.add_engine(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate both models in one pass."""
    options.check_outputs(args.json, keep=load_models.inputs(args))
    load_models.check_inputs(args)
    pair = load_models.load(args, pretrained=True)
    pictures = load_models.pictures(args, pair.dense)
    batches = loader(pictures, pair.dense, batch_size=args.batch_size, workers=args.workers)
    bar = console.stderr
    shown = track(batches, "evaluating", console=bar, transient=True, disable=not bar.is_terminal)
    found = evaluate({"dense": pair.dense, "reduced": pair.reduced}, shown)
    cost = pair.cost | {"model": args.model}
    table = console.table("", "top-1 %", "top-5 %", "same class as dense %", "G MACs")
    for name, gmacs in (("dense", cost["dense_gmacs"]), ("reduced", cost["gmacs"])):
        result = found[name]
        table.add_row(
            name,
            *(f"{v:.2f}" for v in (result.top1, result.top5, result.agreement)),
            f"{gmacs:.3f}",
        )
    console.stdout.print(table)
    skipped = f", {len(pictures.skipped)} unreadable left out" if pictures.skipped else ""
    console.say(
        f"{found['dense'].samples} pictures{skipped}, {args.precision}, {args.device}, {pair.runtime}"
    )
    reduced, dense = found["reduced"], found["dense"]
    options.write_json(
        args.json,
        {
            **asdict(reduced),
            "top1_err": reduced.top1_err,
            "top5_err": reduced.top5_err,
            "dense_top1": dense.top1,
            "dense_top5": dense.top5,
            "skipped": len(pictures.skipped),
            "skipped_files": [str(path) for path in pictures.skipped],
            "precision": args.precision,
            "device": args.device,
            "runtime": pair.runtime,
            **cost,
        },
    )
