"""Fewer and fewer tokens: from all of them to what a reduction says, as EViT trains (Liang et al., ICLR 2022, section 4)."""

import math
from collections.abc import Callable

from torch import nn

from batvit.backbones.patch import anatomy_of, patch, unpatch
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


def reducer(config: BATConfig) -> Reduce:
    """Put any share of a reduction into a model: at each site it loses that share of the tokens it will lose in the end."""

    def reduce(model: nn.Module, share: float) -> None:
        if share == 0:
            unpatch(model)
        else:
            patch(model, config if share == 1 else _partly(model, config, share))

    return reduce


def _partly(model: nn.Module, config: BATConfig, share: float) -> BATConfig:
    anatomy = anatomy_of(model)
    counts = config.schedule(depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix)
    tokens = tuple(round(anatomy.patches - share * (anatomy.patches - each.tokens_out)) for each in counts)
    return config.with_fields(tokens=tokens, blocks=tuple(each.block for each in counts))
