"""How far a reduced model is from the dense one, on pictures that need no labels."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data import placed


class Calibration(NamedTuple):
    """Pictures, and what the dense model says of them."""

    batches: Sequence[Tensor]
    """(B, 3, H, W) each"""
    labels: Sequence[Tensor] | None
    """(B,) each, if they are to count instead of the dense model's word"""
    truth: Sequence[Tensor]
    """log-probabilities of the dense model, (B, classes) each"""

    @classmethod
    def of(cls, dense: nn.Module, batches: Sequence[Sequence[Tensor]], *, labelled: bool) -> "Calibration":
        """Ask the dense model once; a batch is pictures and labels."""
        truth = [log_probabilities(dense, images) for images, _ in batches]
        return cls([images for images, _ in batches], [labels for _, labels in batches] if labelled else None, truth)

    @property
    def samples(self) -> int:
        """How many pictures."""
        return sum(map(len, self.batches))


class Judgement(NamedTuple):
    """How far a reduced model is from the dense one, on the pictures seen."""

    loss: float
    """mean KL divergence from the dense model, in nats; with labels the cross-entropy"""
    drop: float
    """points of top-1 lost with labels; without, pictures in a hundred that change their class"""


def judge(model: nn.Module, data: Calibration, report: Callable[[int, float], None] = lambda step, loss: None) -> Judgement:
    """Run a reduced model on all pictures; ``report`` hears the mean loss after each batch, and may raise."""
    loss = lost = seen = 0.0
    for i, (images, truth) in enumerate(zip(data.batches, data.truth, strict=True)):
        found = log_probabilities(model, images)
        seen += len(images)
        if data.labels is None:
            loss += float(functional.kl_div(found, truth, log_target=True, reduction="sum"))
            lost += float((found.argmax(dim=1) != truth.argmax(dim=1)).sum())
        else:
            labels = data.labels[i]
            loss += float(functional.nll_loss(found, labels, reduction="sum"))
            lost += float((truth.argmax(dim=1) == labels).sum() - (found.argmax(dim=1) == labels).sum())
        report(i, loss / seen)
    return Judgement(loss / seen, 100 * lost / seen)


@torch.inference_mode()
def log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """(B, classes) in float32, on the CPU."""
    return functional.log_softmax(model.eval()(placed(images, model)).float().cpu(), dim=1)
