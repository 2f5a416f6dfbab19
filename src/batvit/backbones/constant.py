"""What a graph does not look into."""

import json

import torch

from batvit.config import BATConfig, Counts


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def counts(config: str, block: int, depth: int, patches: int, prefix: int) -> Counts | str:
    """The counts at a site, or why there are none.

    To a graph the result is a constant, and with other arguments it is compiled anew: traced, shares would become symbols.
    """
    try:
        schedule = BATConfig.from_dict(json.loads(config)).schedule(depth=depth, patches=patches, prefix=prefix)
    except ValueError as error:
        # raised in here, it would be an error of the compiler
        return str(error)
    return next(site for site in schedule if site.block == block)
