"""Accuracy of any classifiers, on the same pictures in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data.loading import placed

# of the bootstraps: up to so many different values are counted, and so many pictures are drawn at once
FEW_VALUES, AT_ONCE = 32, 2**22


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, with timm's names."""

    samples: int
    top1: float
    top5: float
    agreement: float
    """share of pictures, in percent, on which the most likely class is the first model's"""
    loss: float
    """mean cross-entropy"""

    @property
    def top1_err(self) -> float:
        """100 - top1."""
        return 100 - self.top1

    @property
    def top5_err(self) -> float:
        """100 - top5."""
        return 100 - self.top5

    @classmethod
    def from_sums(
        cls, samples: int, top1: float, top5: float, agreeing: float, loss: float
    ) -> "Evaluation":
        """Of so many pictures: how many were right, how many among the first five, how many agreed, and the sum of losses."""
        return cls(
            samples,
            100 * top1 / samples,
            100 * top5 / samples,
            100 * agreeing / samples,
            loss / samples,
        )

    def sums(self) -> tuple[float, float, float, float]:
        """What :meth:`from_sums` takes after the number of pictures; those of parts can be added up."""
        top1, top5, agreeing = (
            round(share * self.samples / 100) for share in (self.top1, self.top5, self.agreement)
        )
        return float(top1), float(top5), float(agreeing), self.loss * self.samples


@torch.inference_mode()
def evaluate(
    models: Mapping[str, nn.Module], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Evaluation]:
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
    samples, sums = 0, {name: [0.0, 0.0, 0.0, 0.0] for name in models}
    training = [
        (module, module.training) for model in models.values() for module in model.modules()
    ]
    try:
        for images, labels in batches:
            samples += len(labels)
            first: Tensor | None = None
            for name, model in models.items():
                logits = _checked(name, model.eval()(placed(images, model)), len(labels))
                best = best_classes(logits)
                hits = best == labels.cpu().unsqueeze(1)
                first = best[:, 0] if first is None else first
                for i, found in enumerate(
                    (hits[:, 0], hits, best[:, 0] == first, _losses(name, logits, labels))
                ):
                    sums[name][i] += float(found.sum(dtype=torch.float64))
    finally:
        for module, mode in training:
            module.training = mode
    if not samples:
        raise ValueError("there is no picture to evaluate on")
    return {name: Evaluation.from_sums(samples, *of_model) for name, of_model in sums.items()}


def beside_dense(dense: Evaluation, reduced: Evaluation) -> dict[str, int | float]:
    """Return the numbers of a reduced model and of the dense one, flat and ready for JSON."""
    return {
        **asdict(reduced),
        "top1_err": reduced.top1_err,
        "top5_err": reduced.top5_err,
        "dense_top1": dense.top1,
        "dense_top5": dense.top5,
    }


def best_classes(logits: Tensor) -> Tensor:
    """The five most likely classes (B, 5), or all if there are fewer, the best first; of equal ones the lower first."""
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :5]


def paired_interval(differences: Tensor, *, repeats: int = 10_000) -> tuple[float, float]:
    """Where the mean of a difference lies in 95 % of the bootstraps over pictures, always the same ones.

    It says how far other pictures would change the mean, not how far another training would.

    Args:
        differences: (S,), one a picture, of two models on the same pictures.
        repeats: how many bootstraps.
    """
    every, draw = differences.double().cpu().numpy(), np.random.default_rng(0)
    number, (values, counts) = len(every), np.unique(every, return_counts=True)
    if len(values) <= FEW_VALUES:
        # how often each value is drawn
        means = draw.multinomial(number, counts / number, size=repeats) @ values / number
    else:
        step = max(1, AT_ONCE // number)
        sizes = [(min(step, repeats - done), number) for done in range(0, repeats, step)]
        means = np.concatenate(
            [every[draw.integers(number, size=size)].mean(axis=1) for size in sizes]
        )
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _losses(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        found = f"{int(labels.min())} .. {int(labels.max())}"
        raise ValueError(
            f"{name}: labels {found} do not fit {logits.shape[1]} classes; labels count from 0"
        )
    return functional.cross_entropy(logits, labels.cpu(), reduction="none")


def _checked(name: str, logits: object, batch: int) -> Tensor:
    if (
        not isinstance(logits, Tensor)
        or logits.dim() != 2
        or len(logits) != batch
        or not logits.shape[1]
    ):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"{name}: expected logits ({batch}, classes), got {shape}")
    if not logits.isfinite().all():
        raise ValueError(
            f"{name}: logits are not finite; run it in fp32 or bf16, or check its weights"
        )
    return logits.float().cpu()
