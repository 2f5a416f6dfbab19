"""What a configuration of BAT costs, in MACs or in time: a model that is fitted to some, and says what all others cost."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.config.config import BATConfig
from batvit.measure.clock import in_turns, quartiles
from batvit.reduction.schedule import check_method, schedule
from batvit.storage.files import read_json, write_atomic

FEATURES = (
    *(
        "once",
        "attention, a token",
        "attention, a pair",
        "attention with sizes, a pair",
        "mlp, a token",
    ),
    *(
        "a site",
        "a site, a token",
        "clusters of tokens, a pair",
        "clusters of keys, a pair",
        "several neighbours, a pair",
    ),
    "attention received, a pair",
)

# what was measured in the course of a search says more of what is searched next: errors there are that much larger
NEAR = 3.0


class Sample(NamedTuple):
    """What one configuration costs, as it was counted or measured."""

    config: BATConfig
    share: float
    """of the dense model's cost"""
    part: int = 0
    """of the search, the first that knows it: 0 if it was measured before any"""


@dataclass(frozen=True)
class CostModel:
    """MACs or time, as a sum over blocks and sites of terms in the numbers of tokens, none negative."""

    depth: int
    patches: int
    prefix: int
    weights: tuple[float, ...]
    """one for each of ``FEATURES``, as shares of the dense model's cost"""
    received: bool = False
    """whether importance is the attention received from all tokens, as there is no class token"""

    def __call__(self, config: BATConfig) -> float:
        """As a share of the dense model's."""
        return float(
            np.dot(
                self.weights, features(config, self.depth, self.patches, self.prefix, self.received)
            )
        )

    @classmethod
    def fit(cls, model: nn.Module, samples: Sequence[Sample]) -> "CostModel":
        """To what some configurations cost, and the dense model; by relative error, tripled for what was measured in a search.

        Raises:
            ValueError: if there are fewer samples than ``FEATURES``.
        """
        if len(samples) < len(FEATURES):
            raise ValueError(
                f"a cost model needs {len(FEATURES)} configurations or more, got {len(samples)}"
            )
        anatomy = anatomy_of(model)
        configs, shares = (
            (None, *(each.config for each in samples)),
            np.array([1.0, *(each.share for each in samples)]),
        )
        counts = np.array([1.0, *(NEAR if each.part else 1.0 for each in samples)])
        known = (anatomy.depth, anatomy.patches, anatomy.prefix)
        table = np.array([features(config, *known, not anatomy.class_token) for config in configs])
        weights, _ = nnls(table * (counts / shares)[:, None], counts)
        return cls(*known, tuple(map(float, weights)), not anatomy.class_token)


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Keep what was measured on this machine."""
    rows = [sample._asdict() | {"config": sample.config.to_dict()} for sample in samples]
    write_atomic(path, json.dumps(rows, indent=2) + "\n")


def load_samples(path: Path) -> list[Sample]:
    """What :func:`save_samples` kept.

    Raises:
        ValueError: if it is damaged, naming the file.
    """
    kept = read_json(path)
    try:
        samples = [
            Sample(BATConfig.from_dict(row["config"]), float(row["share"]), int(row["part"]))
            for row in kept
        ]
        for sample in samples:
            check_method(sample.config.method)
        if not samples or not all(0 < sample.share < math.inf for sample in samples):
            raise ValueError("there must be shares, finite and above 0")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not what configurations cost ({error}); remove it, and they are timed again"
        ) from error
    return samples


def features(
    config: BATConfig | None, depth: int, patches: int, prefix: int, received: bool = False
) -> list[float]:
    """The terms of a configuration's cost, or of the dense model's, in the order of ``FEATURES``: each near 1 at most.

    Attention that knows the sizes of tokens runs in another kernel than attention that does not; keys are narrower than
    tokens; and a density over more than the nearest token, but not all, takes a selection.
    """
    sites = (
        {}
        if config is None
        else {c.block: c for c in schedule(config, depth=depth, patches=patches, prefix=prefix)}
    )
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
            found["attention received, a pair"] += received * share**2
            clustered = ((counts.tokens_in - counts.attentive) / patches) ** 2
            matched = (counts.attentive / patches / 2) ** 2 if counts.pairs else 0.0
            found[f"clusters of {config.similarity}, a pair"] += clustered + matched
            if config.neighbours not in (None, 2):
                found["several neighbours, a pair"] += clustered
            image, sized = counts.tokens_out, config.size_aware
        found["mlp, a token"] += (prefix if ends and block == depth - 1 else image + prefix) / whole
    return [value / depth for value in found.values()]


def counted(dense: nn.Module, configs: Sequence[BATConfig]) -> list[Sample]:
    """Count the MACs of some configurations; those of all others follow, but for rounding."""
    whole = macs_of(dense, None)
    return [Sample(config, macs_of(dense, config) / whole) for config in configs]


@torch.inference_mode()
def timed(
    dense: nn.Module,
    configs: Sequence[BATConfig],
    images: Tensor,
    *,
    rounds: int = 7,
    part: int = 0,
) -> list[Sample]:
    """Time whole models in turns with the dense one.

    Args:
        dense: a supported model.
        configs: what it is reduced by.
        images: (B, 3, H, W), on the model's device and in its precision.
        rounds: measurements of each.
        part: of the search, which is to begin with this.
    """
    models = [dense, *(reduced_copy(dense, config) for config in configs)]
    times = in_turns(
        [partial(model.eval(), images) for model in models], images, rounds=rounds, warmup=1
    )
    # each round on its own, as the machine may slow down from round to round
    ratios = [
        quartiles([own / base for own, base in zip(found, times[0], strict=True)])[1]
        for found in times[1:]
    ]
    return [Sample(config, ratio, part) for config, ratio in zip(configs, ratios, strict=True)]
