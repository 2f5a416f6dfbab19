"""What a training loop is told of a reduction, so that it need not know any method.

Every reduction that :func:`batvit.patch` puts into a model carries one of these objects, by which
:func:`batvit.training.reduction.reduction_of` finds it.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.registry import anatomy_of
from batvit.config.config import BATConfig
from batvit.reduction.schedule import schedule


@dataclass(frozen=True)
class DuringTraining:
    """A reduction whose share can be set, that can be described, saved, and taken away.

    See :class:`batvit.training.reduction.Reduction`, which this is one of.
    """

    config: BATConfig
    patch: Callable[[nn.Module, BATConfig], nn.Module]
    """:func:`batvit.patch`; given, because that file imports this one"""
    unpatch: Callable[[nn.Module], nn.Module]

    def set_share(self, model: nn.Module, share: float) -> None:
        """Put a share of the reduction into a model: at each site it loses that share of the tokens it will lose at 1."""
        if share == 0:
            self.unpatch(model)
        elif share == 1:
            self.patch(model, self.config)
        else:
            self.patch(model, _partial(model, self.config, share))

    def describe(self) -> dict[str, Any]:
        """Return the whole reduction in plain values."""
        return self.config.to_dict()

    def defaults(self) -> dict[str, Any]:
        """Return every value of :meth:`describe` as it is by default."""
        return BATConfig().to_dict()

    def save_beside(self, weights: Path) -> None:
        """Write the reduction beside weights, where commands look for it."""
        self.config.save(BATConfig.path_beside(weights))

    def dense_copy(self, model: nn.Module) -> nn.Module:
        """Return a copy of a model without its reduction.

        Raises:
            ValueError: if the model only holds one that is reduced.
        """
        twin = copy.deepcopy(model)
        try:
            return self.unpatch(twin)
        except TypeError as error:
            raise ValueError(
                "the model holds a reduced one; give the dense model to learn from as teacher"
            ) from error


def _partial(model: nn.Module, config: BATConfig, share: float) -> BATConfig:
    """The configuration that takes a share of the tokens away which ``config`` takes away."""
    anatomy = anatomy_of(model)
    counts = schedule(config, depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix)
    tokens = tuple(
        round(anatomy.patches - share * (anatomy.patches - each.tokens_out)) for each in counts
    )
    fewer: dict[str, float] = {}
    if isinstance(config.pairs, int):
        # fewer than their share, as counts are rounded; without clusters as many as are lost
        only_pairs = isinstance(config.centres, int) and config.centres == 0
        fewer["pairs"] = 0.5 if only_pairs else max(0, int(share * config.pairs) - 1)
    if isinstance(config.centres, int):
        fewer["centres"] = math.ceil(share * config.centres)
    return config.with_fields(tokens=tokens, blocks=tuple(each.block for each in counts), **fewer)
