"""Accuracy of any classifiers, on the same pictures in one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.measure.logits import finite_logits

# of the bootstraps: up to so many different values are counted, and so many are drawn at once
FEW_VALUES = 32
AT_ONCE = 2**22


@dataclass(frozen=True)
class Totals:
    """Sums over some pictures; those of parts of the pictures add up to those of all."""

    samples: float = 0.0
    """how many pictures"""
    top1: float = 0.0
    """on how many the most likely class is right"""
    top5: float = 0.0
    """on how many one of the five most likely classes is right"""
    agreeing: float = 0.0
    """on how many the most likely class is the first model's"""
    loss: float = 0.0
    """sum of cross-entropies"""

    def __add__(self, other: "Totals") -> "Totals":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Totals(*(mine + theirs for mine, theirs in pairs))


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, with timm's names.

    Examples:
        As in the example of :func:`evaluate`:

        >>> score = scores["reduced"]
        >>> score.top1 + score.top1_err
        100.0
    """

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
    def from_totals(cls, totals: Totals) -> "Evaluation":
        """Return means and percentages for sums over one picture or more."""
        return cls(
            samples=int(totals.samples),
            top1=100 * totals.top1 / totals.samples,
            top5=100 * totals.top5 / totals.samples,
            agreement=100 * totals.agreeing / totals.samples,
            loss=totals.loss / totals.samples,
        )

    def totals(self) -> Totals:
        """Return the sums that :meth:`from_totals` takes."""
        return Totals(
            samples=float(self.samples),
            top1=float(round(self.top1 * self.samples / 100)),
            top5=float(round(self.top5 * self.samples / 100)),
            agreeing=float(round(self.agreement * self.samples / 100)),
            loss=self.loss * self.samples,
        )


@dataclass(frozen=True)
class Hits:
    """What is right in a batch, a bool for each picture (B,)."""

    top1: Tensor
    """whether the most likely class is right"""
    top5: Tensor
    """whether one of the five most likely classes is right"""
    agreeing: Tensor
    """whether the most likely class is that of the model compared with"""


@torch.inference_mode()
def evaluate(
    models: Mapping[str, nn.Module], batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Evaluation]:
    """Run every model on every batch.

    Args:
        models: name to classifier, each on its device and in its precision; put into eval mode for
            the run. All are compared with the first.
        batches: pictures (B, 3, H, W) and labels (B,); wrap it to show progress.

    Raises:
        ValueError: if there is no model or no picture, or a model returns something that is not one
            row of finite logits a picture, or a label is no class of a model.

    Examples:
        >>> dense = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10)
        >>> reduced = batvit.patch(copy.deepcopy(dense), keep_rate=0.5)
        >>> batches = [(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))]
        >>> scores = batvit.evaluate({"dense": dense, "reduced": reduced}, batches)
        >>> scores["dense"].samples, scores["dense"].agreement
        (4, 100.0)
    """
    if not models:
        raise ValueError("there is no model to evaluate")
    totals = {name: Totals() for name in models}
    training = []
    for model in models.values():
        for module in model.modules():
            training.append((module, module.training))
    try:
        for images, labels in batches:
            reference_classes: Tensor | None = None
            for name, model in models.items():
                logits = finite_logits(model, images, name=name)
                if reference_classes is None:
                    reference_classes = best_classes(logits)[:, 0]
                totals[name] += _batch_totals(name, logits, reference_classes, labels.cpu())
    finally:
        for module, mode in training:
            module.training = mode
    if not all(sums.samples for sums in totals.values()):
        raise ValueError("there is no picture to evaluate on")
    return {name: Evaluation.from_totals(sums) for name, sums in totals.items()}


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
    """Return the five most likely classes (B, 5), or all if there are fewer, the best first.

    Of equal logits the lower class comes first.
    """
    return logits.sort(dim=1, descending=True, stable=True).indices[:, :5]


def hits(logits: Tensor, reference_classes: Tensor, labels: Tensor) -> Hits:
    """Return what a model gets right.

    Args:
        logits: of the model (B, classes), on the CPU.
        reference_classes: most likely classes of the model that it is compared with (B,), on the
            CPU.
        labels: (B,), on the CPU.
    """
    best = best_classes(logits)
    right = best == labels.unsqueeze(1)
    return Hits(right[:, 0], right.any(dim=1), best[:, 0] == reference_classes)


def check_labels(name: str, labels: Tensor, classes: int) -> None:
    """Refuse labels that are none of a model's classes.

    Raises:
        ValueError: with the name of the model, and the lowest and the highest label.
    """
    low = int(labels.min())
    high = int(labels.max())
    if not 0 <= low <= high < classes:
        raise ValueError(
            f"{name}: labels {low} .. {high} do not fit {classes} classes; labels count from 0"
        )


def paired_interval(differences: Tensor, *, repeats: int = 10_000) -> tuple[float, float]:
    """Return where the mean of a paired difference lies in 95 % of the bootstraps over pictures.

    The bootstraps are always the same ones. The interval says how far other pictures would change
    the mean, not how far another training would.

    Args:
        differences: (S,), one a picture, of two models on the same pictures.
        repeats: how many bootstraps.
    """
    samples = differences.double().cpu().numpy()
    generator = np.random.default_rng(0)
    number = len(samples)
    values, counts = np.unique(samples, return_counts=True)
    if len(values) <= FEW_VALUES:
        # how often each value is drawn
        draws = generator.multinomial(number, counts / number, size=repeats)
        means = draws @ values / number
    else:
        step = max(1, AT_ONCE // number)
        parts = []
        for done in range(0, repeats, step):
            size = (min(step, repeats - done), number)
            parts.append(samples[generator.integers(number, size=size)].mean(axis=1))
        means = np.concatenate(parts)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _batch_totals(name: str, logits: Tensor, reference_classes: Tensor, labels: Tensor) -> Totals:
    check_labels(name, labels, logits.shape[1])
    right = hits(logits, reference_classes, labels)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return Totals(
        samples=float(len(labels)),
        top1=float(right.top1.sum()),
        top5=float(right.top5.sum()),
        agreeing=float(right.agreeing.sum()),
        loss=float(losses.sum(dtype=torch.float64)),
    )
