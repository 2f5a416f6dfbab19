"""Accuracy of any classifiers, on the same pictures in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from timm.utils.metrics import AverageMeter, accuracy
from torch import Tensor, nn

from batvit.data import placed


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, with timm's names."""

    samples: int
    top1: float
    top5: float
    agreement: float
    """share of pictures, in percent, on which the most likely class is the first model's"""

    @property
    def top1_err(self) -> float:
        """100 - top1."""
        return 100 - self.top1

    @property
    def top5_err(self) -> float:
        """100 - top5."""
        return 100 - self.top5


@torch.inference_mode()
def evaluate(models: Mapping[str, nn.Module], batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Evaluation]:
    """Run every model on every batch.

    Args:
        models: name to classifier, each on its device and in its precision; put into eval mode for the run.
        batches: pictures (B, 3, H, W) and labels (B,); wrap it to show progress.

    Raises:
        ValueError: if there is no model or no picture, or a model returns something that is not one row of logits a picture.
    """
    if not models:
        raise ValueError("there is no model to evaluate")
    meters = {name: (AverageMeter(), AverageMeter(), AverageMeter()) for name in models}
    training = {name: model.training for name, model in models.items()}
    try:
        for images, labels in batches:
            first: Tensor | None = None
            for name, model in models.items():
                logits = model.eval()(placed(images, model))
                if not isinstance(logits, Tensor) or logits.shape[:1] != labels.shape or logits.dim() != 2:
                    raise ValueError(f"{name}: expected logits ({len(labels)}, classes), got {_shape(logits)}")
                logits = logits.float().cpu()
                first = logits if first is None else first
                same = 100 * (logits.argmax(1) == first.argmax(1)).float().mean()
                for meter, value in zip(meters[name], (*accuracy(logits, labels, topk=(1, 5)), same), strict=True):
                    meter.update(float(value), len(labels))
    finally:
        for name, model in models.items():
            model.train(training[name])
    samples = next(iter(meters.values()))[0].count
    if not samples:
        raise ValueError("there is no picture to evaluate on")
    return {name: Evaluation(samples, top1.avg, top5.avg, same.avg) for name, (top1, top5, same) in meters.items()}


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
