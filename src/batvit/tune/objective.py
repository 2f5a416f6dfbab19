"""How far a reduced model is from the dense one in what it says, on pictures that need no labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data.loading import placed
from batvit.measure.accuracy import paired_interval


class TuningSet(NamedTuple):
    """Pictures, and what the dense model says of them."""

    batches: Sequence[Tensor]
    """(B, 3, H, W) each"""
    labels: Sequence[Tensor] | None
    """(B,) each, if they are to count instead of the dense model's word"""
    truth: Sequence[Tensor]
    """log-probabilities of the dense model, (B, classes) each"""

    @classmethod
    def of(
        cls, dense: nn.Module, batches: Sequence[Sequence[Tensor]], *, labelled: bool
    ) -> "TuningSet":
        """Ask the dense model once; a batch is pictures and labels.

        Raises:
            ValueError: if what it says is not finite.
        """
        truth = [log_probabilities(dense, images) for images, _ in batches]
        if not all(each.isfinite().all() for each in truth):
            raise ValueError(
                "the dense model's logits are not finite; run it in fp32 or bf16, or check its weights"
            )
        return cls(
            [images for images, _ in batches],
            [labels for _, labels in batches] if labelled else None,
            truth,
        )

    @property
    def samples(self) -> int:
        """How many pictures."""
        return sum(map(len, self.batches))


class Difference(NamedTuple):
    """Mean of a paired difference over pictures, and where it lies in 95 % of the bootstraps over them."""

    mean: float
    low: float
    high: float

    @property
    def stands(self) -> str:
        """What it says of a loss."""
        return (
            "better than"
            if self.high < 0
            else "worse than"
            if self.low > 0
            else "not told apart from"
        )


@dataclass(frozen=True, eq=False)
class Score:
    """How far a reduced model is from the dense one, picture by picture."""

    losses: Tensor
    """KL divergence from the dense model, in nats (S,); with labels the cross-entropy"""
    lost: Tensor
    """points of top-1 lost with labels, 100, 0 or -100 (S,); without, 100 where the class changes"""

    @property
    def loss(self) -> float:
        """Mean over the pictures."""
        return float(self.losses.mean())

    @property
    def drop(self) -> float:
        """Mean over the pictures: points of top-1 lost, or pictures in a hundred that change their class."""
        return float(self.lost.mean())

    def to_dict(self) -> dict[str, float]:
        """The means."""
        return {"loss": self.loss, "drop": self.drop}

    def minus(self, other: "Score") -> dict[str, Difference]:
        """How much more loss and drop than another model's on the same pictures."""
        found = {"loss": self.losses - other.losses, "drop": self.lost - other.lost}
        return {
            name: Difference(float(each.mean()), *paired_interval(each))
            for name, each in found.items()
        }


def beside(difference: Mapping[str, Difference], other: str) -> str:
    """How the one that was found stands to another, in a sentence."""
    told = {
        name: f"{name} {each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"
        for name, each in difference.items()
    }
    return f"tuned is {difference['loss'].stands} {other}: {told['loss']}, {told['drop']}"


def judge(
    model: nn.Module,
    data: TuningSet,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Score:
    """Run a reduced model on all pictures; ``report`` hears the mean loss after each batch, and may raise."""
    losses, lost = list[Tensor](), list[Tensor]()
    for i, (images, truth) in enumerate(zip(data.batches, data.truth, strict=True)):
        found = log_probabilities(model, images)
        if data.labels is None:
            losses.append(
                functional.kl_div(found, truth, log_target=True, reduction="none").sum(dim=1)
            )
            lost.append(100.0 * (found.argmax(dim=1) != truth.argmax(dim=1)))
        else:
            labels = data.labels[i]
            losses.append(functional.nll_loss(found, labels, reduction="none"))
            right, before = found.argmax(dim=1) == labels, truth.argmax(dim=1) == labels
            lost.append(100.0 * (before.float() - right.float()))
        report(i, float(torch.cat(losses).mean()))
    return Score(torch.cat(losses), torch.cat(lost))


@torch.inference_mode()
def log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """(B, classes) in float32, on the CPU."""
    return functional.log_softmax(model.eval()(placed(images, model)).float().cpu(), dim=1)
