"""Measure speed, dense and reduced in turns."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batvit.cli import bench_tables, console, load_models, numbers, options

if TYPE_CHECKING:
    import batvit.inspection.block_timing
    import batvit.measure.speed

# modes of torch.compile, named here, as the help is to be there without torch
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add model, batch sizes, device and configuration."""
    options.add_model(parser)
    parser.add_argument(
        "--batch-size",
        type=numbers.at_least(1, numbers.MOST_BATCH),
        nargs="+",
        default=[1, 16],
        metavar="B",
        help="one or several (1 16)",
    )
    rounds = "measurements of each model (15); if they spread too much, up to three times as many"
    parser.add_argument(
        "--rounds",
        type=numbers.at_least(1, numbers.MOST_ROUNDS),
        default=15,
        metavar="N",
        help=rounds,
    )
    warmup = (
        "unmeasured runs before (3; no fewer with the compile modes reduce-overhead and "
        "max-autotune)"
    )
    parser.add_argument(
        "--warmup",
        type=numbers.at_least(0, numbers.MOST_ROUNDS),
        default=3,
        metavar="N",
        help=warmup,
    )
    _add_compiling(parser)
    _add_outputs(parser)
    options.add_device(parser)
    load_models.add_engine(parser)
    options.add_config(parser)


