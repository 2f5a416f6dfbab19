"""Fine-tune on a folder of pictures, with fewer tokens or dense."""

import argparse
import types
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batvit.backbones.patch import patch
from batvit.checkpoint import create_model
from batvit.cli import options
from batvit.config import BATConfig
from batvit.data import Pictures, data_config, image_folder, loader
from batvit.digits import CLASSES, Digits, digits
from batvit.train import BEST, LAST, Epoch, augmentation, check_output, fit
from batvit.train_config import PRECISIONS, TrainConfig

DIGITS = "digits"


class Data(NamedTuple):
    """Pictures prepared for a model."""

    train: Pictures | Digits
    val: DataLoader[tuple[Tensor, Tensor]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, pictures, training and configuration."""
    options.add_model(parser)
    data = f"holds train/ and val/ with one sub-folder of pictures a class; or the word {DIGITS}: scikit-learn's"
    parser.add_argument("--data", required=True, metavar="DIR", help=data)
    parser.add_argument("--class-map", metavar="FILE", help="text file with all folder names in label order")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out files that are no pictures; decodes all twice"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="a new folder for checkpoints and log")
    parser.add_argument("--dense", action="store_true", help="train the model as it is, without reduction")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--threads", type=options.at_least(1), metavar="N", help="CPU threads of torch")
    group = parser.add_argument_group("training", "fields of TrainConfig")
    for field, text in zip(fields(TrainConfig), options.field_help(TrainConfig).values(), strict=True):
        # of "float | None" the first
        kind: Any = get_args(field.type)[0] if isinstance(field.type, types.UnionType) else field.type
        option = "--" + field.name.replace("_", "-")
        if field.name == "precision":
            group.add_argument(option, choices=PRECISIONS, default=field.default, help=f"{text} ({field.default})")
        else:
            shown = text if field.default is None else f"{text} ({field.default})"
            group.add_argument(option, type=kind, default=field.default, metavar=field.name.upper(), help=shown)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Train, and keep the configuration beside the checkpoints."""
    config = TrainConfig(**{field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    reduction = _reduction(args)
    options.check_outputs(args.json)
    check_output(args.output)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    pictures = None if args.data == DIGITS else _folders(args)
    # a new head is random too
    torch.manual_seed(config.seed)
    model = _model(args, CLASSES if pictures is None else len(pictures[0].classes))
    if reduction is not None:
        patch(model, reduction)
    data = _digits(model, config) if pictures is None else _prepare(*pictures, model, config)

    def on_epoch(epoch: Epoch) -> None:
        if reduction is not None:
            for name in (LAST, BEST):
                reduction.save(BATConfig.path_beside(Path(args.output) / name))
        options.say(_line(epoch, config.epochs))

    epochs = fit_shown(model, data, config, title="training", output=args.output, on_epoch=on_epoch)
    best = _best(epochs)
    options.say(f"best {best.top1:.2f} % after epoch {best.epoch}: {Path(args.output) / BEST}")
    options.write_json(args.json, _json(args, config, reduction, epochs))


def fit_shown(
    model: nn.Module,
    data: Data,
    config: TrainConfig,
    *,
    title: str,
    output: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> list[Epoch]:
    """:func:`batvit.train.fit` with a bar on standard error that makes way for what ``on_epoch`` prints."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("updates,"),
        TimeRemainingColumn(),
    )
    console = options.progress_console
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def make_way(epoch: Epoch) -> None:
            if on_epoch is not None:
                bar.stop()
                on_epoch(epoch)
                bar.start()

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return fit(model, data.train, data.val, config, output=output, on_epoch=make_way, progress=progress)


def _reduction(args: argparse.Namespace) -> BATConfig | None:
    if not args.dense:
        return options.config(args)
    given = [name for name in ("config", "mode", *options.field_help(BATConfig)) if getattr(args, name) is not None]
    if given:
        raise ValueError(f"--dense trains without reduction, but --{given[0].replace('_', '-')} is given; leave one out")
    return None


def _folders(args: argparse.Namespace) -> tuple[Pictures, Pictures]:
    """Training and validation pictures, of the same classes."""
    train, val = (
        image_folder(Path(args.data) / part, class_map=args.class_map, skip_unreadable=args.skip_unreadable)
        for part in ("train", "val")
    )
    alone = sorted(set(train.classes) ^ set(val.classes))
    if alone:
        where = "train" if alone[0] in train.classes else "val"
        raise ValueError(
            f"{args.data}: class {alone[0]!r} is in {where}/ alone; give both the same folders, or --class-map FILE"
        )
    return train, val


def _model(args: argparse.Namespace, classes: int) -> nn.Module:
    """The model with a head for the classes: that of its weights if it fits, or else a new one on the same trunk."""
    device = options.torch_device(args.device)
    kind = {"checkpoint": args.checkpoint, "pretrained": True, "image_size": options.image_size(args)}
    try:
        model: Any = create_model(args.model, num_classes=classes, **kind)
        # timm replaces the head of its own weights by itself
        before = classes if args.checkpoint else model.pretrained_cfg["num_classes"]
    except ValueError:
        if args.checkpoint is None:
            raise
        model = create_model(args.model, num_classes=args.num_classes, **kind)
        before = model.num_classes
        model.reset_classifier(classes)
    if before != classes:
        note = f"a new head for {classes} classes takes the place of the one for {before}"
        options.note(note)
    placed: nn.Module = model.to(device)
    return placed


def _digits(model: nn.Module, config: TrainConfig) -> Data:
    # as they are: a mirrored digit is another sign
    settings = data_config(model)
    train, val = digits(settings["input_size"][1:], mean=settings["mean"], std=settings["std"])
    return Data(train, DataLoader(val, config.batch_size))


def _prepare(train: Pictures, val: Pictures, model: nn.Module, config: TrainConfig) -> Data:
    train.transform = augmentation(model, config)
    return Data(train, loader(val, model, batch_size=config.batch_size, workers=config.workers))


def _line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss {epoch.train_loss:.4f}  top-1 {epoch.top1:.2f} %  "
        f"top-5 {epoch.top5:.2f} %  lr {epoch.lr:.2e}  {epoch.samples_per_sec:.1f} images/s  {epoch.seconds:.1f} s"
    )


def _json(args: argparse.Namespace, config: TrainConfig, reduction: BATConfig | None, epochs: list[Epoch]) -> dict[str, Any]:
    return {
        "model": args.model,
        "data": args.data,
        "device": args.device,
        "train": asdict(config),
        "config": None if reduction is None else reduction.to_dict(),
        "best": asdict(_best(epochs)),
        "epochs": [asdict(epoch) for epoch in epochs],
    }


def _best(epochs: list[Epoch]) -> Epoch:
    return max(epochs, key=lambda epoch: epoch.top1)
