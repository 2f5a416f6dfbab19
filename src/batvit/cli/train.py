"""Train on pictures of yours, with fewer tokens or dense, in one process or many."""

import argparse
import dataclasses
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from batvit.cli import console, load_models, options
from batvit.cli.errors import with_options
from batvit.config import BATConfig
from batvit.config.field_help import field_help
from batvit.training.config import CHOICES, TrainConfig
from batvit.training.progress import Epoch, best_epoch
from batvit.training.recipes import RECIPES, Choices, resolve
from batvit.training.record import BEST, CHECKPOINTS, check_output

if TYPE_CHECKING:
    import batvit.data.sources

TRACKERS = ("tensorboard", "wandb")
# options that are arguments of training_models
OF_THE_MODELS = ("num_classes", "checkpoint", "teacher")
# what a shell tells of a process that SIGTERM ended
STOPPED = 143


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add recipe, model, pictures, training and configuration."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="model, training and reduction, where no option says otherwise",
    )
    options.add_model(parser, "--model")
    _add_pictures(parser)
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
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; by default the GPU if there is one")
    options.add_threads(parser)
    _add_training(parser)
    options.add_config(parser)


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    data = (
        "holds train/ and val/ with one folder of pictures a class; "
        "or hfds/NAME, wds/DIR of tar shards, or digits"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help=data)
    parser.add_argument(
        "--splits",
        nargs=2,
        metavar="NAME",
        help="of training and validation, if not train and val(idation)",
    )
    options.add_reading(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Add every field of TrainConfig, its help from the line under the field."""
    group = parser.add_argument_group("training", "fields of TrainConfig; a recipe brings its own")
    texts = field_help(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        option = "--" + field.name.replace("_", "-")
        text = texts[field.name]
        if field.default is not None:
            text += f" ({field.default})"
        kind: Any = field.type
        # of "float | None" the first
        if isinstance(kind, types.UnionType):
            kind = get_args(kind)[0]
        if field.name in CHOICES:
            group.add_argument(option, choices=CHOICES[field.name], help=text)
        elif kind is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        else:
            group.add_argument(option, type=kind, metavar=field.name.upper(), help=text)


def kept(args: argparse.Namespace) -> str:
    """Say what an interrupt leaves."""
    return options.kept_in(args.output, "the last checkpoint", inside=CHECKPOINTS)


def run(args: argparse.Namespace) -> None:
    """Train, and keep the configuration beside the weights."""
    from batvit.cli.training_progress import fit_shown
    from batvit.data.folder import Pictures
    from batvit.models.training_setup import training_models
    from batvit.training.inputs import prepare
    from batvit.training.processes import part_of

    choices = choices_of(args)
    config = TrainConfig(**choices.train)
    config.check_teacher(args.teacher)
    reduction = _reduction(args, choices)
    options.check_outputs(args.json, keep=load_models.inputs(args))
    check_output(args.output, resume=args.resume)
    load_models.set_threads(args)
    part, name = part_of(load_models.device_of(args))
    device = options.torch_device(name)
    is_first = part.rank == 0
    sources = _open(args)
    if is_first:
        found = [each for each in (sources.train, sources.val) if isinstance(each, Pictures)]
        load_models.note_others(args.data, *found)
    given: dict[str, Any] = {name: getattr(args, name) for name in OF_THE_MODELS}
    model, teacher, remark = training_models(
        choices,
        config,
        sources.classes,
        reduction=reduction,
        image_size=options.image_size(args),
        device=device,
        **given,
    )
    if remark is not None and is_first:
        console.note(remark)
    train, val = prepare(sources, model, config, part)
    metadata = _metadata(args, choices, reduction, sources.classes)
    fit = partial(fit_shown, model, train, val, config, teacher=teacher, metadata=metadata)
    epochs = _until_stopped(args, fit, config.epochs)
    if is_first:
        result = {**metadata, "device": str(device), "train": dataclasses.asdict(config)}
        _conclude(args, result, epochs)


def choices_of(args: argparse.Namespace) -> Choices:
    """Return what to train, and how: the options that are given, and the recipe for the others."""
    return resolve(
        args.recipe,
        model=args.model,
        train=options.given(args, [field.name for field in dataclasses.fields(TrainConfig)]),
        reduction=options.given_config(args),
        dense=args.dense,
    )


def _reduction(args: argparse.Namespace, choices: Choices) -> BATConfig | None:
    """Return the configuration of the reduction; None for the dense model."""
    if choices.reduction is None:
        return None
    return options.chosen_config(choices.reduction, args.checkpoint)


def _open(args: argparse.Namespace) -> "batvit.data.sources.Sources":
    """Open the pictures, and check them."""
    from batvit.data.sources import find

    with console.working(f"looking at the pictures of {args.data}"):
        return find(
            args.data,
            splits=tuple(args.splits) if args.splits else None,
            class_map=args.class_map,
            skip_unreadable=args.skip_unreadable,
        )


def _metadata(
    args: argparse.Namespace,
    choices: Choices,
    reduction: BATConfig | None,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """Return what is trained on what, in plain values; a run is resumed only with the same."""
    return {
        "model": choices.model,
        "img_size": args.img_size,
        "data": args.data,
        "checkpoint": args.checkpoint,
        "teacher": args.teacher,
        "recipe": args.recipe,
        "classes": None if classes is None else len(classes),
        "class_names": classes,
        "config": None if reduction is None else reduction.to_dict(),
    }


def _until_stopped(
    args: argparse.Namespace, fit: Callable[..., list[Epoch]], epochs: int
) -> list[Epoch]:
    """Train with a bar and a line an epoch; leave as a shell expects it after SIGTERM."""
    from batvit.training.processes import StoppedError

    try:
        return fit(
            title="training",
            on_epoch=lambda epoch: console.say(_line(epoch, epochs)),
            output=args.output,
            resume=args.resume,
            log_with=args.log_with,
        )
    except StoppedError as stopped:
        console.note(with_options(str(stopped), args.parser))
        raise SystemExit(STOPPED) from None


def _conclude(args: argparse.Namespace, result: dict[str, Any], epochs: list[Epoch]) -> None:
    """Say which epoch was the best, and write the result if it was asked for."""
    best = best_epoch(epochs)
    path = Path(args.output) / BEST
    console.say(f"best {best.top1:.2f} % after epoch {best.epoch}: {path}")
    result["best"] = dataclasses.asdict(best)
    result["epochs"] = [dataclasses.asdict(epoch) for epoch in epochs]
    options.write_json(args.json, result)


def _line(epoch: Epoch, epochs: int) -> str:
    number = f"{epoch.epoch:>{len(str(epochs))}}"
    return (
        f"epoch {number}/{epochs}  loss {epoch.train_loss:.4f}  top-1 {epoch.top1:.2f} %  "
        f"top-5 {epoch.top5:.2f} %  lr {epoch.lr:.2e}  {epoch.samples_per_sec:.1f} images/s  "
        f"{epoch.seconds:.1f} s"
    )
