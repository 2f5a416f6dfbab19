"""Measure speed, dense and reduced in turns."""

import argparse
from typing import Any

import torch
from rich.table import Table

from batvit.backbones.patch import reductions
from batvit.benchmark import Comparison, compare
from batvit.cli import options
from batvit.data import data_config, placed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, batch sizes, device and configuration."""
    options.add_model(parser)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16], metavar="B", help="one or several (1 16)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="measurements of each model (15)")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="unmeasured runs before (3)")
    parser.add_argument("--compile", action="store_true", help="time both models under torch.compile")
    options.add_device(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Time random pictures: speed does not depend on what they show."""
    options.check_outputs(args.json)
    if min(args.batch_size) < 1:
        raise ValueError(f"--batch-size must be 1 or more, got {min(args.batch_size)}")
    models = options.models(args, pretrained=False)
    size = data_config(models.dense, options.image_size(args))["input_size"]
    parts = [f"blocks.{i}.reduce" for i in reductions(models.reduced)]
    found = []
    for batch in args.batch_size:
        with options.progress_console.status(f"batch {batch}: {args.rounds} rounds"):
            images = placed(torch.randn(batch, *size, generator=torch.Generator().manual_seed(0)), models.dense)
            result = compare(
                models.dense, models.reduced, images, parts=parts, rounds=args.rounds, warmup=args.warmup, compiled=args.compile
            )
        found.append(result)
    options.console.print(_table(found))
    first = found[0]
    threads = torch.get_num_threads()
    options.console.print(
        f"{args.model}, {first.macs / 1e9:.3f} of {first.dense_macs / 1e9:.3f} G MACs (ratio {first.mac_ratio:.2f}), "
        f"{args.precision}, {'compiled' if args.compile else 'eager'}, {args.device}, {threads} CPU threads, "
        f"torch {torch.__version__}; median of {args.rounds} in turns",
        highlight=False,
        soft_wrap=True,
    )
    options.write_json(args.json, _json(args, models.config.to_dict(), size, found))


def _table(found: list[Comparison]) -> Table:
    table = Table("batch", "", "ms (iqr)", "images/s", "peak MB", "speed-up", "realised share", "in reduction")
    for result in found:
        for name, timing in (("dense", result.dense), ("reduced", result.reduced)):
            last = (f"{result.speedup:.2f}", f"{result.realised_share:.2f}", f"{100 * result.reduction_share:.1f} %")
            table.add_row(
                str(timing.batch_size),
                name,
                f"{timing.step_time:.1f} ({timing.step_time_iqr:.1f})",
                f"{timing.samples_per_sec:.1f}",
                f"{timing.peak_memory_mb:.1f}",
                *(last if name == "reduced" else ("", "", "")),
            )
    return table


def _json(args: argparse.Namespace, config: dict[str, Any], size: tuple[int, ...], found: list[Comparison]) -> dict[str, Any]:
    return {
        "model": args.model,
        "img_size": size[1:],
        "precision": args.precision,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "config": config,
        "results": [result.to_dict() for result in found],
    }
