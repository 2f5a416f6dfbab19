"""What training makes small: the labels' loss, and what the dense model says about the same pictures."""

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
    """From a batch to its loss.

    (1 - alpha) * L(labels) + alpha * L(teacher) + token_labels * L(tokens); the teacher sees the pictures as they were mixed.
    A distilled DeiT in training mode has two outputs, and learns from the labels by the first and from the teacher by the
    second (Touvron et al. 2021, equations 2 and 3).

    Args:
        config: how.
        classes: of the labels.
        teacher: the dense model, frozen and in eval mode; needed where the configuration says so.
        model: what learns, patched or not, without wrappers.
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
        self.config, self.classes, self.teacher, self.autocast = config, classes, teacher, autocast
        self.mix = Mixup(
            config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes
        )
        self.criterion = (
            SoftTargetCrossEntropy()
            if config.mixes
            else LabelSmoothingCrossEntropy(config.smoothing)
        )
        self.tokens = (
            TokenLabels(model, teacher) if config.token_labels and teacher is not None else None
        )

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch as the model sees it, and what it should say: labels (B,), or shares of classes (B, classes)."""
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            strange = low if low < 0 else high
            raise ValueError(
                f"label {strange} does not fit a model of {self.classes} classes; labels count from 0"
            )
        return self.mix(images, labels) if self.config.mixes else (images, labels)

    def __call__(self, student: Callable[[Tensor], Any], images: Tensor, targets: Tensor) -> Tensor:
        """The loss, a scalar: run the student, and the teacher if there is one, on a batch that :meth:`mixed` gave."""
        output = student(images)
        logits, second = output if isinstance(output, tuple) else (output, output)
        loss: Tensor = self.criterion(logits.float(), targets)
        if self.config.distill != "none":
            pupil = second if second.dim() == 2 else logits
            alpha = self.config.distill_alpha
            loss = (1 - alpha) * loss + alpha * self._of_teacher(pupil.float(), images)
        if self.tokens is not None:
            loss = loss + self.config.token_labels * self.tokens.loss(second, images, self.autocast)
        return loss

    def _of_teacher(self, logits: Tensor, images: Tensor) -> Tensor:
        assert self.teacher is not None
        with torch.no_grad(), self.autocast():
            known = self.teacher(images).float()
        if self.config.distill == "hard":
            return functional.cross_entropy(logits, known.argmax(dim=1))
        tau = self.config.distill_tau
        divergence = functional.kl_div(
            functional.log_softmax(logits / tau, dim=1),
            functional.log_softmax(known / tau, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        # the gradient of softened probabilities is as much smaller (Hinton et al. 2015, section 2)
        return divergence * tau**2
