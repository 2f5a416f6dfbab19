"""What a configuration costs, in MACs or in time, predicted by a model fitted to a few of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from batvit.backbones.patch import reduced_copy
from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.checks import installed
from batvit.config import BATConfig
from batvit.measure.clock import all_steady, in_turns, speedup
from batvit.plans.plan import Counts
from batvit.reduction.schedule import check_method, schedule
from batvit.storage.files import read_json, write_atomic

FEATURES = (
    "once",
    "attention, a token",
    "attention, a pair",
    "attention with sizes, a pair",
    "mlp, a token",
    "a site",
    "a site, a token",
    "clusters of tokens, a pair",
    "clusters of keys, a pair",
    "several neighbours, a pair",
    "attention received, a pair",
)
"""the terms of a cost"""

# how much more an error weighs where the search has been: what is searched next is like that
SEARCHED_WEIGHT = 3.0


class Sample(NamedTuple):
    """What one configuration costs, as it was counted or measured."""

    config: BATConfig
    share: float
    """of the dense model's cost"""
    part: int = 0
    """the first part of the search that knows it; 0 if it was measured before any"""


@dataclass(frozen=True)
class CostModel:
    """MACs or time, as a sum over blocks and sites of terms in the numbers of tokens.

    No term is negative.
    """

    depth: int
    patches: int
    prefix: int
    weights: tuple[float, ...]
    """one for each of ``FEATURES``, as shares of the dense model's cost"""
    received: bool = False
    """whether importance is the attention received from all tokens, without a class token"""

    def __call__(self, config: BATConfig) -> float:
        """Return the cost as a share of the dense model's."""
        terms = features(config, self.depth, self.patches, self.prefix, self.received)
        return float(np.dot(self.weights, terms))

    @classmethod
    def fit(cls, model: nn.Module, samples: Sequence[Sample]) -> "CostModel":
        """Fit the cost of some configurations and of the dense model, by relative error.

        Errors weigh three times as much for what was measured after a part of a search.

        Raises:
            ValueError: if there are fewer samples than ``FEATURES``.
        """
        if len(samples) < len(FEATURES):
            raise ValueError(
                f"a cost model needs {len(FEATURES)} configurations or more, got {len(samples)}"
            )
        anatomy = anatomy_of(model)
        size = (anatomy.depth, anatomy.patches, anatomy.prefix)
        received = not anatomy.class_token
        # the dense model comes first
        terms = [features(None, *size, received)]
        shares = [1.0]
        importance = [1.0]
        for sample in samples:
            terms.append(features(sample.config, *size, received))
            shares.append(sample.share)
            importance.append(SEARCHED_WEIGHT if sample.part else 1.0)
        wanted = np.array(importance)
        scale = wanted / np.array(shares)
        weights, _ = installed("scipy.optimize").nnls(np.array(terms) * scale[:, None], wanted)
        return cls(*size, tuple(float(weight) for weight in weights), received)


def save_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Keep what was measured on this machine."""
    rows = []
    for sample in samples:
        rows.append({"config": sample.config.to_dict(), "share": sample.share, "part": sample.part})
    write_atomic(path, json.dumps(rows, indent=2) + "\n")


def load_samples(path: Path) -> list[Sample]:
    """Read what :func:`save_samples` kept.

    Raises:
        ValueError: if it is damaged, naming the file.
    """
    rows = read_json(path)
    try:
        samples = [_sample_from(row) for row in rows]
        if not samples:
            raise ValueError("there is none")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not what configurations cost ({error}); remove it, and they are timed again"
        ) from error
    return samples


def features(
    config: BATConfig | None, depth: int, patches: int, prefix: int, received: bool = False
) -> list[float]:
    """Return the terms of a cost in the order of ``FEATURES``; each is near 1 at most.

    Attention that knows the sizes of tokens runs in another kernel than attention that does not,
    keys are narrower than tokens, and a density over some neighbours, more than the nearest but not
    all, takes a selection.

    Args:
        config: None for the dense model.
        depth: number of blocks.
        patches: image tokens at the first block.
        prefix: tokens before them.
        received: whether importance is the attention received from all tokens.
    """
    sites = {} if config is None else _sites(config, depth, patches, prefix)
    prefix_only = config is not None and config.prefix_only
    terms = dict.fromkeys(FEATURES, 0.0)
    terms["once"] = depth
    image = patches
    with_sizes = False
    for block in range(depth):
        share = (image + prefix) / (patches + prefix)
        terms["attention, a token"] += share
        if with_sizes:
            terms["attention with sizes, a pair"] += share**2
        else:
            terms["attention, a pair"] += share**2
        if config is not None and block in sites:
            for name, value in _site_terms(config, sites[block], patches, share).items():
                terms[name] += value
            if received:
                terms["attention received, a pair"] += share**2
            image = sites[block].tokens_out
            with_sizes = config.size_aware
        is_last = block == depth - 1
        in_mlp = prefix if prefix_only and is_last else image + prefix
        terms["mlp, a token"] += in_mlp / (patches + prefix)
    return [value / depth for value in terms.values()]


def count_samples(dense: nn.Module, configs: Sequence[BATConfig]) -> list[Sample]:
    """Count the MACs of some configurations; those of all others follow, but for rounding."""
    dense_macs = macs_of(dense, None)
    return [Sample(config, macs_of(dense, config) / dense_macs) for config in configs]


@torch.inference_mode()
def time_samples(
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
        rounds: measurements of each; up to three times as many where times spread too much.
        part: of the search, which is to begin with this.
    """
    models = [dense]
    models += [reduced_copy(dense, config) for config in configs]
    runs = [partial(model.eval(), images) for model in models]
    times = in_turns(runs, images, rounds=rounds, warmup=1, enough=all_steady)
    samples = []
    for config, reduced_times in zip(configs, times[1:], strict=True):
        share = 1 / speedup(times[0], reduced_times).median
        samples.append(Sample(config, share, part))
    return samples


def _sample_from(row: Any) -> Sample:
    config = BATConfig.from_dict(row["config"])
    check_method(config.method)
    share = float(row["share"])
    if not 0 < share < math.inf:
        raise ValueError(f"a share must be finite and above 0, got {share}")
    return Sample(config, share, int(row["part"]))


def _sites(config: BATConfig, depth: int, patches: int, prefix: int) -> dict[int, Counts]:
    """Return the counts of each block in which the number of tokens falls."""
    sites = {}
    for counts in schedule(config, depth=depth, patches=patches, prefix=prefix):
        # in the last block nobody reads what a site makes, so it is not run
        unread = config.prefix_only and counts.block == depth - 1
        if counts.tokens_out < counts.tokens_in and not unread:
            sites[counts.block] = counts
    return sites


def _site_terms(config: BATConfig, counts: Counts, patches: int, share: float) -> dict[str, float]:
    """Return the terms of one site, with the share of the tokens that comes in."""
    clustered = ((counts.tokens_in - counts.attentive) / patches) ** 2
    matched = 0.0
    if counts.pairs:
        matched = (counts.attentive / patches / 2) ** 2
    terms = {
        "a site": 1.0,
        "a site, a token": share,
        f"clusters of {config.similarity}, a pair": clustered + matched,
    }
    if config.neighbours not in (None, 2):
        terms["several neighbours, a pair"] = clustered
    return terms
