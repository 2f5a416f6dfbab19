"""The counts at a site, as a constant of a compiled graph."""

import json

import torch

from batvit.config import BATConfig
from batvit.plans.plan import Counts
from batvit.reduction.schedule import schedule


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def frozen_counts(config: str, block: int, depth: int, patches: int, prefix: int) -> Counts | str:
    """Return the counts at a site, or why there are none.

    To a graph the result is a constant, and with other arguments it is compiled anew: traced, shares would become symbols.
    Plain values go in, as a graph takes no others for constants.

    Args:
        config: a :class:`BATConfig` as JSON.
        block: of the site, from 0.
        depth, patches, prefix: of the model; see :func:`schedule`.
    """
    try:
        sites = schedule(
            BATConfig.from_dict(json.loads(config)), depth=depth, patches=patches, prefix=prefix
        )
    except ValueError as error:
        # raised in here, it would be an error of the compiler
        return str(error)
    return next(counts for counts in sites if counts.block == block)
