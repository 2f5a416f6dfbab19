"""Train a small Vision Transformer on handwritten digits, and reduce its tokens: offline, in about a minute."""

import argparse
import copy
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batvit.backbones.patch import patch
from batvit.cli import console, options
from batvit.cli.training_progress import fit_shown
from batvit.config.config import BATConfig
from batvit.data.digits import CLASSES, Digits, digits
from batvit.inspection.drawing import draw_many, from_tensor
from batvit.inspection.tracing import trace
from batvit.measure.accuracy import Evaluation, evaluate
from batvit.measure.macs import count_parameters
from batvit.measure.speed import SpeedComparison, benchmark
from batvit.reduction.site import config_of
from batvit.storage.figures import save
from batvit.storage.files import check_folder
from batvit.storage.weights import save_weights
from batvit.training.config import TrainConfig

# DeiT's layout, small: 64 patches
ARCHITECTURE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 64,
    "depth": 6,
    "num_heads": 4,
    "num_classes": CLASSES,
    "weight_init": "jax",
}
MEAN = STD = (0.5, 0.5, 0.5)
FROM_SCRATCH = TrainConfig(epochs=6, batch_size=32, lr=1e-2, min_lr=1e-4, opt="muon", clip_grad=1.0)
FINE_TUNING = TrainConfig(epochs=1, batch_size=32, lr=1e-4, min_lr=1e-5, clip_grad=1.0)
KEEP_RATES = (0.7, 0.5)
TIMED_BATCH, ROUNDS, DRAWN = 128, 9, 4
PICTURE = "groups.png"
DENSE, TRAINING_FREE, FINE_TUNED = "dense", "training-free", "fine-tuned"


@dataclass(frozen=True)
class Row:
    """One model of the table; the dense one is compared with nothing."""

    name: str
    accuracy: Evaluation
    speed: SpeedComparison | None


