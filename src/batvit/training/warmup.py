"""What training knows of a reduction, and fewer and fewer tokens: from all of them to what it says, as EViT trains.

Liang et al., ICLR 2022, section 4.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.patch import anatomy_of, config_of, patch, unpatch
from batvit.config import BATConfig
from batvit.training.config import TrainConfig

Reduce = Callable[[nn.Module, float], None]
"""puts a share of the reduction in place: 0 is the dense model, 1 the whole reduction"""


def share_of(config: TrainConfig, epochs: float) -> float:
    """How much of the reduction is in place after so many epochs: along a cosine, in a few steps."""
    if epochs < config.keep_warmup_start:
        return 0.0
    if epochs >= config.keep_warmup_start + config.keep_warmup_epochs:
        return 1.0
    way = (epochs - config.keep_warmup_start) / config.keep_warmup_epochs
    steps = config.keep_warmup_steps + 1
    return math.floor((1 - math.cos(math.pi * way)) / 2 * steps) / steps


def shares(config: TrainConfig) -> list[float]:
    """All that :func:`share_of` gives, rising."""
    if not config.keep_warmup_start + config.keep_warmup_epochs:
        return [1.0]
    steps = config.keep_warmup_steps + 1 if config.keep_warmup_epochs else 1
    return [step / steps for step in range(steps + 1)]


def reducer(config: BATConfig) -> Reduce:
    """Put any share of a reduction into a model: at each site it loses that share of the tokens it will lose in the end."""

    def reduce(model: nn.Module, share: float) -> None:
        if share == 0:
            unpatch(model)
        else:
            patch(model, config if share == 1 else _partly(model, config, share))

    return reduce


def told_of(model: nn.Module) -> dict[str, Any]:
    """What tells a model from another, in plain values: its reduction, whole, and the number of its parameters."""
    config = config_of(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    return {"config": None if config is None else config.to_dict(), "param_count": count}


def defaults() -> dict[str, Any]:
    """Every field that :func:`told_of` tells of a reduction, as it is by default."""
    return BATConfig().to_dict()


def save_beside(model: nn.Module, weights: Path) -> None:
    """Write the reduction of a model, if it has one, beside its weights."""
    config = config_of(model)
    if config is not None:
        config.save(BATConfig.path_beside(weights))


def dense_copy(model: nn.Module, reduce: Reduce | None) -> nn.Module:
    """A copy of a model without its reduction, which ``reduce`` takes away if it is given."""
    twin = copy.deepcopy(model)
    if reduce is not None:
        reduce(twin, 0.0)
    elif config_of(twin) is not None:
        try:
            unpatch(twin)
        except TypeError as error:
            raise ValueError("the model holds a reduced one; give the dense model to learn from as teacher") from error
    return twin


def _partly(model: nn.Module, config: BATConfig, share: float) -> BATConfig:
    anatomy = anatomy_of(model)
    counts = config.schedule(depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix)
    tokens = tuple(round(anatomy.patches - share * (anatomy.patches - each.tokens_out)) for each in counts)
    fewer = dict[str, float]()
    if isinstance(config.pairs, int):
        # fewer than their share, as counts are rounded; without clusters as many as are lost
        alone = isinstance(config.centres, int) and config.centres == 0
        fewer["pairs"] = 0.5 if alone else max(0, int(share * config.pairs) - 1)
    if isinstance(config.centres, int):
        fewer["centres"] = math.ceil(share * config.centres)
    return config.with_fields(tokens=tokens, blocks=tuple(each.block for each in counts), **fewer)
