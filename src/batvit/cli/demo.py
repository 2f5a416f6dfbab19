"""Train a small Vision Transformer on digits, and reduce its tokens: offline, in about a minute."""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batvit.cli import console, numbers, options
from batvit.storage.files import check_folder

if TYPE_CHECKING:
    import torch

    import batvit.testing.demo

EPOCHS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add output, length and threads."""
    parser.add_argument(
        "-o",
        "--output",
        default="batvit-demo",
        metavar="DIR",
        help="picture and weights (batvit-demo)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")
    parser.add_argument(
        "--threads",
        type=numbers.at_least(1, numbers.MOST_THREADS),
        default=1,
        metavar="N",
        help="CPU threads of torch (1: so small a model gains little from more, "
        "and loses much where cores are shared)",
    )
    parser.add_argument(
        "--epochs",
        type=numbers.at_least(1, numbers.MOST_ROUNDS),
        default=EPOCHS,
        metavar="N",
        help=f"passes over the digits, for the dense model ({EPOCHS})",
    )


def run(args: argparse.Namespace) -> None:
    """Train, reduce, fine-tune, compare, draw."""
    import torch

    from batvit.testing import demo

    start = time.perf_counter()
    options.check_outputs(args.json)
    folder = check_folder(args.output)
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(args.threads)
    console.silence_profiler()
    data = demo.load_data()
    models = _make_models(data, args.epochs)
    with console.working("comparing accuracy and speed"):
        rows = demo.compare_models(models, data)
    _show(rows)
    _write(models, data, folder)
    console.say(
        f"All in {time.perf_counter() - start:.0f} s. "
        "For a model of yours, start with: batvit info deit_small_patch16_224"
    )
    options.write_json(
        args.json,
        {
            "architecture": demo.ARCHITECTURE,
            "epochs": args.epochs,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "results": [row.to_dict() for row in rows],
        },
    )


def _make_models(data: "batvit.testing.demo.Data", epochs: int) -> "dict[str, torch.nn.Module]":
    """Train and reduce, and say what is done."""
    import torch

    from batvit.cli.training_progress import fit_shown
    from batvit.measure.macs import count_parameters
    from batvit.testing import demo

    dense = demo.new_model()
    console.say(f"Training a small Vision Transformer on {len(data.train):,} handwritten digits:")
    console.say(
        f"{len(dense.blocks)} blocks, {dense.patch_embed.num_patches} patches, "
        f"{count_parameters(dense):,} parameters; "
        f"{_count(epochs, 'epoch')}, {_count(torch.get_num_threads(), 'CPU thread')}."
    )
    fit = partial(fit_shown, title="training")
    history = demo.train_dense(dense, data, epochs=epochs, fit=fit)
    seconds = sum(epoch.seconds for epoch in history)
    others: Any = data.val.dataset
    console.say(
        f"After {seconds:.0f} s it reads {history[-1].top1:.1f} % of {len(others)} other digits."
    )
    console.say("Fewer tokens, same weights, no training: batvit.patch(model, keep_rate=0.7)")
    training_free = demo.reduce_training_free(dense)
    length = _count(demo.FINE_TUNING.epochs, "epoch")
    console.say(f'Fewer tokens as in the paper, mode="paper", and fine-tuning for {length} …')
    fit = partial(fit_shown, title="fine-tuning")
    fine_tuned = demo.reduce_fine_tuned(dense, data, fit=fit)
    return {demo.DENSE: dense} | training_free | fine_tuned


def _show(rows: "list[batvit.testing.demo.Row]") -> None:
    """Print a row for each model."""
    from batvit.testing import demo

    dense = demo.dense_speed(rows)
    table = console.table("", "accuracy %", "M MACs", "MAC ratio", "images/s", "speed-up")
    for row in rows:
        if row.speed is None:
            macs, per_second = dense
            ratio = 1.0
            speedup = 1.0
        else:
            macs = row.speed.macs
            ratio = row.speed.mac_ratio
            speedup = row.speed.speedup
            per_second = row.speed.reduced.samples_per_sec
        table.add_row(
            row.name,
            f"{row.accuracy.top1:.1f}",
            f"{macs / 1e6:.1f}",
            f"{ratio:.2f}",
            f"{per_second:.0f}",
            console.factor(speedup),
        )
    console.stdout.print(table)
    samples = rows[0].accuracy.samples
    console.say(
        f"One digit of {samples} is {100 / samples:.1f} %. "
        f"Speed: batches of {demo.TIMED_BATCH}, median of {demo.ROUNDS} runs in turns."
    )


def _write(
    models: "dict[str, torch.nn.Module]", data: "batvit.testing.demo.Data", folder: Path
) -> None:
    """Write weights and picture."""
    from batvit.testing import demo

    demo.save_models(models, folder)
    path = folder / demo.PICTURE
    # the model that keeps fewest tokens was made last
    demo.draw_groups(list(models.values())[-1], data, path)
    console.say(f"{path} shows which patches were folded together; the weights lie beside it.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
