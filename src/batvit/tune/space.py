"""The shapes of BAT that a search tries: configurations that are given tokens until they cost just so much."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from batvit.backbones.adapter import Anatomy
from batvit.config.config import BATConfig
from batvit.config.presets import GRADUAL

Cost = Callable[[BATConfig], float]
"""what a configuration costs, as a share of the dense model"""

HALVINGS = 20
NEIGHBOURS = (0, 2, 3, 5)
SIMILARITIES = ("tokens", "keys")
WEIGHTS = ("importance_size", "size", "importance")
DECAYS = (-0.5, 2.0)
# below it a power mean is the geometric mean, to rounding
GEOMETRIC = 1e-6


@dataclass(frozen=True)
class Candidate:
    """A configuration but for how many tokens it leaves: what is searched."""

    sites: int
    first: int
    """the first block that reduces"""
    last: int
    """the last one; the others lie evenly between"""
    decay: float
    """the power of the tokens that falls evenly from site to site: 1 their number, 0.5 the side of the square that they fill;
    at 0, as in the presets, each site keeps the same share"""
    centres: float
    pairs: float
    neighbours: int
    """0 for all"""
    similarity: str
    weight: str
    size_aware: bool

    @classmethod
    def suggest(cls, trial: Any, depth: int) -> "Candidate":
        """One that a trial of Optuna wants tried, for a model of ``depth`` blocks."""
        return cls(
            sites=trial.suggest_int("sites", 1, depth),
            first=trial.suggest_int("first", 0, (depth - 1) // 2),
            last=trial.suggest_int("last", depth // 2, depth - 1),
            decay=trial.suggest_float("decay", *DECAYS),
            centres=trial.suggest_float("centres", 0.05, 1.0),
            pairs=trial.suggest_float("pairs", 0.0, 0.4),
            neighbours=trial.suggest_categorical("neighbours", NEIGHBOURS),
            similarity=trial.suggest_categorical("similarity", SIMILARITIES),
            weight=trial.suggest_categorical("weight", WEIGHTS),
            size_aware=trial.suggest_categorical("size_aware", (True, False)),
        )

    @classmethod
    def draw(cls, chance: random.Random, depth: int) -> "Candidate":
        """Any one."""
        first, last = chance.randint(0, (depth - 1) // 2), chance.randint(depth // 2, depth - 1)
        decay, centres, pairs = (
            chance.uniform(*DECAYS),
            chance.uniform(0.05, 1.0),
            chance.choice((0.0, 0.1, 0.2, 0.4)),
        )
        kinds = (
            chance.choice(NEIGHBOURS),
            chance.choice(SIMILARITIES),
            chance.choice(WEIGHTS),
            chance.choice((True, False)),
        )
        return cls(chance.randint(1, depth), first, last, decay, centres, pairs, *kinds)

    def at(self, final: float, anatomy: Anatomy) -> BATConfig:
        """The configuration that leaves ``final`` tokens after the last site."""
        patches, span, steps = anatomy.patches, self.last - self.first, max(self.sites - 1, 1)
        blocks = sorted({round(self.first + span * i / steps) for i in range(self.sites)})
        tokens = [
            max(1, round(_mean(float(patches), final, (i + 1) / len(blocks), self.decay)))
            for i in range(len(blocks))
        ]
        fields = {
            name: value
            for name, value in asdict(self).items()
            if name not in ("sites", "first", "last", "decay")
        }
        fields |= {name: GRADUAL[name] for name in ("keep_norm", "size_power", "importance_power")}
        fields["neighbours"] = self.neighbours or None
        # a head that reads patches is given them all the same, and the cost must know
        fields["prefix_only"] = anatomy.reads_prefix_only
        return BATConfig(blocks=tuple(blocks), tokens=tuple(tokens), **fields)

    def within(self, budget: float, cost: Cost, anatomy: Anatomy) -> BATConfig | None:
        """The one that leaves most tokens within a budget; None if none does."""
        low, high, best = 1.0, float(anatomy.patches), None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            config = self.at(middle, anatomy)
            if cost(config) <= budget:
                low, best = middle, config
            else:
                high = middle
            if high - low < 0.5:
                break
        return best


def varied(anatomy: Anatomy, number: int) -> list[BATConfig]:
    """So many configurations that are unlike one another, always the same; the first reduces nothing but the last MLP."""
    chance = random.Random(0)
    whole = BATConfig(blocks=(0,), tokens=(anatomy.patches,), prefix_only=anatomy.reads_prefix_only)
    draws = (
        Candidate.draw(chance, anatomy.depth).at(chance.uniform(1, 0.8 * anatomy.patches), anatomy)
        for _ in range(number - 1)
    )
    return [whole, *draws]


def _mean(first: float, last: float, part: float, power: float) -> float:
    """The weighted power mean of two numbers above 0."""
    if abs(power) < GEOMETRIC:
        return float(first ** (1 - part) * last**part)
    return float(((1 - part) * first**power + part * last**power) ** (1 / power))


def least(cost: Cost, anatomy: Anatomy) -> float:
    """What the leanest configuration costs: one token from the first block on."""
    lean = Candidate(1, 0, anatomy.depth - 1, 1.0, 1.0, 0.0, 2, "tokens", "size", True)
    kinds = product(NEIGHBOURS, SIMILARITIES, (True, False))
    shapes = (
        replace(lean, neighbours=near, similarity=of, size_aware=aware) for near, of, aware in kinds
    )
    return min(cost(shape.at(1.0, anatomy)) for shape in shapes)
