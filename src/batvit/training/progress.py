"""How far a run is: what it counts, a checkpoint holds, and the log tells."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set, and the accuracy after it.

    Examples:
        As in the example of :func:`batvit.fit`:

        >>> best = max(epochs, key=lambda epoch: epoch.top1)
        >>> best.top1 >= epochs[0].top1
        True
    """

    epoch: int
    """counted from 1"""
    train_loss: float
    """mean over the updates of what is minimised"""
    eval_loss: float
    """mean cross-entropy on the validation set"""
    top1: float
    """on the validation set, in percent"""
    top5: float
    """on the validation set, in percent"""
    lr: float
    """learning rate of the last update"""
    seconds: float
    """spent on training, without validation"""
    samples_per_sec: float
    """training pictures a second"""


class Step(NamedTuple):
    """One update.

    Examples:
        For a progress bar of your own:

        >>> from batvit.training import Step
        >>> step = Step(update=10, updates=40, loss=0.7, lr=1e-4, samples_per_sec=120.0)
        >>> f"{step.update / step.updates:.0%}"
        '25%'
    """

    update: int
    """counted from 1, over all epochs"""
    updates: int
    """how many there will be"""
    loss: float
    """mean over the last ``log_every`` updates of this epoch"""
    lr: float
    """learning rate of this update"""
    samples_per_sec: float
    """training pictures a second, of this epoch so far"""


@dataclass
class Progress:
    """Where a run stands."""

    update: int = 0
    """the last one, counted from 1 over all epochs"""
    history: list[Epoch] = field(default_factory=list)
    """the epochs that came to their end"""
    losses: list[float] = field(default_factory=list)
    """of each update of the epoch that is under way"""
    lr: float = 0.0
    """learning rate of the last update"""
    seconds: float = 0.0
    """spent on training in the epoch that is under way"""

    @property
    def best(self) -> Epoch:
        """As :func:`best_epoch` gives it."""
        return best_epoch(self.history)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Progress":
        """Return what :meth:`to_dict` was made of."""
        history = [Epoch(**epoch) for epoch in fields["history"]]
        return cls(**fields | {"history": history})


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch of highest top-1, the earliest of equals; there must be one."""
    return max(epochs, key=lambda epoch: epoch.top1)
