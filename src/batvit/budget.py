"""Configurations that fit a budget, of MACs or time: each plan as one family with one knob."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from batvit.backbones.patch import patch, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.config import BATConfig
from batvit.measure.macs import count_macs
from batvit.module_copy import on_meta
from batvit.plans import PLANS, diffrate

OF_BAT = {"bat": "training-free", "bat_gradual": "gradual"}
"""the preset of each contender that is BAT"""

# the shares of the tokens between which a family is searched, and steps that are too small
LEAST_KEEP = 0.01
LEAST_STEP = 1e-3
HALVINGS = 12
# relative; MACs that are so near below a target meet it
MACS_TOLERANCE = 0.004
# relative; a time that is so near to a target is not improved, one that is not so near misses it
TIME_FIT = 0.015
TIME_TOLERANCE = 0.075
ATTEMPTS = 4
# a slope of time over MACs below this is noise
LEAST_SLOPE = 0.1


class OutOfReachError(ValueError):
    """A budget that no configuration of a plan meets. The message names the nearest."""


def contenders() -> tuple[str, ...]:
    """Return BAT as each of its presets for a pretrained model, then all other plans."""
    others = [name for name in PLANS if name not in OF_BAT]
    return (*OF_BAT, *others)


@dataclass(frozen=True)
class Family:
    """The configurations of one plan for one model, ordered by the share of tokens that goes on.

    They are as published (:data:`batvit.plans.plan.SITE_RULES`); BAT has those of its presets.
    Counts are not aligned, so that any budget can be met, and whatever the plan, no token goes
    through the last MLP that the head does not read.
    """

    method: str
    depth: int
    patches: int
    width: int
    """channels of a token: which of the published schedules is for a model like this"""

    @classmethod
    def of(cls, method: str, model: nn.Module) -> "Family":
        """Return the family of a plan for a supported model.

        Raises:
            ValueError: if there is no such plan.
        """
        if method not in contenders():
            raise ValueError(f"unknown plan {method!r}; there are {', '.join(contenders())}")
        anatomy = anatomy_of(model)
        return cls(method, anatomy.depth, anatomy.patches, anatomy.width)

    def at(self, keep: float) -> BATConfig:
        """Return one configuration.

        Args:
            keep: in (0, 1]; the larger, the more tokens go on at every site.
        """
        if self.method in OF_BAT:
            return BATConfig.preset(OF_BAT[self.method], keep_rate=keep, align=1, prefix_only=True)
        plan = PLANS[self.method]
        fields = {"method": self.method, "prefix_only": True, **plan.paper_fields}
        if plan.site_rule == "sites":
            return BATConfig(keep_rate=keep, **fields)
        blocks = range(plan.first_block, self.depth)
        return BATConfig(tokens=self._tokens(keep), blocks=tuple(blocks), **fields)

    def _tokens(self, keep: float) -> tuple[int, ...]:
        """Return the tokens after each block that reduces."""
        largest = PLANS[self.method].max_reduction
        tokens = []
        left = self.patches
        for wanted in self._wanted(keep):
            # a plan cannot take more than its share in one step
            least = max(1, math.ceil(left * (1 - largest)))
            left = min(left, max(least, round(wanted)))
            tokens.append(left)
        return tuple(tokens)

    def _wanted(self, keep: float) -> list[float]:
        """Return the tokens after each block that reduces, before they are rounded."""
        plan = PLANS[self.method]
        if plan.site_rule == "list":
            return [self.patches * share for share in diffrate.shares(self.width, self.depth, keep)]
        steps = range(1, self.depth - plan.first_block + 1)
        if plan.site_rule == "blocks":
            return [self.patches * (1 - (1 - keep) * step) for step in steps]
        return [self.patches * keep**step for step in steps]


def macs_of(model: nn.Module, config: BATConfig | None) -> int:
    """Count the MACs of a model for one image of its own size.

    Args:
        model: a supported model, patched or not; it is left alone.
        config: what it is patched with for that; None counts it without a reduction.
    """
    shadow = on_meta(model)
    if config is None:
        unpatch(shadow)
    else:
        patch(shadow, config)
    anatomy = anatomy_of(shadow)
    size = (anatomy.channels, *anatomy.image_size)
    return count_macs(anatomy.tower, size, **anatomy.arguments)[""]


class MacCurve:
    """The MACs of a family, as a share of the dense model's, over the share of tokens that goes on.

    Each point is counted once.
    """

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model = model
        self.family = family
        self.dense_macs = macs_of(model, None)
        self.points: dict[float, float] = {}
        """share of the MACs by share of the tokens, as far as counted"""

    def at(self, keep: float) -> float:
        """Return the share of the MACs at one share of the tokens."""
        if keep not in self.points:
            self.points[keep] = macs_of(self.model, self.family.at(keep)) / self.dense_macs
        return self.points[keep]

    def within(self, share: float) -> BATConfig:
        """Return the most generous configuration that costs no more than a share of the MACs.

        Raises:
            ValueError: if the share does not lie in (0, 1).
            OutOfReachError: if even the leanest costs more.
        """
        if not 0 < share < 1:
            raise ValueError(
                f"a target is a share of the dense model's cost, in (0, 1), got {share}"
            )
        nearest = self.at(LEAST_KEEP)
        if nearest > share:
            raise OutOfReachError(
                f"{self.family.method} cannot go down to {share:g} of the MACs; "
                f"the nearest is {nearest:.3f}"
            )
        for halving in range(HALVINGS):
            low = self._most_within(share)
            high = self._next_above(low)
            below = self.at(low)
            above = self.at(high)
            fits = above <= share or share - below <= MACS_TOLERANCE * share
            if fits or high - low < LEAST_STEP:
                break
            # where a line meets the share; every third time in the middle, so that a bend does not
            # hold it up
            part = (share - below) / (above - below) if halving % 3 < 2 else 0.5
            self.at(low + min(max(part, 0.02), 0.98) * (high - low))
        return self.family.at(self._most_within(share))

    def _most_within(self, share: float) -> float:
        """Return the largest share of the tokens that is known to cost no more."""
        return max(keep for keep, cost in self.points.items() if cost <= share)

    def _next_above(self, low: float) -> float:
        """Return the next larger share of the tokens that was counted, or all of them."""
        return min((keep for keep in self.points if keep > low), default=1.0)


def at_macs(model: nn.Module, family: Family, share: float) -> BATConfig:
    """Return the most generous configuration that costs no more than a share of the dense MACs.

    Args:
        model: a supported model; it is left alone.
        family: for this model.
        share: of the dense MACs, in (0, 1).

    Raises:
        OutOfReachError: if even the leanest costs more.
    """
    return MacCurve(model, family).within(share)


class _Attempt(NamedTuple):
    """A configuration that was timed."""

    macs_share: float
    """that was asked for; 0 for the leanest there is"""
    time_share: float
    config: BATConfig


def at_time(
    model: nn.Module, family: Family, share: float, time_share: Callable[[BATConfig], float]
) -> tuple[BATConfig, float]:
    """Return the configuration that takes a share of the dense model's time.

    Within 1.5 %, or as near as four attempts come.

    Args:
        model, family, share: as in :func:`at_macs`, of time.
        time_share: measures a configuration: its time over that of the dense model, in one
            interleaved run.

    Returns:
        The configuration and its measured share of the time.

    Raises:
        OutOfReachError: if none comes near, naming the nearest.
    """
    curve = MacCurve(model, family)
    attempts: list[_Attempt] = []
    wanted = share
    for _ in range(ATTEMPTS):
        try:
            config = curve.within(wanted)
        except OutOfReachError:
            # no further than the leanest
            config = family.at(LEAST_KEEP)
            wanted = 0.0
        attempts.append(_Attempt(wanted, time_share(config), config))
        miss = abs(attempts[-1].time_share - share)
        if miss <= TIME_FIT * share or wanted == 0:
            break
        wanted = _next_macs_share(attempts, share)
    best = min(attempts, key=lambda attempt: abs(attempt.time_share - share))
    if abs(best.time_share - share) > TIME_TOLERANCE * share:
        raise OutOfReachError(
            f"{family.method} was not brought to {share:g} of the time of the dense model; "
            f"nearest {best.time_share:.3f}"
        )
    return best.config, best.time_share


def _next_macs_share(attempts: list[_Attempt], share: float) -> float:
    """Return the share of the MACs to try next for a share of the time."""
    last = attempts[-1]
    # before there are two, as if each part of the MACs took its part of the time
    slope = 1.0
    if len(attempts) > 1:
        before = attempts[-2]
        macs_step = last.macs_share - before.macs_share
        # the line through the last two, unless noise has turned it around: that leads nowhere
        if macs_step != 0:
            line = (last.time_share - before.time_share) / macs_step
            slope = line if line > LEAST_SLOPE else 1.0
    wanted = last.macs_share + (share - last.time_share) / slope
    return min(max(wanted, 2 * LEAST_KEEP), 1 - LEAST_KEEP)
