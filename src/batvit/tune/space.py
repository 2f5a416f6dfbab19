"""What a search tries: configurations of BAT that are given tokens until they use up a budget."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from batvit.backbones.adapter import Anatomy
from batvit.config import BATConfig
from batvit.config.presets import GRADUAL

Cost = Callable[[BATConfig], float]
"""what a configuration costs, as a share of the dense model"""

HALVINGS = 20
NEIGHBOURS = (0, 2, 3, 5)
SIMILARITIES = ("tokens", "keys")
WEIGHTS = ("importance_size", "size", "importance")
SIZE_AWARE = (True, False)
DECAYS = (-0.5, 2.0)
CENTRES = (0.05, 1.0)
PAIRS = (0.0, 0.4)
# of the configurations to which a cost is fitted
DRAWN_PAIRS = (0.0, 0.1, 0.2, 0.4)
# fields that are not searched
FIXED: dict[str, Any] = {
    name: GRADUAL[name] for name in ("keep_norm", "size_power", "importance_power")
}
# below it a power mean is the geometric mean, to rounding
GEOMETRIC = 1e-6


@dataclass(frozen=True)
class Candidate:
    """A configuration but for the number of tokens that it leaves: a point of the search space."""

    sites: int
    first: int
    """the first block that reduces"""
    last: int
    """the last one; the others lie evenly between"""
    decay: float
    """the power of the number of tokens that falls evenly from site to site: 1 the number itself,
    0.5 the side of the square that they fill; at 0, as in the presets, each site keeps the same
    share"""
    centres: float
    pairs: float
    neighbours: int
    """0 for all"""
    similarity: str
    weight: str
    size_aware: bool

    @classmethod
    def suggest(cls, trial: Any, depth: int) -> "Candidate":
        """Return what a trial of Optuna wants tried, for a model of ``depth`` blocks."""
        return cls(
            sites=trial.suggest_int("sites", *_sites(depth)),
            first=trial.suggest_int("first", *_first_blocks(depth)),
            last=trial.suggest_int("last", *_last_blocks(depth)),
            decay=trial.suggest_float("decay", *DECAYS),
            centres=trial.suggest_float("centres", *CENTRES),
            pairs=trial.suggest_float("pairs", *PAIRS),
            neighbours=trial.suggest_categorical("neighbours", NEIGHBOURS),
            similarity=trial.suggest_categorical("similarity", SIMILARITIES),
            weight=trial.suggest_categorical("weight", WEIGHTS),
            size_aware=trial.suggest_categorical("size_aware", SIZE_AWARE),
        )

    @classmethod
    def draw(cls, chance: random.Random, depth: int) -> "Candidate":
        """Return a random one, for a model of ``depth`` blocks."""
        return cls(
            first=chance.randint(*_first_blocks(depth)),
            last=chance.randint(*_last_blocks(depth)),
            decay=chance.uniform(*DECAYS),
            centres=chance.uniform(*CENTRES),
            pairs=chance.choice(DRAWN_PAIRS),
            neighbours=chance.choice(NEIGHBOURS),
            similarity=chance.choice(SIMILARITIES),
            weight=chance.choice(WEIGHTS),
            size_aware=chance.choice(SIZE_AWARE),
            sites=chance.randint(*_sites(depth)),
        )

    def at(self, final: float, anatomy: Anatomy) -> BATConfig:
        """Return the configuration that leaves ``final`` tokens after the last site."""
        blocks = self._blocks()
        tokens = []
        for site in range(1, len(blocks) + 1):
            part = site / len(blocks)
            left = _power_mean(float(anatomy.patches), final, part, self.decay)
            tokens.append(max(1, round(left)))
        return BATConfig(
            blocks=blocks,
            tokens=tuple(tokens),
            centres=self.centres,
            pairs=self.pairs,
            neighbours=self.neighbours or None,
            similarity=self.similarity,
            weight=self.weight,
            size_aware=self.size_aware,
            # a head that reads patches is given them all the same, and the cost must know
            prefix_only=anatomy.reads_prefix_only,
            **FIXED,
        )

    def within(self, budget: float, cost: Cost, anatomy: Anatomy) -> BATConfig | None:
        """Return the configuration that leaves most tokens within a budget; None if none does."""
        low = 1.0
        high = float(anatomy.patches)
        best = None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            config = self.at(middle, anatomy)
            if cost(config) <= budget:
                low = middle
                best = config
            else:
                high = middle
            if high - low < 0.5:
                break
        return best

    def _blocks(self) -> tuple[int, ...]:
        """Return the blocks that reduce; of sites that fall together there is one."""
        span = self.last - self.first
        steps = max(self.sites - 1, 1)
        blocks = {round(self.first + span * site / steps) for site in range(self.sites)}
        return tuple(sorted(blocks))


def varied_configs(anatomy: Anatomy, number: int) -> list[BATConfig]:
    """Return configurations that are unlike one another, always the same ones.

    The first reduces nothing but the last MLP.
    """
    chance = random.Random(0)  # noqa: S311 - no secret
    configs = [
        BATConfig(blocks=(0,), tokens=(anatomy.patches,), prefix_only=anatomy.reads_prefix_only)
    ]
    while len(configs) < number:
        candidate = Candidate.draw(chance, anatomy.depth)
        final = chance.uniform(1, 0.8 * anatomy.patches)
        configs.append(candidate.at(final, anatomy))
    return configs


def least_cost(cost: Cost, anatomy: Anatomy) -> float:
    """Return what the leanest configuration costs: one token from the first block on."""
    lean = Candidate(
        sites=1,
        first=0,
        last=anatomy.depth - 1,
        decay=1.0,
        centres=1.0,
        pairs=0.0,
        neighbours=2,
        similarity="tokens",
        weight="size",
        size_aware=True,
    )
    costs = []
    for neighbours, similarity, size_aware in product(NEIGHBOURS, SIMILARITIES, SIZE_AWARE):
        candidate = replace(
            lean, neighbours=neighbours, similarity=similarity, size_aware=size_aware
        )
        costs.append(cost(candidate.at(1.0, anatomy)))
    return min(costs)


def _sites(depth: int) -> tuple[int, int]:
    """Return the fewest and the most sites that are tried."""
    return 1, depth


def _first_blocks(depth: int) -> tuple[int, int]:
    """Return the limits of the first block that reduces: it lies in the first half."""
    return 0, (depth - 1) // 2


def _last_blocks(depth: int) -> tuple[int, int]:
    """Return the limits of the last block that reduces: it lies in the second half."""
    return depth // 2, depth - 1


def _power_mean(first: float, last: float, part: float, power: float) -> float:
    """Return the weighted power mean of two numbers above 0; ``part`` is the last one's weight."""
    if abs(power) < GEOMETRIC:
        return float(first ** (1 - part) * last**part)
    return float(((1 - part) * first**power + part * last**power) ** (1 / power))
