"""Measure accuracy on a folder of pictures, dense beside reduced."""

import argparse
from dataclasses import asdict

from rich.progress import track
from rich.table import Table

from batvit.cli import options
from batvit.data import image_folder, loader
from batvit.evaluate import evaluate
from batvit.info import info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, device and configuration."""
    options.add_model(parser)
    options.add_data(parser)
    options.add_device(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate both models in one pass."""
    options.check_outputs(args.json)
    models = options.models(args, pretrained=True)
    size = options.image_size(args)
    classes = getattr(models.dense, "num_classes", None)
    pictures = image_folder(args.data, class_map=args.class_map, num_classes=classes, skip_unreadable=args.skip_unreadable)
    batches = loader(pictures, models.dense, batch_size=args.batch_size, image_size=size, workers=args.workers)
    shown = track(batches, "evaluating", console=options.progress_console, transient=True)
    found = evaluate({"dense": models.dense, "reduced": models.reduced}, shown)
    cost = info(models.reduced, image_size=size, name=args.model)
    table = Table("", "top-1 %", "top-5 %", "same class as dense %", "G MACs")
    for name, macs in (("dense", cost.dense_macs), ("reduced", cost.macs)):
        result = found[name]
        table.add_row(name, *(f"{v:.2f}" for v in (result.top1, result.top5, result.agreement)), f"{macs / 1e9:.3f}")
    options.console.print(table)
    skipped = f", {len(pictures.skipped)} unreadable left out" if pictures.skipped else ""
    options.console.print(f"{found['dense'].samples} pictures{skipped}, {args.precision}, {args.device}", highlight=False)
    reduced, dense = found["reduced"], found["dense"]
    options.write_json(
        args.json,
        {
            **asdict(reduced),
            "top1_err": reduced.top1_err,
            "top5_err": reduced.top5_err,
            "dense_top1": dense.top1,
            "dense_top5": dense.top5,
            "skipped": [str(path) for path in pictures.skipped],
            "precision": args.precision,
            "device": args.device,
            **{k: v for k, v in cost.to_dict().items() if k != "blocks"},
        },
    )
