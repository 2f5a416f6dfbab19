"""The model that is trained: its weights, its head, its teacher."""

import argparse
from collections.abc import Callable
from typing import Any

from torch import nn

from batvit.cli import options
from batvit.models.create import create_model
from batvit.training.classifier_head import replace_head
from batvit.training.config import TrainConfig
from batvit.training.recipes import RECIPES


def trainee(
    args: argparse.Namespace,
    config: TrainConfig,
    classes: tuple[str, ...] | None,
    note: Callable[[str], None],
) -> nn.Module:
    """The model with a head for the classes: that of its weights if it fits, or else a new one on the same trunk."""
    pretrained = args.recipe is None or RECIPES[args.recipe].pretrained
    kind = {
        "checkpoint": args.checkpoint,
        "pretrained": pretrained,
        "image_size": options.image_size(args),
    }
    kind |= {"drop_path": config.drop_path}
    number = args.num_classes if classes is None else len(classes)
    try:
        # a file may hold the head that is wanted; one to download holds its own
        first = number if args.checkpoint or not pretrained else args.num_classes
        model: Any = create_model(args.model, num_classes=first, **kind)
    except ValueError:
        if args.checkpoint is None or number == args.num_classes:
            raise
        model = create_model(args.model, num_classes=args.num_classes, **kind)
    if number is not None and model.num_classes != number:
        note(replace_head(model, number, classes))
    return _labelled(model, config)


def _labelled(model: Any, config: TrainConfig) -> nn.Module:
    """An LV-ViT gives the logits of its tokens, too, if they are to be learnt."""
    if config.token_labels and hasattr(model, "token_labeling"):
        model.token_labeling = True
    labelled: nn.Module = model
    return labelled


def teacher(args: argparse.Namespace, config: TrainConfig, model: Any) -> nn.Module | None:
    """The dense model to learn from, if it is another than the one that is trained, before."""
    if args.teacher is None:
        return None
    if not config.learns_from_teacher:
        raise ValueError(
            "--teacher is given, but nothing is to be learnt from it; give --distill soft, or hard, too"
        )
    size = options.image_size(args)
    return create_model(
        args.model, checkpoint=args.teacher, num_classes=model.num_classes, image_size=size
    )
