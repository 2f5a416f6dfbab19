"""Measure accuracy on a folder of pictures, dense beside reduced."""

import argparse
from dataclasses import asdict

from rich.progress import track

from batvit.cli import models, options
from batvit.data import loader
from batvit.evaluate import evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, device and configuration."""
    options.add_model(parser)
    options.add_data(parser)
    options.add_device(parser)
    models.add_engine(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate both models in one pass."""
    options.check_outputs(args.json, keep=models.inputs(args))
    models.check_inputs(args)
    pair = models.load(args, pretrained=True)
    pictures = models.pictures(args, pair.dense)
    batches = loader(pictures, pair.dense, batch_size=args.batch_size, workers=args.workers)
    bar = options.progress_console
    shown = track(batches, "evaluating", console=bar, transient=True, disable=not bar.is_terminal)
    found = evaluate({"dense": pair.dense, "reduced": pair.reduced}, shown)
    cost = pair.cost | {"model": args.model}
    table = options.table("", "top-1 %", "top-5 %", "same class as dense %", "G MACs")
    for name, gmacs in (("dense", cost["dense_gmacs"]), ("reduced", cost["gmacs"])):
        result = found[name]
        table.add_row(name, *(f"{v:.2f}" for v in (result.top1, result.top5, result.agreement)), f"{gmacs:.3f}")
    options.console.print(table)
    skipped = f", {len(pictures.skipped)} unreadable left out" if pictures.skipped else ""
    options.say(f"{found['dense'].samples} pictures{skipped}, {args.precision}, {args.device}, {pair.runtime}")
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
