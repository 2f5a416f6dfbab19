"""What is minimised: the loss of the labels, and of what the dense model says."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional

from batvit.training.config import TrainConfig
from batvit.training.token_labels import TokenLabels


class Objective:
    """The loss of a batch.

    (1 - alpha) * L(labels) + alpha * L(teacher) + token_labels * L(tokens)

    The teacher sees the pictures as they were mixed. A distilled DeiT in training mode has two
    outputs, and learns from the labels by the first and from the teacher by the second (Touvron et
    al. 2021, equations 2 and 3).

    Args:
        config: how.
        classes: of the labels.
        teacher: the dense model, frozen and in eval mode; needed where the configuration says so.
        model: the one that learns, patched or not, without wrappers.
        autocast: gives the context in which the teacher runs.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        classes: int,
        teacher: nn.Module | None,
        model: nn.Module,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.config = config
        self.classes = classes
        self.teacher = teacher
        self.autocast = autocast
        self.mix = Mixup(
            config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes
        )
        self.criterion: nn.Module
        if config.mixes:
            # mixing smooths the labels already
            self.criterion = SoftTargetCrossEntropy()
        else:
            self.criterion = LabelSmoothingCrossEntropy(config.smoothing)
        self.tokens: TokenLabels | None = None
        if config.token_labels and teacher is not None:
            self.tokens = TokenLabels(model, teacher)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch as the model sees it, and its targets.

        Targets are labels (B,), or, of pictures that are mixed, shares of classes (B, classes).

        Raises:
            ValueError: if a label does not fit the model.
        """
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < self.classes:
                raise ValueError(
                    f"label {label} does not fit a model of {self.classes} classes; "
                    "labels count from 0"
                )
        if not self.config.mixes:
            return images, labels
        mixed_images, targets = self.mix(images, labels)
        return mixed_images, targets

    def __call__(self, student: Callable[[Tensor], Any], images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch that :meth:`mixed` gave, a scalar.

        Args:
            student: the model that learns, with its wrappers.
            images: (B, 3, H, W).
            targets: labels (B,), or shares of classes (B, classes).
        """
        output = student(images)
        if isinstance(output, tuple):
            # of a distilled DeiT the second head's logits (B, classes), of an LV-ViT the tokens'
            # (B, patches, classes)
            logits, second = output
        else:
            logits = output
            second = output
        loss: Tensor = self.criterion(logits.float(), targets)
        if self.config.distill != "none":
            taught = second if second.dim() == 2 else logits
            alpha = self.config.distill_alpha
            loss = (1 - alpha) * loss + alpha * self._distillation(taught.float(), images)
        if self.tokens is not None:
            loss = loss + self.config.token_labels * self.tokens.loss(second, images, self.autocast)
        return loss

    def _distillation(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return how far logits (B, classes) are from what the teacher says, a scalar."""
        assert self.teacher is not None
        with torch.no_grad(), self.autocast():
            teacher_logits = self.teacher(images).float()
        if self.config.distill == "hard":
            return functional.cross_entropy(logits, teacher_logits.argmax(dim=1))
        tau = self.config.distill_tau
        divergence = functional.kl_div(
            functional.log_softmax(logits / tau, dim=1),
            functional.log_softmax(teacher_logits / tau, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        # the gradient of softened probabilities is as much smaller (Hinton et al. 2015, section 2)
        return divergence * tau**2
