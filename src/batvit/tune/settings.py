"""What is asked of a tuning, checked before anything is done, and what its steps share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from batvit.budget import macs_of
from batvit.checks import check_interval, check_number
from batvit.tune.objective import TuningSet
from batvit.tune.search import Goal

# below it a number of MACs is a slip
FEWEST_MACS = 1e6
# measurements of each model, of the best after a part of the search and of the finalists
ROUNDS = 15

Progress = Callable[[str, int], None]
"""told what is done, in words, and how many trials are finished"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values that :func:`batvit.tune.run` takes, checked when they are put together.

    Raises:
        ValueError, TypeError: naming the argument, the value received, and what to do.
    """

    target_speedup: float | None = None
    target_macs: float | None = None
    max_drop: float | None = None
    labels: bool = False
    samples: int = 200
    held_out: int | None = None
    minutes: float = 12.0
    trials: int | None = None
    seed: int = 0
    batch_size: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        self._check_goal()
        self._check_numbers()

    @property
    def timed(self) -> bool:
        """True if the cost is time."""
        return self.target_macs is None

    @property
    def held_out_samples(self) -> int:
        """Pictures on which the result is checked; as many as are searched on by default."""
        return self.samples if self.held_out is None else self.held_out

    def goal(self, dense: nn.Module) -> Goal:
        """Return what is wanted of a model.

        Raises:
            ValueError: if the model does with the MACs asked for as it is.
        """
        if self.max_drop is not None:
            return Goal(max_drop=self.max_drop)
        if self.target_speedup is not None:
            return Goal(budget=1 / self.target_speedup)
        assert self.target_macs is not None
        if self.target_macs < 1:
            return Goal(budget=self.target_macs)
        dense_macs = macs_of(dense, None)
        if self.target_macs >= dense_macs:
            raise ValueError(
                f"target_macs={self.target_macs:g}: must be below the "
                f"{dense_macs / 1e9:.3f}G of the dense model"
            )
        return Goal(budget=self.target_macs / dense_macs)

    def _check_goal(self) -> None:
        """Refuse no goal, several, and those that cannot be met."""
        goals = {}
        for name in ("target_speedup", "target_macs", "max_drop"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)
                goals[name] = value
        if len(goals) != 1:
            given = " and ".join(f"{name}={value}" for name, value in goals.items()) or "none"
            raise ValueError(f"give one of target_speedup, target_macs and max_drop, got {given}")
        if self.target_speedup is not None and not 1 < self.target_speedup < 100:
            raise ValueError(
                f"target_speedup={self.target_speedup:g}: must be above 1 and below 100; "
                "1.5 is half as fast again"
            )
        if self.target_macs is not None:
            self._check_target_macs(self.target_macs)
        if self.max_drop is not None and not self.labels:
            raise ValueError(
                f"max_drop={self.max_drop:g}: is about accuracy, and needs labels; "
                "give labels=True, or another goal, target_speedup or target_macs"
            )
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(f"max_drop={self.max_drop:g}: must be 0 to 100 points of top-1")

    def _check_target_macs(self, macs: float) -> None:
        if not macs > 0:
            raise ValueError(f"target_macs={macs:g}: must be above 0")
        if 1 <= macs < FEWEST_MACS:
            raise ValueError(
                f"target_macs={macs:g}: give multiply-accumulates, such as 0.8e9, "
                "or a share of the dense model's, below 1"
            )

    def _check_numbers(self) -> None:
        """Refuse lengths and counts that no search can have."""
        check_number("minutes", self.minutes)
        if not 0 < self.minutes < 1e6:
            raise ValueError(f"minutes={self.minutes:g}: must be above 0 and below 1e6")
        check_interval("samples", self.samples, "[2, inf)", kind=int)
        if self.held_out is not None:
            check_interval("held_out", self.held_out, "[1, inf)", kind=int)
        if self.trials is not None:
            check_interval("trials", self.trials, "[1, inf)", kind=int)
        check_interval("seed", self.seed, "[0, inf)", kind=int)
        check_interval("batch_size", self.batch_size, "[1, inf)", kind=int)
        check_interval("workers", self.workers, "[0, inf)", kind=int)


@dataclass(frozen=True)
class Job:
    """What the steps of a tuning share."""

    dense: nn.Module
    settings: Settings
    goal: Goal
    folder: Path
    searched: TuningSet
    """pictures that are searched on"""
    held_out: TuningSet
    """other pictures, on which the result is checked"""
    images: Tensor
    """a batch (B, 3, H, W) on which models are timed"""
    progress: Progress
