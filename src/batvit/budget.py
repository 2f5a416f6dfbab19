"""Configurations that fit a budget: each plan as one family, from nothing taken away to almost everything."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from batvit.backbones.patch import patch, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.config.config import BATConfig
from batvit.measure.macs import count_macs
from batvit.module_copy import on_meta
from batvit.plans import PLANS, diffrate

HALVINGS = 12
OF_BAT = {"bat": "training-free", "bat_gradual": "gradual"}
LEAST_SHARE = 0.01
LEAST_STEP = 1e-3
CLOSE = 0.004
FITS, NEAR = 0.015, 0.075
ATTEMPTS = 4


class OutOfReachError(ValueError):
    """A budget that no configuration of a plan meets. The message names the nearest that can be had."""


def contenders() -> tuple[str, ...]:
    """BAT as each of its presets for a pretrained model, then all other plans that there are."""
    return (*OF_BAT, *(name for name in PLANS if name not in OF_BAT))


@dataclass(frozen=True)
class Family:
    """The configurations of one plan for one model, ordered by the share of the tokens that goes on, in (0, 1].

    As published (:data:`batvit.plans.plan.SITE_RULES`). BAT's are those of its presets. Counts are not aligned, so that any budget
    can be met, and whatever the plan, no token goes through the last MLP that the head does not read.
    """

    method: str
    depth: int
    patches: int
    width: int
    """channels of a token: which of the published schedules is for a model like this"""

    @classmethod
    def of(cls, method: str, model: nn.Module) -> "Family":
        """The family of a plan for a supported model."""
        if method not in contenders():
            raise ValueError(f"unknown plan {method!r}; there are {', '.join(contenders())}")
        anatomy = anatomy_of(model)
        return cls(method, anatomy.depth, anatomy.patches, anatomy.width)

    def at(self, keep: float) -> BATConfig:
        """One configuration; the larger ``keep``, the more tokens go on at every site."""
        if self.method in OF_BAT:
            return BATConfig.preset(OF_BAT[self.method], keep_rate=keep, align=1, prefix_only=True)
        plan = PLANS[self.method]
        fields = {"method": self.method, "prefix_only": True, **plan.paper_fields}
        if plan.site_rule == "sites":
            return BATConfig(keep_rate=keep, **fields)
        tokens, left = [], self.patches
        for wanted in self._wanted(keep):
            left = min(left, max(1, math.ceil(left * (1 - plan.max_reduction)), round(wanted)))
            tokens.append(left)
        return BATConfig(
            tokens=tuple(tokens), blocks=tuple(range(plan.first_block, self.depth)), **fields
        )

    def _wanted(self, keep: float) -> list[float]:
        """The tokens after each block that reduces, before they are rounded."""
        plan = PLANS[self.method]
        if plan.site_rule == "list":
            return [self.patches * share for share in diffrate.shares(self.width, self.depth, keep)]
        steps = range(1, self.depth - plan.first_block + 1)
        if plan.site_rule == "blocks":
            return [self.patches * (1 - (1 - keep) * step) for step in steps]
        return [self.patches * keep**step for step in steps]


def macs_of(model: nn.Module, config: BATConfig | None) -> int:
    """MACs of a model for one image of its own size, patched with a configuration, or dense. The model is left alone."""
    shadow = on_meta(model)
    known = unpatch(shadow) if config is None else patch(shadow, config)
    anatomy = anatomy_of(known)
    return count_macs(anatomy.tower, (anatomy.channels, *anatomy.image_size), **anatomy.arguments)[
        ""
    ]


class Curve:
    """The MACs of a family, as a share of the dense model's, over the share of the tokens that goes on; as far as counted."""

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family, self.dense = model, family, macs_of(model, None)
        self.known = dict[float, float]()

    def at(self, keep: float) -> float:
        """Counted once."""
        if keep not in self.known:
            self.known[keep] = macs_of(self.model, self.family.at(keep)) / self.dense
        return self.known[keep]

    def within(self, share: float) -> BATConfig:
        """See :func:`at_macs`."""
        if not 0 < share < 1:
            raise ValueError(
                f"a target is a share of the dense model's cost, in (0, 1), got {share}"
            )
        if (nearest := self.at(LEAST_SHARE)) > share:
            name = self.family.method
            raise OutOfReachError(
                f"{name} cannot go down to {share:g} of the MACs; the nearest is {nearest:.3f}"
            )
        for halving in range(HALVINGS):
            low, least = max((keep, cost) for keep, cost in self.known.items() if cost <= share)
            above = [(keep, cost) for keep, cost in self.known.items() if keep > low]
            high, most = min(above) if above else (1.0, self.at(1.0))
            if most <= share or share - least <= CLOSE * share or high - low < LEAST_STEP:
                break
            # where a line meets the share, and every third time in the middle, so that a bend does not hold it up
            part = (share - least) / (most - least) if halving % 3 < 2 else 0.5
            self.at(low + min(max(part, 0.02), 0.98) * (high - low))
        return self.family.at(max(keep for keep, cost in self.known.items() if cost <= share))


def at_macs(model: nn.Module, family: Family, share: float) -> BATConfig:
    """The most generous configuration of a family that costs no more than a share of the dense model's MACs.

    Args:
        model: a supported model; it is left alone.
        family: for this model.
        share: of the dense MACs, in (0, 1).

    Raises:
        OutOfReachError: if even the leanest costs more.
    """
    return Curve(model, family).within(share)


def at_time(
    model: nn.Module, family: Family, share: float, time_share: Callable[[BATConfig], float]
) -> tuple[BATConfig, float]:
    """The configuration of a family that takes a share of the dense model's time, within 1.5 % or as near as four tries come.

    Args:
        model, family, share: as in :func:`at_macs`, of time.
        time_share: measures a configuration: its time over that of the dense model, in one interleaved run.

    Returns:
        The configuration and its measured share of the time.

    Raises:
        OutOfReachError: if none comes near, naming the nearest.
    """
    wanted, found, curve = share, list[tuple[float, float, BATConfig]](), Curve(model, family)
    for _ in range(ATTEMPTS):
        try:
            config = curve.within(wanted)
        except OutOfReachError:
            # no further than the leanest
            config, wanted = family.at(LEAST_SHARE), 0.0
        found.append((wanted, time_share(config), config))
        cost, taken, _ = found[-1]
        if abs(taken - share) <= FITS * share or not wanted:
            break
        # the line through the last two; before that, as if each part of the MACs took its part of the time
        before = found[-2] if len(found) > 1 else (cost - 1, taken - 1, config)
        slope = (taken - before[1]) / (cost - before[0]) if cost != before[0] else 0.0
        # a slope that noise has turned around leads nowhere
        wanted = min(
            max(cost + (share - taken) / (slope if slope > 0.1 else 1.0), 2 * LEAST_SHARE),
            1 - LEAST_SHARE,
        )
    _, taken, config = min(found, key=lambda one: abs(one[1] - share))
    if abs(taken - share) > NEAR * share:
        raise OutOfReachError(
            f"{family.method} was not brought to {share:g} of the time of the dense model; nearest {taken:.3f}"
        )
    return config, taken
