"""What a training loop needs of a reduction, so that it need not know any method.

Every reduction that :func:`batvit.patch` puts into a model carries one of these objects, by which
:func:`batvit.training.reduction.reduction_of` finds it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from batvit.backbones.registry import anatomy_of
from batvit.config import BATConfig
from batvit.module_copy import quiet_copy
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
        """Put a share of the reduction into a model.

        At each site it loses that share of the tokens that it loses at 1; at 0 it is dense.
        """
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
        twin = quiet_copy(model)
        try:
            return self.unpatch(twin)
        except TypeError as error:
            raise ValueError(
                "the model holds a reduced one; give the dense model to learn from as teacher"
            ) from error


def _partial(model: nn.Module, config: BATConfig, share: float) -> BATConfig:
    """Return the configuration that takes away a share of what ``config`` takes away."""
    anatomy = anatomy_of(model)
    patches = anatomy.patches
    scheduled = schedule(config, depth=anatomy.depth, patches=patches, prefix=anatomy.prefix)
    blocks = []
    tokens = []
    for counts in scheduled:
        blocks.append(counts.block)
        tokens.append(round(patches - share * (patches - counts.tokens_out)))
    fields: dict[str, Any] = {"blocks": tuple(blocks), "tokens": tuple(tokens)}
    if isinstance(config.pairs, int):
        if isinstance(config.centres, int) and config.centres == 0:
            # without clusters as many as are lost
            fields["pairs"] = 0.5
        else:
            # fewer than their share, as counts are rounded
            fields["pairs"] = max(0, int(share * config.pairs) - 1)
    if isinstance(config.centres, int):
        fields["centres"] = math.ceil(share * config.centres)
    return config.with_fields(**fields)
