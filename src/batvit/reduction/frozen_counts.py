"""The counts at a site, as a constant of a compiled graph."""

import json

import torch

from batvit.config import BATConfig
from batvit.plans.plan import Counts
from batvit.reduction.schedule import counts_at


# the configuration comes as JSON, as one string is a constant to a graph in every version of torch:
# torch 2.8 refuses an object, and may make symbols of the numbers in a tuple once they change
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def frozen_counts(config: str, block: int, depth: int, patches: int, prefix: int) -> Counts | str:
    """Return the counts at a site, or why there are none.

    To a graph the result is a constant; with other arguments it is compiled anew.

    Args:
        config: a :class:`BATConfig` as JSON.
        block: of the site, from 0.
        depth, patches, prefix: of the model; see :func:`batvit.reduction.schedule.schedule`.
    """
    known = BATConfig.from_dict(json.loads(config))
    try:
        return counts_at(known, block, depth=depth, patches=patches, prefix=prefix)
    except ValueError as error:
        # raised in here, it would be an error of the compiler
        return str(error)
