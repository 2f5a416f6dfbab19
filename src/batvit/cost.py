"""What a configuration of BAT costs, in MACs or in time: a model of blocks and sites, fitted to a few configurations."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from batvit.backbones.patch import anatomy_of, reduced_copy
from batvit.budget import macs_of
from batvit.config import BATConfig
from batvit.files import read_json, write_atomic
from batvit.timing import in_turns, quartiles

Cost = Callable[[BATConfig], float]
"""what a configuration costs, as a share of the dense model"""

FEATURES = ("once", "attention, a token", "attention, a pair", "mlp, a token", "a site", "a site, a token", "a site, a pair")


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
    """The terms of a configuration's time, or of the dense model's: each a number near 1 at most."""
    sites = {} if config is None else {c.block: c for c in config.schedule(depth=depth, patches=patches, prefix=prefix)}
    whole, image = patches + prefix, patches
    attention = pairs = mlp = site = at_site = site_pairs = 0.0
    for block in range(depth):
        share = (image + prefix) / whole
        attention, pairs = attention + share / depth, pairs + share**2 / depth
        counts = sites.get(block)
        if counts is not None and counts.tokens_out < counts.tokens_in:
            site, at_site = site + 1 / depth, at_site + share / depth
            clustered = (counts.tokens_in - counts.attentive) / patches
            site_pairs += (clustered**2 + (counts.attentive / patches / 2) ** 2) / depth
            image = counts.tokens_out
        mlp += (image + prefix) / whole / depth
    return [1.0, attention, pairs, mlp, site, at_site, site_pairs]


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
