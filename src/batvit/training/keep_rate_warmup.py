"""Fewer and fewer tokens: from all of them to what the reduction says, as EViT trains (Liang et al., ICLR 2022, section 4)."""

import math

from batvit.training.config import TrainConfig


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
