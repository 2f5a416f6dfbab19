"""The model that is trained: its weights, its head, its teacher."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from batvit.cli import options
from batvit.training.config import TrainConfig
from batvit.training.recipes import Choices

if TYPE_CHECKING:
    import torch


def training_model(
    args: argparse.Namespace,
    choices: Choices,
    config: TrainConfig,
    classes: Sequence[str] | None,
    note: Callable[[str], None],
) -> Any:
    """Return a model with a head for the classes.

    It is the head of its weights if that fits, else a new one on the same trunk.

    Args:
        args: of the command.
        choices: which model, and whether it starts from trained weights.
        config: how it will be trained.
        classes: names in label order; None where they are not known, and the command's number
            counts.
        note: told what became of the head.
    """
    from batvit.training.classifier_head import replace_head

    wanted = args.num_classes if classes is None else len(classes)
    # where the data tell the classes, the command's number is that of the head of the weights
    before = None if classes is None else args.num_classes
    model = _create(args, choices, config, wanted, before)
    if wanted is not None and model.num_classes != wanted:
        note(replace_head(model, wanted, classes))
    # an LV-ViT gives the logits of its patches, too, if they are to be learnt
    if config.token_labels and hasattr(model, "token_labeling"):
        model.token_labeling = True
    return model


def _create(
    args: argparse.Namespace,
    choices: Choices,
    config: TrainConfig,
    wanted: int | None,
    before: int | None,
) -> Any:
    """Return the model with the head of its weights: the wanted one, if they have it.

    Otherwise the head has ``before`` classes, as many as the model by default.
    """
    from batvit.models.create import create_model

    def create(classes: int | None) -> Any:
        return create_model(
            choices.model,
            checkpoint=args.checkpoint,
            pretrained=choices.pretrained,
            num_classes=classes,
            image_size=options.image_size(args),
            drop_path=config.drop_path,
        )

    # weights to download hold their own head
    if args.checkpoint is None and choices.pretrained:
        return create(before)
    try:
        return create(wanted)
    except ValueError:
        # a file may hold the head that is wanted, or another one
        if args.checkpoint is None or wanted == before:
            raise
        return create(before)


def teacher_model(
    args: argparse.Namespace, choices: Choices, config: TrainConfig, classes: int
) -> "torch.nn.Module | None":
    """Return the dense model to learn from; None if it is the one that is trained, or none.

    Args:
        args: of the command.
        choices: which model.
        config: whether there is something to learn from it.
        classes: of the model that is trained.

    Raises:
        ValueError: if a teacher is given, but nothing is to be learnt from it.
    """
    if args.teacher is None:
        return None
    if not config.learns_from_teacher:
        raise ValueError(
            "--teacher is given, but nothing is to be learnt from it; "
            "give --distill soft, or hard, too"
        )
    from batvit.models.create import create_model

    return create_model(
        choices.model,
        checkpoint=args.teacher,
        num_classes=classes,
        image_size=options.image_size(args),
    )
