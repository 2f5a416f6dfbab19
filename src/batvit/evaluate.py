"""Accuracy of any classifiers, on the same pictures in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
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
        ValueError: if there is no model or no picture, or a model returns something that is not one row of finite logits
            a picture.
    """
    if not models:
        raise ValueError("there is no model to evaluate")
    samples, right = 0, {name: [0, 0, 0] for name in models}
    training = {name: model.training for name, model in models.items()}
    try:
        for images, labels in batches:
            samples += len(labels)
            first: Tensor | None = None
            for name, model in models.items():
                logits = _checked(name, model.eval()(placed(images, model)), len(labels))
                best = logits.topk(min(5, logits.shape[1])).indices
                hits = best == labels.cpu().unsqueeze(1)
                first = best[:, 0] if first is None else first
                for i, found in enumerate((hits[:, 0], hits, best[:, 0] == first)):
                    right[name][i] += int(found.sum())
    finally:
        for name, model in models.items():
            model.train(training[name])
    if not samples:
        raise ValueError("there is no picture to evaluate on")
    return {name: Evaluation(samples, *(100 * count / samples for count in counts)) for name, counts in right.items()}


def _checked(name: str, logits: object, batch: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != batch or not logits.shape[1]:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{name}: expected logits ({batch}, classes), got {shape}")
    if not logits.isfinite().all():
        raise ValueError(f"{name}: logits are not finite; run it in fp32 or bf16, or check its weights")
    return logits.float().cpu()