class Data(NamedTuple):
    """Digits to train on, and others in batches."""

    train: Digits
    val: DataLoader[tuple[Tensor, Tensor]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Output, length, threads."""
    parser.add_argument(
        "-o",
        "--output",
        default="batvit-demo",
        metavar="DIR",
        help="picture and weights (batvit-demo)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")
    threads = "CPU threads of torch (1: so small a model gains little from more, and loses much where cores are shared)"
    parser.add_argument("--threads", type=options.at_least(1), default=1, metavar="N", help=threads)
    epochs = f"passes over the digits, for the dense model ({FROM_SCRATCH.epochs})"
    parser.add_argument(
        "--epochs", type=options.at_least(1), default=FROM_SCRATCH.epochs, metavar="N", help=epochs
    )


def run(args: argparse.Namespace) -> None:
    """Train, reduce, fine-tune, compare, draw."""
    start = time.perf_counter()
    options.check_outputs(args.json)
    folder = check_folder(args.output)
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(args.threads)
    console.silence_profiler()
    train, val = digits((ARCHITECTURE["img_size"],) * 2, mean=MEAN, std=STD)
    data = Data(train, DataLoader(val, TIMED_BATCH))
    dense = _train(data, args.epochs)
    models = {DENSE: dense} | _training_free(dense) | _fine_tuned(dense, data)
    rows = _measure(models, data)
    _show(rows, samples=len(val))
    _write(models, data, folder)
    console.say(
        f"All in {time.perf_counter() - start:.0f} s. For a model of yours, start with: batvit info deit_small_patch16_224"
    )
    options.write_json(args.json, _json(rows, args.epochs))


def _train(data: Data, epochs: int) -> nn.Module:
    torch.manual_seed(FROM_SCRATCH.seed)
    model = VisionTransformer(**ARCHITECTURE)
    console.say(f"Training a small Vision Transformer on {len(data.train):,} handwritten digits:")
    console.say(
        f"{len(model.blocks)} blocks, {model.patch_embed.num_patches} patches, {count_parameters(model):,} parameters; "
        f"{_count(epochs, 'epoch')}, {_count(torch.get_num_threads(), 'CPU thread')}."
    )
    history = fit_shown(model, *data, replace(FROM_SCRATCH, epochs=epochs), title="training")
    others = len(data.val.dataset)  # type: ignore[arg-type]
    console.say(
        f"After {sum(epoch.seconds for epoch in history):.0f} s it reads {history[-1].top1:.1f} % of {others} other digits."
    )
    return model


def _training_free(dense: nn.Module) -> dict[str, nn.Module]:
    console.say("Fewer tokens, same weights, no training: batvit.patch(model, keep_rate=0.7)")
    return {
        f"{TRAINING_FREE}, keep {rate}": patch(copy.deepcopy(dense), keep_rate=rate)
        for rate in KEEP_RATES
    }


def _fine_tuned(dense: nn.Module, data: Data) -> dict[str, nn.Module]:
    console.say(
        f'Fewer tokens as in the paper, mode="paper", and fine-tuning for {_count(FINE_TUNING.epochs, "epoch")} …'
    )
    models = {
        f"{FINE_TUNED}, keep {rate}": patch(copy.deepcopy(dense), mode="paper", keep_rate=rate)
        for rate in KEEP_RATES
    }
    for name, model in models.items():
        fit_shown(model, *data, FINE_TUNING, title=name)
    return models


def _measure(models: dict[str, nn.Module], data: Data) -> list[Row]:
    with console.stderr.status("comparing accuracy and speed"):
        accuracy = evaluate(models, data.val)
        images, _ = next(iter(data.val))
        speeds = {
            name: benchmark(models[DENSE], model, images, rounds=ROUNDS)
            for name, model in models.items()
            if name != DENSE
        }
    return [Row(name, accuracy[name], speeds.get(name)) for name in models]


def _show(rows: list[Row], *, samples: int) -> None:
    table = console.table("", "accuracy %", "M MACs", "MAC ratio", "images/s", "speed-up")
    speeds = [row.speed for row in rows if row.speed is not None]
    for row in rows:
        if row.speed is None:
            macs, ratio, speedup = speeds[0].dense_macs, 1.0, 1.0
            per_second = statistics.median(speed.dense.samples_per_sec for speed in speeds)
        else:
            macs, ratio, speedup = row.speed.macs, row.speed.mac_ratio, row.speed.speedup
            per_second = row.speed.reduced.samples_per_sec
        cells = (
            f"{row.accuracy.top1:.1f}",
            f"{macs / 1e6:.1f}",
            f"{ratio:.2f}",
            f"{per_second:.0f}",
            f"{speedup:.2f}",
        )
        table.add_row(row.name, *cells)
    console.stdout.print(table)
    console.say(
        f"One digit of {samples} is {100 / samples:.1f} %. Speed: batches of {TIMED_BATCH}, median of {ROUNDS} runs in turns."
    )


def _write(models: dict[str, nn.Module], data: Data, folder: Path) -> None:
    for name, model in models.items():
        # the others have the weights of the dense model
        if name == DENSE or name.startswith(FINE_TUNED):
            path = save_weights(model, folder / f"{name.replace(', keep ', '-')}.safetensors")
            if (config := config_of(model)) is not None:
                config.save(BATConfig.path_beside(path))
    images, _ = next(iter(data.val))
    model = models[f"{FINE_TUNED}, keep {KEEP_RATES[-1]}"]
    with trace(model) as found, torch.inference_mode():
        model(images[:DRAWN])
    save(
        draw_many([from_tensor(image, MEAN, STD) for image in images[:DRAWN]], found),
        folder / PICTURE,
    )
    console.say(
        f"{folder / PICTURE} shows which patches were folded together; the weights lie beside it."
    )


def _json(rows: list[Row], epochs: int) -> dict[str, Any]:
    return {
        "architecture": ARCHITECTURE,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "results": [
            {
                "name": row.name,
                **asdict(row.accuracy),
                **({} if row.speed is None else row.speed.to_dict()),
            }
            for row in rows
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
