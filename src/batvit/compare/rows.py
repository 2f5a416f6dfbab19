"""A row of a comparison, typed: one plan at one target, or the dense model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from reprlib import repr as shortened
from typing import Any, NamedTuple

from batvit.config import BATConfig

DENSE = "dense"
# what a target is a share of
COSTS = {"macs": "MACs", "time": "measured time"}


class RowGroup(NamedTuple):
    """A target and its cost: the rows of a group are timed together, and ranked."""

    target: float
    """share of the dense model's cost, in (0, 1)"""
    at: str
    """of which cost: macs or time"""

    def __str__(self) -> str:
        return f"{self.target:g} of the {COSTS[self.at]}"


class Key(NamedTuple):
    """The plan and the group of a row, by which rows are told apart."""

    plan: str
    group: RowGroup

    def __str__(self) -> str:
        return f"{self.plan} at {self.group}"


@dataclass(frozen=True)
class RowTiming:
    """The time and memory of a row, measured in one run with all rows of its group."""

    step_time: float
    """median, milliseconds a batch"""
    step_time_iqr: float
    samples_per_sec: float
    speedup: float
    """as :func:`batvit.measure.clock.speedup` defines it, in batches"""
    speedup_low: float
    """quartiles of the speed-ups of single rounds"""
    speedup_high: float
    unsteady: bool
    """whether the speed-up is no better known than within 5 %: nothing is ranked by it"""
    off_target: bool
    """at equal time: whether its share of the dense model's time is not near the target"""
    realised_share: float
    """speed-up over the ratio of the MACs"""
    peak_memory_mb: float | None
    """None if it is not seen"""
    latency_ms: float
    """median, milliseconds for one picture alone"""
    latency_iqr: float
    latency_speedup: float
    rounds: int
    """as measured, in batches: more than asked for, where times spread too much"""


@dataclass(frozen=True)
class RowAccuracy:
    """How well a row classifies the pictures, and how far it is from the dense model."""

    top1: float
    top5: float
    difference: float
    """of top-1 to the dense model's, in points, with the limits of its 95 % interval"""
    difference_low: float
    difference_high: float
    agreement: float
    """share of pictures, in percent, with the dense model's class"""
    kl: float
    """mean Kullback-Leibler divergence of the dense model's distribution to its own, in nats"""


MARKS = ("off_target", "unsteady")
TIMING_FIELDS = tuple(part.name for part in fields(RowTiming))
ACCURACY_FIELDS = tuple(part.name for part in fields(RowAccuracy))
FIELDS = (
    "plan",
    "target",
    "at",
    "config",
    "blocks",
    "tokens",
    "gmacs",
    "mac_share",
    *TIMING_FIELDS,
    *ACCURACY_FIELDS,
)


@dataclass(frozen=True)
class Row:
    """One plan at one target, or the dense model."""

    plan: str
    group: RowGroup | None
    """None for the dense model beside all groups"""
    config: BATConfig | None
    """None for the dense model"""
    blocks: tuple[int, ...]
    tokens: tuple[int, ...]
    """image tokens after each of these blocks"""
    gmacs: float
    mac_share: float
    """of the dense model's MACs"""
    timing: RowTiming | None = None
    """None until it was timed"""
    accuracy: RowAccuracy | None = None
    """None until it saw the pictures"""

    @property
    def key(self) -> Key:
        """Plan, target and cost, by which rows are told apart."""
        assert self.group is not None
        return Key(self.plan, self.group)

    def to_dict(self) -> dict[str, Any]:
        """Return flat plain values, one for each of ``FIELDS``; None for what is not known yet."""
        target, at = self.group or (None, None)
        timing = dict.fromkeys(TIMING_FIELDS) | dict.fromkeys(MARKS, False)
        return {
            "plan": self.plan,
            "target": target,
            "at": at,
            "config": None if self.config is None else self.config.to_dict(),
            "blocks": list(self.blocks),
            "tokens": list(self.tokens),
            "gmacs": self.gmacs,
            "mac_share": self.mac_share,
            **(timing if self.timing is None else asdict(self.timing)),
            **(dict.fromkeys(ACCURACY_FIELDS) if self.accuracy is None else asdict(self.accuracy)),
        }

    @classmethod
    def from_dict(cls, values: Any) -> "Row":
        """Read what :meth:`to_dict` gives; every value is checked, as anybody may have written it.

        Raises:
            ValueError: naming the first wrong value.
        """
        if not isinstance(values, dict) or values.keys() - set(FIELDS):
            raise ValueError(shortened(values))
        plan: Any = values.get("plan")
        target: Any = values.get("target")
        at: Any = values.get("at")
        config: Any = values.get("config")
        _check(isinstance(plan, str), "plan", plan)
        _check(_is_number(target) and 0 < target < 1, "target", target)
        _check(isinstance(at, str) and at in COSTS, "at", at)
        _check(isinstance(config, dict) or (config is None and plan == DENSE), "config", config)
        for name in ("blocks", "tokens"):
            _check(_is_counts(values.get(name)), name, values.get(name))
        for name in ("gmacs", "mac_share"):
            _check(_is_number(values.get(name)), name, values.get(name))
        return cls(
            plan=plan,
            group=RowGroup(target, at),
            config=None if config is None else BATConfig.from_dict(config),
            blocks=tuple(values["blocks"]),
            tokens=tuple(values["tokens"]),
            gmacs=values["gmacs"],
            mac_share=values["mac_share"],
            timing=_timing(values),
            accuracy=_accuracy(values),
        )


def is_bat(plan: str) -> bool:
    """Return whether a plan is one of ours."""
    return plan.partition("_")[0] == "bat"


def _timing(values: Mapping[str, Any]) -> RowTiming | None:
    """Read the timing of a row: all of it is there, or nothing."""
    marks = {name: values.get(name, False) for name in MARKS}
    for name, mark in marks.items():
        _check(isinstance(mark, bool), name, mark)
    numbers = {name: values.get(name) for name in TIMING_FIELDS if name not in MARKS}
    if all(value is None for value in numbers.values()):
        return None
    for name, value in numbers.items():
        _check(_is_number(value) or (value is None and name == "peak_memory_mb"), name, value)
    return RowTiming(**marks, **numbers)  # type: ignore[arg-type]


def _accuracy(values: Mapping[str, Any]) -> RowAccuracy | None:
    """Read the accuracy of a row: all of it is there, or nothing."""
    numbers = {name: values.get(name) for name in ACCURACY_FIELDS}
    if all(value is None for value in numbers.values()):
        return None
    for name, value in numbers.items():
        _check(_is_number(value), name, value)
    return RowAccuracy(**numbers)  # type: ignore[arg-type]


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise ValueError(f"{name} = {shortened(value)}")


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number that fits into a float."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int for number in value)
