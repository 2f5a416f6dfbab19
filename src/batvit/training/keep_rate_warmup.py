"""Fewer and fewer tokens: from all of them to what the reduction says, as EViT trains.

Liang et al., ICLR 2022, section 4.
"""

import math
from collections.abc import Sequence

from torch import nn

from batvit.training.config import TrainConfig
from batvit.training.reduction import Reduction


def share_of(config: TrainConfig, epochs: float) -> float:
    """Return how much of the reduction is in place after so many epochs: 0 to 1.

    It rises along a cosine, in ``keep_warmup_steps`` steps on the way.
    """
    if epochs < config.keep_warmup_start:
        return 0.0
    if epochs >= config.keep_warmup_start + config.keep_warmup_epochs:
        return 1.0
    way = (epochs - config.keep_warmup_start) / config.keep_warmup_epochs
    risen = (1 - math.cos(math.pi * way)) / 2
    steps = config.keep_warmup_steps + 1
    return math.floor(risen * steps) / steps


def shares(config: TrainConfig) -> list[float]:
    """Return all values of :func:`share_of`, rising."""
    if not config.warms_up_keep_rate:
        return [1.0]
    steps = config.keep_warmup_steps + 1 if config.keep_warmup_epochs else 1
    return [step / steps for step in range(steps + 1)]


class KeepRateWarmup:
    """The share of its reduction that a model has by now, with its copies such as an average.

    Args:
        reduction: of the models, which come with the whole of it; None where there is none, and
            nothing to be done.
        models: changed in place.
    """

    def __init__(self, reduction: Reduction | None, models: Sequence[nn.Module]) -> None:
        self.reduction = reduction
        self.models = models
        self.share = 1.0

    def set_share(self, share: float) -> None:
        """Put a share of the reduction into every model, in [0, 1]; each stays in its mode."""
        if self.reduction is None or share == self.share:
            return
        for model in self.models:
            training = model.training
            self.reduction.set_share(model, share)
            model.train(training)
        self.share = share
