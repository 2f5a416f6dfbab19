"""The models of a training run, as a recipe or its user chose: what learns, and its teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from batvit.backbones.patch import patch
from batvit.config import BATConfig
from batvit.models.create import create_model, create_with_head
from batvit.training.config import TrainConfig
from batvit.training.recipes import Choices
from batvit.training.token_labels import give_patch_logits


class TrainingModels(NamedTuple):
    """What :func:`batvit.fit` trains, and learns from."""

    model: nn.Module
    teacher: nn.Module | None
    """None where its weights are not given: then it is the model as it comes"""
    note: str | None
    """what became of the head of the weights; None if it is kept"""


def training_models(
    choices: Choices,
    config: TrainConfig,
    class_names: Sequence[str] | None,
    *,
    reduction: BATConfig | None = None,
    num_classes: int | None = None,
    checkpoint: str | Path | None = None,
    teacher: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
) -> TrainingModels:
    """Make the model that is trained, with its reduction, and the teacher.

    >>> from batvit.training.recipes import resolve
    >>> choices = resolve("deit_tiny_scratch")
    >>> config = TrainConfig(**choices.train)
    >>> made = training_models(choices, config, ["cat", "dog"], reduction=BATConfig.preset())
    >>> made.model.num_classes
    2

    Args:
        choices: which model, and whether it starts from trained weights.
        config: how it will be trained; its seed decides a new head.
        class_names: in label order; None where they are not known.
        reduction: what it is patched with; None for the dense model.
        num_classes: as in :func:`batvit.models.create.create_with_head`.
        checkpoint: weights to start from.
        teacher: weights of the dense model to learn from, if not those that it starts with.
        image_size: (height, width) in pixels, if not the model's own.
        device: where both are put.

    Raises:
        ValueError, OSError: as :func:`batvit.models.create.create_model`.
        ValueError: if nothing is to be learnt from the teacher, or the reduction does not fit.
    """
    config.check_teacher(teacher)
    # a new head is random too
    torch.manual_seed(config.seed)
    model, note = create_with_head(
        choices.model,
        class_names,
        num_classes=num_classes,
        checkpoint=checkpoint,
        pretrained=choices.pretrained,
        image_size=image_size,
        drop_path=config.drop_path,
    )
    if config.token_labels:
        give_patch_logits(model)
    model = model.to(device)
    if reduction is not None:
        patch(model, reduction)
    if teacher is None:
        return TrainingModels(model, None, note)
    dense = create_model(
        choices.model, checkpoint=teacher, num_classes=model.num_classes, image_size=image_size
    )
    return TrainingModels(model, dense, note)
