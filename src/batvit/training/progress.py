"""How far a run is: what the loop counts, a checkpoint holds, and the log tells."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set, and the accuracy after it."""

    epoch: int
    """counted from 1"""
    train_loss: float
    """mean over the updates, of what is minimised"""
    eval_loss: float
    """mean cross-entropy on the validation set"""
    top1: float
    """on the validation set, in percent"""
    top5: float
    lr: float
    """learning rate of the last update"""
    seconds: float
    """spent on training, without validation"""
    samples_per_sec: float
    """training pictures a second"""


class Step(NamedTuple):
    """One update."""

    update: int
    """counted from 1, over all epochs"""
    updates: int
    """how many there will be"""
    loss: float
    lr: float
    samples_per_sec: float
    """training pictures a second, of this epoch so far"""


@dataclass
class Progress:
    """Where a run stands; an epoch that is under way has its losses here."""

    update: int = 0
    history: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    lr: float = 0.0
    """of the last update"""
    seconds: float = 0.0

    @property
    def best(self) -> Epoch:
        """The epoch of highest top-1, the earliest of equals."""
        return max(self.history, key=lambda epoch: epoch.top1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Progress":
        """The inverse of :meth:`to_dict`."""
        return cls(**fields | {"history": [Epoch(**epoch) for epoch in fields["history"]]})
