"""Measure speed, dense and reduced in turns."""

import argparse
import os
from typing import Any

import torch
from rich.table import Table

from batvit.backbones.patch import anatomy_of, reductions
from batvit.benchmark import Comparison, compare
from batvit.cli import options
from batvit.data import data_config, placed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, batch sizes, device and configuration."""
    options.add_model(parser)
    count = options.at_least(1)
    parser.add_argument("--batch-size", type=count, nargs="+", default=[1, 16], metavar="B", help="one or several (1 16)")
    parser.add_argument("--rounds", type=count, default=15, metavar="N", help="measurements of each model (15)")
    parser.add_argument("--warmup", type=options.at_least(0), default=3, metavar="N", help="unmeasured runs before (3)")
    parser.add_argument("--compile", action="store_true", help="time both models under torch.compile")
    options.add_device(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Time random pictures: speed does not depend on what they show."""
    options.check_outputs(args.json)
    # torch's profiler, which measures the memory, would write notes of its own to standard error
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    models = options.models(args, pretrained=False)
    size = data_config(models.dense)["input_size"]
    found = []
    for batch in args.batch_size:
        images = placed(torch.randn(batch, *size, generator=torch.Generator().manual_seed(0)), models.dense)
        with options.progress_console.status(f"batch {batch}: {args.rounds} rounds"):
            found.append(_compare(args, models, images))
    options.console.print(_table(found))
    first = found[0]
    threads = torch.get_num_threads()
    options.say(
        f"{args.model}, {first.macs / 1e9:.3f} of {first.dense_macs / 1e9:.3f} G MACs (ratio {first.mac_ratio:.2f}), "
        f"{args.precision}, {'compiled' if args.compile else 'eager'}, {args.device}, {threads} CPU threads, "
        f"torch {torch.__version__}; median of {args.rounds} in turns"
    )
    options.write_json(args.json, _json(args, models.config.to_dict(), size, found))


def _compare(args: argparse.Namespace, models: options.Models, images: torch.Tensor) -> Comparison:
    anatomy = anatomy_of(models.reduced)
    parts = [f"{anatomy.name_of(i)}.reduce" for i in reductions(models.reduced)]
    try:
        return compare(
            models.dense, models.reduced, images, parts=parts, rounds=args.rounds, warmup=args.warmup, compiled=args.compile
        )
    except RuntimeError as error:
        if not args.compile:
            raise
        raise ValueError(f"--compile does not work here ({str(error).splitlines()[0]}); leave it out") from error


def _table(found: list[Comparison]) -> Table:
    table = options.table("batch", "", "ms (iqr)", "images/s", "peak MB", "speed-up", "realised", "reduction")
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
