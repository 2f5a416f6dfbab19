"""Train on pictures of yours, with fewer tokens or dense, in one process or many."""

import argparse
import types
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from torch.utils.data import DataLoader

from batvit.backbones.patch import patch
from batvit.cli import console, load_models, options
from batvit.cli.field_help import field_help
from batvit.cli.training_model import teacher, trainee
from batvit.cli.training_progress import fit_shown
from batvit.config.config import BATConfig
from batvit.data.digits import CLASSES, digits
from batvit.data.loading import data_config
from batvit.data.sources import Sources, find
from batvit.training.batches import Part
from batvit.training.config import DISTILLATIONS, PRECISIONS, TrainConfig
from batvit.training.inputs import prepare
from batvit.training.processes import StoppedError, counted_by, part_of
from batvit.training.progress import Epoch
from batvit.training.recipes import RECIPES
from batvit.training.record import BEST, check_output

DIGITS = "digits"
TRACKERS = ("tensorboard", "wandb")


class Scans:
    """Handwritten digits, which need no folder."""

    classes = tuple(map(str, range(CLASSES)))

    def prepare(self, model: nn.Module, config: TrainConfig, part: Part) -> tuple[Any, Any]:
        """As they are: a mirrored digit is another sign."""
        settings = data_config(model)
        train, val = digits(settings["input_size"][1:], mean=settings["mean"], std=settings["std"])
        return train, DataLoader(counted_by(part).of(val), config.batch_size)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Recipe, model, pictures, training and configuration."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="model, training and reduction, where no option says otherwise",
    )
    options.add_model(parser, "--model")
    data = f"holds train/ and val/ with one folder of pictures a class; or hfds/NAME, wds/DIR of tar shards, or {DIGITS}"
    parser.add_argument("--data", required=True, metavar="DIR", help=data)
    parser.add_argument(
        "--splits",
        nargs=2,
        metavar="NAME",
        help="of training and validation, if not train and val(idation)",
    )
    parser.add_argument(
        "--class-map", metavar="FILE", help="text file with all folder names in label order"
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out files that are no pictures; decodes all twice",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="a new folder for checkpoints and logs"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in the output folder, if there is one",
    )
    parser.add_argument(
        "--dense", action="store_true", help="train the model as it is, without reduction"
    )
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        help="weights of the dense model to learn from, if not those it starts with",
    )
    parser.add_argument(
        "--log-with", nargs="+", choices=TRACKERS, default=[], help="also log there"
    )
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda, cuda:1, …",
    )
    parser.add_argument(
        "--threads", type=options.at_least(1), metavar="N", help="CPU threads of torch"
    )
    _add_training(parser)
    options.add_config(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Every field of TrainConfig, its help from the line under the field."""
    group = parser.add_argument_group("training", "fields of TrainConfig; a recipe brings its own")
    choices = {"precision": PRECISIONS, "distill": DISTILLATIONS}
    for field, text in zip(fields(TrainConfig), field_help(TrainConfig).values(), strict=True):
        # of "float | None" the first
        kind: Any = (
            get_args(field.type)[0] if isinstance(field.type, types.UnionType) else field.type
        )
        option, shown = (
            "--" + field.name.replace("_", "-"),
            text if field.default is None else f"{text} ({field.default})",
        )
        if field.name in choices:
            group.add_argument(option, choices=choices[field.name], help=shown)
        elif kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=shown)
        else:
            group.add_argument(option, type=kind, metavar=field.name.upper(), help=shown)


def run(args: argparse.Namespace) -> None:
    """Train, and keep the configuration beside the weights."""
    _resolve(args)
    config = TrainConfig(
        **{
            f.name: getattr(args, f.name)
            for f in fields(TrainConfig)
            if getattr(args, f.name) is not None
        }
    )
    reduction = _reduction(args)
    options.check_outputs(args.json, keep=load_models.inputs(args))
    check_output(args.output, resume=args.resume)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    part, named = part_of(args.device)
    device = options.torch_device(named)
    found = _pictures(args)
    # a new head is random too
    torch.manual_seed(config.seed)
    model = trainee(args, config, found.classes, console.note if part.rank == 0 else _nothing).to(
        device
    )
    of_teacher = teacher(args, config, model)
    if reduction is not None:
        patch(model, reduction)
    train, val = (
        prepare(found, model, config, part)
        if isinstance(found, Sources)
        else found.prepare(model, config, part)
    )
    about = {
        name: getattr(args, name)
        for name in ("model", "img_size", "data", "checkpoint", "teacher", "recipe")
    }
    about |= {"classes": found.classes and len(found.classes), "class_names": found.classes}
    about["config"] = None if reduction is None else reduction.to_dict()
    try:
        epochs = fit_shown(
            *(model, train, val, config),
            title="training",
            on_epoch=lambda epoch: console.say(_line(epoch, config.epochs)),
            output=args.output,
            resume=args.resume,
            teacher=of_teacher,
            about=about,
            log_with=args.log_with,
        )
    except StoppedError as stopped:
        console.note(str(stopped))
        # what a shell tells of a process that SIGTERM ended
        raise SystemExit(143) from None
    if part.rank == 0:
        _conclude(args, about | {"device": str(device), "train": asdict(config)}, epochs)


def _pictures(args: argparse.Namespace) -> Sources | Scans:
    if args.data == DIGITS:
        return Scans()
    splits = tuple(args.splits) if args.splits else None
    return find(
        args.data, splits=splits, class_map=args.class_map, skip_unreadable=args.skip_unreadable
    )


def _conclude(args: argparse.Namespace, result: dict[str, Any], epochs: list[Epoch]) -> None:
    best = max(epochs, key=lambda epoch: epoch.top1)
    console.say(f"best {best.top1:.2f} % after epoch {best.epoch}: {Path(args.output) / BEST}")
    options.write_json(
        args.json, result | {"best": asdict(best), "epochs": [asdict(epoch) for epoch in epochs]}
    )


def _resolve(args: argparse.Namespace) -> None:
    """Let the recipe speak where no option does."""
    if args.recipe is None:
        if args.model is None:
            raise ValueError("give --model MODEL, or --recipe NAME, which brings one")
        return
    recipe = RECIPES[args.recipe]
    args.model = args.model or recipe.model
    for name, value in recipe.train.items():
        if getattr(args, name) is None and not (args.dense and name.startswith("keep_warmup")):
            setattr(args, name, value)
    if not args.dense and args.config is None:
        args.mode = args.mode or recipe.reduction["mode"]
        if args.keep_rate is None and args.tokens is None:
            args.keep_rate = recipe.reduction["keep_rate"]


def _reduction(args: argparse.Namespace) -> BATConfig | None:
    if not args.dense:
        return options.config(args)
    given = [
        name
        for name in ("config", "mode", *field_help(BATConfig))
        if getattr(args, name) is not None
    ]
    if given:
        raise ValueError(
            f"--dense trains without reduction, but --{given[0].replace('_', '-')} is given; leave one out"
        )
    return None


def _nothing(text: str) -> None:
    """What other processes say than the first."""


def _line(epoch: Epoch, epochs: int) -> str:
    return (
        f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}  loss {epoch.train_loss:.4f}  top-1 {epoch.top1:.2f} %  "
        f"top-5 {epoch.top5:.2f} %  lr {epoch.lr:.2e}  {epoch.samples_per_sec:.1f} images/s  {epoch.seconds:.1f} s"
    )
