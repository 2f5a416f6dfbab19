"""Measure speed, dense and reduced in turns."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.table import Table

from batvit.backbones.registry import anatomy_of
from batvit.cli import bench_blocks, console, is_memory, load_models, options
from batvit.data.loading import data_config
from batvit.deploy.format import Engine
from batvit.deploy.formats import is_exported
from batvit.inspection.block_timing import measure as measure_block
from batvit.measure.plot import plot_speedup
from batvit.measure.speed import COMPILE_MODES, Comparison, as_csv, benchmark
from batvit.reduction.site import reductions
from batvit.storage.figures import FIGURE_FORMATS, save
from batvit.storage.files import first_line, write_atomic

COMPILERS = ("torch._dynamo", "torch._inductor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, batch sizes, device and configuration."""
    options.add_model(parser)
    count = options.at_least(1)
    parser.add_argument(
        "--batch-size",
        type=count,
        nargs="+",
        default=[1, 16],
        metavar="B",
        help="one or several (1 16)",
    )
    parser.add_argument(
        "--rounds", type=count, default=15, metavar="N", help="measurements of each model (15)"
    )
    warmup = "unmeasured runs before (3; no fewer with the compile modes reduce-overhead and max-autotune)"
    parser.add_argument("--warmup", type=options.at_least(0), default=3, metavar="N", help=warmup)
    compiled = (
        "time both models under torch.compile too, in the same rounds; with --per-block, the block under it alone; memory and "
        "the share of the reduction are measured eagerly alone, and left out for compiled models"
    )
    parser.add_argument("--compile", action="store_true", help=compiled)
    parser.add_argument(
        "--compile-mode", choices=COMPILE_MODES, help="mode of torch.compile (default)"
    )
    blocks = "time the middle block at the numbers of tokens of the schedule and at multiples of 16 and 32 around them"
    parser.add_argument("--per-block", action="store_true", help=blocks)
    parser.add_argument(
        "--csv", metavar="FILE", help="also write the numbers here, a row a batch size and mode"
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="also plot the speed-up over the batch size: .png, .svg or .pdf",
    )
    options.add_device(parser)
    load_models.add_engine(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Time random pictures: speed does not depend on what they show."""
    _check(args)
    console.silence_profiler()
    pair = load_models.load(args, pretrained=False)
    measure, report = (_time_block, _report_blocks) if args.per_block else (_compare, _report)
    found: list[Any] = []
    failure = None
    for batch in args.batch_size:
        try:
            with console.stderr.status(f"batch {batch}: {args.rounds} rounds"), _explained():
                found.append(measure(args, pair, batch))
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            failure = MemoryError(f"batch {batch}: {first_line(error)}")
            break
    if found:
        report(args, pair, found)
    if failure is not None:
        raise failure


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before any work."""
    if args.compile_mode is not None and not args.compile:
        raise ValueError(f"--compile-mode {args.compile_mode} says how to compile; add --compile")
    if args.plot is not None:
        if args.per_block:
            raise ValueError(
                f"--plot {args.plot} shows whole models; leave it out, or leave out --per-block"
            )
        options.check_suffix("--plot", args.plot, FIGURE_FORMATS)
    if is_exported(args.model) and (args.compile or args.per_block):
        option = "--compile" if args.compile else "--per-block"
        raise ValueError(
            f"{option} needs a model of torch, {args.model} is exported already; leave it out"
        )
    options.check_outputs(args.json, args.csv, args.plot, keep=load_models.inputs(args))


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _is_of_the_compiler(error) or is_memory(error):
            raise
        raise ValueError(
            f"--compile does not work here ({first_line(error)}); leave it out"
        ) from error


def _is_of_the_compiler(error: RuntimeError) -> bool:
    # TorchRuntimeError is an error of the model that is compiled; where torch.compile knows no way at all, it says so itself
    kind = type(error)
    compiler = kind.__module__.startswith(COMPILERS) and kind.__name__ != "TorchRuntimeError"
    return compiler or str(error).startswith("torch.compile")


def _mode(args: argparse.Namespace) -> str | None:
    """The mode of torch.compile, if it is asked for."""
    return (args.compile_mode or COMPILE_MODES[0]) if args.compile else None


def _compare(args: argparse.Namespace, pair: load_models.Models, batch: int) -> Comparison:
    images = load_models.noise(pair.dense, batch)
    return benchmark(
        pair.dense,
        pair.reduced,
        images,
        **_known(pair),
        rounds=args.rounds,
        warmup=args.warmup,
        compiled=args.compile,
        compile_mode=_mode(args) or COMPILE_MODES[0],
    )


def _known(pair: load_models.Models) -> dict[str, Any]:
    """What a comparison needs to know: of an exported file, what it says itself."""
    if isinstance(pair.reduced, Engine):
        metadata = pair.reduced.metadata
        return {
            "macs": (metadata.dense_macs, metadata.macs),
            "param_count": metadata.param_count,
        }
    anatomy = anatomy_of(pair.reduced)
    return {"parts": [f"{anatomy.name_of(i)}.reduce" for i in reductions(pair.reduced)]}


def _report(args: argparse.Namespace, pair: load_models.Models, found: list[Comparison]) -> None:
    console.stdout.print(_table(found))
    first = found[0]
    console.say(
        f"{args.model}, {first.macs / 1e9:.3f} of {first.dense_macs / 1e9:.3f} G MACs (ratio {first.mac_ratio:.2f}), "
        f"{_conditions(args, pair, 'eager and compiled' if args.compile else 'eager')}"
    )
    if args.compile:
        for result in found:
            console.say(_verdict(result))
    rows = [each.to_dict() for result in found for each in result.modes]
    _write(args, pair, rows, {"results": rows})
    if args.plot is not None:
        save(plot_speedup(found), args.plot)


def _table(found: list[Comparison]) -> Table:
    several = any(result.when_compiled for result in found)
    # memory and the share of the reduction are those of the eager models; both modes must fit into 80 columns
    columns = ("batch", "", "ms (iqr)", "images/s", "peak MB", "speed-up", "realised", "reduction")
    table = console.table(*(columns[:-1] if several else columns))
    for result in (each for one in found for each in one.modes):
        for name, timing in (("dense", result.dense), ("reduced", result.reduced)):
            # of what another engine does inside, nothing is seen
            share = f"{100 * result.reduction_share:.1f} %" if result.reduction_share else ""
            last = (f"{result.speedup:.2f}", f"{result.realised_share:.2f}", share)
            cells = (
                str(timing.batch_size),
                f"{name} {result.mode}" if several else name,
                f"{timing.step_time:.1f} ({timing.step_time_iqr:.1f})",
                f"{timing.samples_per_sec:.1f}",
                f"{timing.peak_memory_mb:.1f}"
                if result.mode == "eager" and timing.peak_memory_mb
                else "",
                *(last if name == "reduced" else ()),
            )
            table.add_row(*cells[: len(table.columns)])
    return table


def _verdict(found: Comparison) -> str:
    """The speed-up over the faster of the two dense models, in one line."""
    best = found.fastest_dense
    dense = sorted(found.modes, key=lambda each: each.dense.step_time)
    times = " against ".join(f"{each.dense.step_time:.1f} ms {each.mode}" for each in dense)
    share = 100 * (found.reduction_share or 0.0)
    return (
        f"batch {best.dense.batch_size}: dense is faster {best.mode} ({times}); there reduced is {best.speedup:.2f} times as "
        f"fast, {best.realised_share:.2f} of the MAC ratio; reduction {share:.1f} % of the eager time"
    )


def _time_block(
    args: argparse.Namespace, pair: load_models.Models, batch: int
) -> list[dict[str, Any]]:
    return measure_block(
        pair.dense,
        pair.reduced,
        batch=batch,
        rounds=args.rounds,
        warmup=args.warmup,
        compile_mode=_mode(args),
    )


def _report_blocks(
    args: argparse.Namespace, pair: load_models.Models, found: list[list[dict[str, Any]]]
) -> None:
    for rows in found:
        console.say(f"batch {rows[0]['batch_size']}")
        console.stdout.print(bench_blocks.table(rows))
    console.say(
        f"{args.model}, block {found[0][0]['block']}, ratios over its dense number of tokens, prefix included, "
        f"{_conditions(args, pair, 'compiled' if args.compile else 'eager')}"
    )
    rows = [row for each in found for row in each]
    _write(args, pair, rows, {"per_block": rows})


def _conditions(args: argparse.Namespace, pair: load_models.Models, mode: str) -> str:
    how = (
        "exported"
        if isinstance(pair.reduced, Engine)
        else f"{mode} ({_mode(args)})"
        if args.compile
        else mode
    )
    return (
        f"{args.precision}, {how}, {args.device}, {torch.get_num_threads()} CPU threads, {pair.runtime}; "
        f"median of {args.rounds} in turns"
    )


def _write(
    args: argparse.Namespace,
    pair: load_models.Models,
    rows: list[dict[str, Any]],
    results: dict[str, Any],
) -> None:
    options.write_json(
        args.json,
        {
            "model": args.model,
            "img_size": data_config(pair.dense)["input_size"][1:],
            "precision": args.precision,
            "device": args.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "runtime": pair.runtime,
            "compile_mode": _mode(args),
            "config": pair.config,
        }
        | results,
    )
    if args.csv is not None:
        write_atomic(args.csv, as_csv(rows))