def _add_compiling(parser: argparse.ArgumentParser) -> None:
    compiled = (
        "time both models under torch.compile too, in the same rounds; with --per-block, only the "
        "compiled block; memory and the share of the reduction are measured in eager mode only"
    )
    parser.add_argument("--compile", action="store_true", help=compiled)
    parser.add_argument(
        "--compile-mode", choices=COMPILE_MODES, help="mode of torch.compile (default)"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    blocks = (
        "time the middle block at the numbers of tokens of the schedule and at multiples of 16 and "
        "32 around them"
    )
    parser.add_argument("--per-block", action="store_true", help=blocks)
    parser.add_argument(
        "--csv", metavar="FILE", help="also write the numbers here, a row a batch size and mode"
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="also plot the speed-up over the batch size: .png, .svg or .pdf",
    )


def run(args: argparse.Namespace) -> None:
    """Time random pictures: speed does not depend on what they show."""
    from batvit.measure.memory import each_that_fits

    _check(args)
    console.silence_profiler()
    pair = load_models.load(args, pretrained=False)
    measure: Callable[..., Any]
    report: Callable[..., None]
    if args.per_block:
        measure, report = _time_block, _report_blocks
    else:
        measure, report = _compare, _report_models

    def measure_shown(batch: int) -> Any:
        with console.working(f"batch {batch}: {args.rounds} rounds"):
            return measure(args, pair, batch)

    fitting = each_that_fits(measure_shown, args.batch_size, pair.dense)
    # report the sizes that fit, then raise for the first that does not
    if fitting.results:
        report(args, pair, fitting.results)
    if fitting.failure is not None:
        raise fitting.failure


def _check(args: argparse.Namespace) -> None:
    """Refuse combinations of options that do not work, before the model is loaded."""
    from batvit.deploy.formats import is_exported
    from batvit.storage.formats import FIGURE_FORMATS

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


def _mode(args: argparse.Namespace) -> str | None:
    """Return the mode of torch.compile, if it is asked for."""
    return (args.compile_mode or COMPILE_MODES[0]) if args.compile else None


def _compare(
    args: argparse.Namespace, pair: load_models.Models, batch: int
) -> "batvit.measure.speed.SpeedComparison":
    """Compare the two models at one batch size."""
    from batvit.deploy.format import Engine
    from batvit.deploy.pair import known_costs
    from batvit.inspection.block_timing import reduction_names
    from batvit.measure.speed import benchmark, noise

    settings: dict[str, Any]
    if isinstance(pair.reduced, Engine):
        settings = known_costs(pair.reduced)
    else:
        settings = {"parts": reduction_names(pair.reduced)}
    return benchmark(
        pair.dense,
        pair.reduced,
        noise(pair.dense, batch),
        **settings,
        rounds=args.rounds,
        warmup=args.warmup,
        compiled=args.compile,
        compile_mode=_mode(args) or COMPILE_MODES[0],
    )


def _time_block(
    args: argparse.Namespace, pair: load_models.Models, batch: int
) -> list["batvit.inspection.block_timing.BlockTiming"]:
    """Time the middle block at one batch size."""
    from batvit.inspection.block_timing import time_middle_block

    return time_middle_block(
        pair.dense,
        pair.reduced,
        batch_size=batch,
        rounds=args.rounds,
        warmup=args.warmup,
        compile_mode=_mode(args),
    )


def _report_models(
    args: argparse.Namespace,
    pair: load_models.Models,
    comparisons: list["batvit.measure.speed.SpeedComparison"],
) -> None:
    """Print and write comparisons of the two models, one for each batch size."""
    from batvit.measure.plot import plot_speedup
    from batvit.storage.figures import save

    rows = []
    for comparison in comparisons:
        rows += [mode.to_dict() for mode in comparison.modes]
    console.stdout.print(bench_tables.models_table(rows))
    first = comparisons[0]
    mode = "eager and compiled" if args.compile else "eager"
    console.say(
        f"{args.model}, {first.macs / 1e9:.3f} of {first.dense_macs / 1e9:.3f} G MACs "
        f"(ratio {first.mac_ratio:.2f}), {_conditions(args, pair, mode, rows)}"
    )
    _say_if_unsteady(rows)
    if args.compile:
        for comparison in comparisons:
            console.say(comparison.summary)
    _write(args, pair, rows, {"results": rows})
    if args.plot is not None:
        save(plot_speedup(comparisons), args.plot)


def _report_blocks(
    args: argparse.Namespace,
    pair: load_models.Models,
    timings: list[list["batvit.inspection.block_timing.BlockTiming"]],
) -> None:
    """Print and write timings of one block, several for each batch size."""
    rows: list[dict[str, Any]] = []
    for batch in timings:
        of_batch = [timing.to_dict() for timing in batch]
        console.say(f"batch {of_batch[0]['batch_size']}")
        console.stdout.print(bench_tables.blocks_table(of_batch))
        rows += of_batch
    mode = "compiled" if args.compile else "eager"
    console.say(
        f"{args.model}, block {rows[0]['block']}, ratios over its dense number of tokens, prefix "
        f"included, {_conditions(args, pair, mode, rows)}"
    )
    _say_if_unsteady(rows)
    _write(args, pair, rows, {"per_block": rows})


def _say_if_unsteady(rows: list[dict[str, Any]]) -> None:
    note = bench_tables.unsteady_note(rows)
    if note is not None:
        console.say(note)


def _conditions(
    args: argparse.Namespace, pair: load_models.Models, mode: str, rows: list[dict[str, Any]]
) -> str:
    """Describe how it was measured."""
    import torch

    from batvit.deploy.format import Engine

    if isinstance(pair.reduced, Engine):
        mode = "exported"
    elif args.compile:
        mode = f"{mode} ({_mode(args)})"
    measured = sorted({row["rounds"] for row in rows})
    rounds = " or ".join(str(number) for number in measured)
    return (
        f"{pair.precision}, {mode}, {pair.device}, {torch.get_num_threads()} CPU threads, "
        f"{pair.runtime}; median of {rounds} in turns"
    )


def _write(
    args: argparse.Namespace,
    pair: load_models.Models,
    rows: list[dict[str, Any]],
    results: dict[str, Any],
) -> None:
    """Write the files that were asked for."""
    import torch

    from batvit.data.loading import data_config
    from batvit.measure.tables import as_csv
    from batvit.storage.files import write_atomic

    metadata = {
        "model": args.model,
        "img_size": data_config(pair.dense)["input_size"][1:],
        "precision": pair.precision,
        "device": pair.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "runtime": pair.runtime,
        "compile_mode": _mode(args),
        "config": pair.config,
    }
    options.write_json(args.json, metadata | results)
    if args.csv is not None:
        write_atomic(args.csv, as_csv(rows))
