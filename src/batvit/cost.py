"""What a configuration of BAT costs, in MACs or in time, and the shapes that are given tokens until they cost just so much."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from batvit.backbones.anatomy import Anatomy
from batvit.backbones.patch import anatomy_of, reduced_copy
from batvit.budget import macs_of
from batvit.config import BATConfig
from batvit.files import read_json, write_atomic
from batvit.presets import GRADUAL
from batvit.timing import in_turns, quartiles

Cost = Callable[[BATConfig], float]
"""what a configuration costs, as a share of the dense model"""

FEATURES = (
    *("once", "attention, a token", "attention, a pair", "attention with sizes, a pair", "mlp, a token"),
    *("a site", "a site, a token", "clusters of tokens, a pair", "clusters of keys, a pair", "several neighbours, a pair"),
)

HALVINGS = 20
NEIGHBOURS = (0, 2, 3, 5)
SIMILARITIES = ("tokens", "keys")
WEIGHTS = ("importance_size", "size", "importance")


@dataclass(frozen=True)
class CostModel:
    """MACs or time, as a sum over blocks and sites of terms in the numbers of tokens, none negative."""

    depth: int
    patches: int
    prefix: int
    weights: tuple[float, ...]
    """one for each of ``FEATURES``, as shares of the dense model's cost"""

    def __call__(self, config: BATConfig) -> float:
        """As a share of the dense model's."""
        return float(np.dot(self.weights, features(config, self.depth, self.patches, self.prefix)))

    def save(self, path: Path) -> None:
        """Keep it for this machine."""
        write_atomic(path, json.dumps(dict(zip(FEATURES, self.weights, strict=True)), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path, model: nn.Module) -> "CostModel":
        """What :meth:`save` kept, for the same model."""
        anatomy, kept = anatomy_of(model), read_json(path)
        try:
            weights = tuple(float(kept[name]) for name in FEATURES)
            if not all(0 <= weight < math.inf for weight in weights):
                raise ValueError("its weights must be finite, and none negative")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a cost model ({error}); remove it, and it is fitted again") from error
        return cls(anatomy.depth, anatomy.patches, anatomy.prefix, weights)

    @classmethod
    def fit(cls, model: nn.Module, configs: Sequence[BATConfig], costs: Sequence[float]) -> "CostModel":
        """To what the dense model, and then each configuration, costs, in any unit; by relative error.

        Raises:
            ValueError: if there are fewer configurations than ``FEATURES``.
        """
        if len(configs) < len(FEATURES):
            raise ValueError(f"a cost model needs {len(FEATURES)} configurations or more, got {len(configs)}")
        anatomy, shares = anatomy_of(model), np.array(costs) / costs[0]
        table = np.array([features(each, anatomy.depth, anatomy.patches, anatomy.prefix) for each in (None, *configs)])
        weights, _ = nnls(table / shares[:, None], np.ones(len(shares)))
        return cls(anatomy.depth, anatomy.patches, anatomy.prefix, tuple(map(float, weights)))


def features(config: BATConfig | None, depth: int, patches: int, prefix: int) -> list[float]:
    """The terms of a configuration's cost, or of the dense model's, in the order of ``FEATURES``: each near 1 at most.

    Attention that knows the sizes of tokens runs in another kernel than attention that does not; keys are narrower than
    tokens; and a density over more than the nearest token, but not all, takes a selection.
    """
    sites = {} if config is None else {c.block: c for c in config.schedule(depth=depth, patches=patches, prefix=prefix)}
    ends = config is not None and config.prefix_only
    if ends:
        # nobody reads what a site in the last block makes, so it is not run
        sites.pop(depth - 1, None)
    found, whole, image, sized = dict.fromkeys(FEATURES, 0.0), patches + prefix, patches, False
    found["once"] = depth
    for block in range(depth):
        share, counts = (image + prefix) / whole, sites.get(block)
        found["attention, a token"] += share
        found["attention with sizes, a pair" if sized else "attention, a pair"] += share**2
        if config is not None and counts is not None and counts.tokens_out < counts.tokens_in:
            found["a site"] += 1
            found["a site, a token"] += share
            clustered = ((counts.tokens_in - counts.attentive) / patches) ** 2
            matched = (counts.attentive / patches / 2) ** 2 if counts.pairs else 0.0
            found[f"clusters of {config.similarity}, a pair"] += clustered + matched
            if config.neighbours not in (None, 2):
                found["several neighbours, a pair"] += clustered
            image, sized = counts.tokens_out, config.size_aware
        found["mlp, a token"] += (prefix if ends and block == depth - 1 else image + prefix) / whole
    return [value / depth for value in found.values()]


def fit_macs(dense: nn.Module, configs: Sequence[BATConfig]) -> CostModel:
    """Count the MACs of some configurations; those of all others follow, but for rounding."""
    return CostModel.fit(dense, configs, [float(macs_of(dense, config)) for config in (None, *configs)])


@torch.inference_mode()
def fit_time(dense: nn.Module, configs: Sequence[BATConfig], images: Tensor, *, rounds: int = 7) -> CostModel:
    """Time whole models in turns with the dense one.

    Args:
        dense: a supported model.
        configs: at least as many as ``FEATURES``, and varied.
        images: (B, 3, H, W), on the model's device and in its precision.
        rounds: measurements of each.
    """
    models = [dense, *(reduced_copy(dense, config) for config in configs)]
    times = in_turns([partial(model.eval(), images) for model in models], images, rounds=rounds, warmup=1)
    # each round on its own, as the machine may slow down from round to round
    ratios = [quartiles([own / base for own, base in zip(found, times[0], strict=True)])[1] for found in times]
    return CostModel.fit(dense, configs, ratios)


@dataclass(frozen=True)
class Shape:
    """A configuration but for how many tokens it leaves: what is searched."""

    sites: int
    first: int
    """the first block that reduces"""
    last: int
    """the last one; the others lie evenly between"""
    curve: float
    """tokens fall evenly from site to site at 1, early below, late above"""
    centres: float
    pairs: float
    neighbours: int
    """0 for all"""
    similarity: str
    weight: str
    size_aware: bool

    @classmethod
    def suggest(cls, trial: Any, depth: int) -> "Shape":
        """One that a trial of Optuna wants tried, for a model of ``depth`` blocks."""
        return cls(
            sites=trial.suggest_int("sites", 1, depth),
            first=trial.suggest_int("first", 0, (depth - 1) // 2),
            last=trial.suggest_int("last", depth // 2, depth - 1),
            curve=trial.suggest_float("curve", 0.4, 1.6),
            centres=trial.suggest_float("centres", 0.05, 1.0),
            pairs=trial.suggest_float("pairs", 0.0, 0.4),
            neighbours=trial.suggest_categorical("neighbours", NEIGHBOURS),
            similarity=trial.suggest_categorical("similarity", SIMILARITIES),
            weight=trial.suggest_categorical("weight", WEIGHTS),
            size_aware=trial.suggest_categorical("size_aware", (True, False)),
        )

    @classmethod
    def draw(cls, chance: random.Random, depth: int) -> "Shape":
        """Any one."""
        first, last = chance.randint(0, (depth - 1) // 2), chance.randint(depth // 2, depth - 1)
        curve, centres, pairs = chance.uniform(0.4, 1.6), chance.uniform(0.05, 1.0), chance.choice((0.0, 0.1, 0.2, 0.4))
        kinds = (chance.choice(NEIGHBOURS), chance.choice(SIMILARITIES), chance.choice(WEIGHTS), chance.choice((True, False)))
        return cls(chance.randint(1, depth), first, last, curve, centres, pairs, *kinds)

    def at(self, final: float, anatomy: Anatomy) -> BATConfig:
        """The configuration that leaves ``final`` tokens after the last site."""
        patches, span, steps = anatomy.patches, self.last - self.first, max(self.sites - 1, 1)
        blocks = sorted({round(self.first + span * i / steps) for i in range(self.sites)})
        falls = [((i + 1) / len(blocks)) ** self.curve for i in range(len(blocks))]
        tokens = [max(1, round(patches - (patches - final) * fall)) for fall in falls]
        fields = {name: value for name, value in asdict(self).items() if name not in ("sites", "first", "last", "curve")}
        fields |= {name: GRADUAL[name] for name in ("keep_norm", "size_power")} | {"neighbours": self.neighbours or None}
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
    """So many configurations that are unlike one another, always the same."""
    chance = random.Random(0)  # noqa: S311 - no secret
    return [Shape.draw(chance, anatomy.depth).at(chance.uniform(1, 0.8 * anatomy.patches), anatomy) for _ in range(number)]


def least(cost: Cost, anatomy: Anatomy) -> float:
    """What the leanest configuration costs: one token from the first block on."""
    lean = Shape(1, 0, anatomy.depth - 1, 1.0, 1.0, 0.0, 2, "tokens", "size", True)
    kinds = product(NEIGHBOURS, SIMILARITIES, (True, False))
    shapes = (replace(lean, neighbours=near, similarity=of, size_aware=aware) for near, of, aware in kinds)
    return min(cost(shape.at(1.0, anatomy)) for shape in shapes)
