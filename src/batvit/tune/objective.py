"""How far a reduced model is from the dense one, picture by picture; labels are not needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.measure.accuracy import best_classes, check_labels, paired_interval
from batvit.measure.logits import divergence, log_probabilities


class TuningSet(NamedTuple):
    """Pictures, and the dense model's answers on them."""

    batches: Sequence[Tensor]
    """(B, 3, H, W) each"""
    labels: Sequence[Tensor] | None
    """(B,) each; None if the dense model's answers count instead"""
    dense_answers: Sequence[Tensor]
    """log-probabilities of the dense model, (B, classes) each"""

    @classmethod
    def of(
        cls, dense: nn.Module, batches: Sequence[Sequence[Tensor]], *, labelled: bool
    ) -> "TuningSet":
        """Run the dense model once on all pictures.

        Args:
            dense: a classifier; it is put into eval mode.
            batches: pictures (B, 3, H, W) and labels (B,) each.
            labelled: whether the labels count.

        Raises:
            ValueError: if the logits are not finite, or a label is none of the classes.
        """
        images = []
        labels = []
        dense_answers = []
        for batch, batch_labels in batches:
            answers = log_probabilities(dense, batch, name="the dense model")
            if labelled:
                check_labels("the dense model", batch_labels, answers.shape[1])
            images.append(batch)
            labels.append(batch_labels)
            dense_answers.append(answers)
        return cls(images, labels if labelled else None, dense_answers)

    @property
    def samples(self) -> int:
        """The number of pictures."""
        return sum(len(batch) for batch in self.batches)


class Difference(NamedTuple):
    """Mean of a paired difference over pictures, and its 95 % bootstrap interval over them."""

    mean: float
    low: float
    high: float

    @property
    def relation(self) -> str:
        """The words for a difference of losses: which of two models is better."""
        if self.high < 0:
            return "better than"
        if self.low > 0:
            return "worse than"
        return "not told apart from"

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, eq=False)
class Score:
    """How far a reduced model is from the dense one, picture by picture."""

    losses: Tensor
    """KL divergence from the dense model, in nats (S,); with labels the cross-entropy"""
    lost: Tensor
    """points of top-1 lost with labels, 100, 0 or -100 (S,); without, 100 if the class changes"""

    @property
    def loss(self) -> float:
        """Mean over the pictures."""
        return float(self.losses.mean())

    @property
    def drop(self) -> float:
        """Points of top-1 lost; without labels, the percentage of pictures whose class changes."""
        return float(self.lost.mean())

    def to_dict(self) -> dict[str, float]:
        """Return the means."""
        return {"loss": self.loss, "drop": self.drop}

    def compare_to(self, other: "Score") -> dict[str, Difference]:
        """Return how much more loss and drop this is than another score on the same pictures."""
        return {
            "loss": _difference(self.losses - other.losses),
            "drop": _difference(self.lost - other.lost),
        }


def difference_sentence(differences: Mapping[str, Difference], other: str) -> str:
    """Write a sentence about what was tuned and another model.

    Args:
        differences: of :meth:`Score.compare_to`, for what was tuned.
        other: the name of the other model.
    """
    loss = differences["loss"]
    drop = differences["drop"]
    return f"tuned is {loss.relation} {other}: loss {loss}, drop {drop}"


def score(
    model: nn.Module,
    data: TuningSet,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Score:
    """Run a reduced model on all pictures.

    Args:
        model: a classifier; it is put into eval mode.
        data: the pictures.
        report: called after each batch with its number and the mean loss so far; it may raise.

    Raises:
        ValueError: if the logits are not finite.
    """
    losses: list[Tensor] = []
    lost: list[Tensor] = []
    for i, (images, dense_answers) in enumerate(zip(data.batches, data.dense_answers, strict=True)):
        answers = log_probabilities(model, images, name="the reduced model")
        own_class = best_classes(answers)[:, 0]
        dense_class = best_classes(dense_answers)[:, 0]
        if data.labels is None:
            losses.append(divergence(answers, dense_answers))
            lost.append(100.0 * (own_class != dense_class))
        else:
            labels = data.labels[i]
            losses.append(functional.nll_loss(answers, labels, reduction="none"))
            right = own_class == labels
            dense_right = dense_class == labels
            lost.append(100.0 * (dense_right.float() - right.float()))
        report(i, float(torch.cat(losses).mean()))
    return Score(torch.cat(losses), torch.cat(lost))


def _difference(differences: Tensor) -> Difference:
    low, high = paired_interval(differences)
    return Difference(float(differences.mean()), low, high)
