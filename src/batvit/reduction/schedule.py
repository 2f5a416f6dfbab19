"""How many tokens go on at every site: fixed by the configuration and the image size."""

import math

from batvit.config import BATConfig
from batvit.plans import PLANS
from batvit.plans.plan import Counts

# a product such as 196 * (138 / 196) must not be rounded up by its last bit
ROUNDING = 1e-9
# as many in the end as this many sites of the same rate would leave
SITES_TO_MATCH = 3


def schedule(config: BATConfig, *, depth: int, patches: int, prefix: int = 0) -> tuple[Counts, ...]:
    """Return the counts at every site of a model, whatever its images show.

    Args:
        config: where tokens are reduced, and to how many.
        depth: number of blocks.
        patches: image tokens at the first block.
        prefix: tokens before them: class, distillation, registers.

    Raises:
        ValueError: if the plan is unknown, or a count does not fit the number of tokens.

    >>> from batvit import BATConfig
    >>> [counts.tokens_out for counts in schedule(BATConfig(keep_rate=0.5), depth=12, patches=196)]
    [98, 49, 25]
    """
    check_method(config.method)
    sites = config.sites(depth)
    scheduled: list[Counts] = []
    tokens = patches
    for site, block in enumerate(sites):
        if config.tokens is not None:
            out = _given_tokens(config.tokens[site], block, tokens)
        else:
            out = _kept_tokens(config, site, len(sites), tokens, patches)
            if out != tokens:
                out = _aligned(config, out, tokens, prefix)
        scheduled.append(_counts(config, block, tokens, out))
        tokens = out
    return tuple(scheduled)


def counts_at(
    config: BATConfig, block: int, *, depth: int, patches: int, prefix: int = 0
) -> Counts:
    """Return the counts at one site; how many tokens come in hangs on all sites before it.

    Args:
        config: in which the block is a site.
        block: from 0.
        depth, patches, prefix: as :func:`schedule` takes them.

    Raises:
        ValueError: as :func:`schedule`.
    """
    scheduled = schedule(config, depth=depth, patches=patches, prefix=prefix)
    by_block = {counts.block: counts for counts in scheduled}
    return by_block[block]


def check_method(method: str) -> None:
    """Refuse a plan that is not known.

    Raises:
        ValueError: naming those that are.
    """
    if method not in PLANS:
        raise ValueError(f"method must be one of {', '.join(PLANS)}, got {method!r}")


def _given_tokens(wanted: int, block: int, tokens: int) -> int:
    if wanted > tokens:
        raise ValueError(
            f"block {block}: {wanted} tokens cannot go on where {tokens} come in; lower tokens"
        )
    return wanted


def _kept_tokens(config: BATConfig, site: int, sites: int, tokens: int, patches: int) -> int:
    """Return what the keep rate leaves at a site, before it is aligned."""
    rate = config.keep_rate[site] if isinstance(config.keep_rate, tuple) else config.keep_rate
    assert rate is not None
    kept = rate * tokens
    if config.spread_sites:
        kept = rate ** (SITES_TO_MATCH * (site + 1) / sites) * patches
    return min(tokens, max(1, math.ceil(float(kept) - ROUNDING)))


def _aligned(config: BATConfig, out: int, tokens: int, prefix: int) -> int:
    """Return the nearest count that makes prefix + count a multiple of ``align``.

    The nearest that the plan can take ``tokens`` to; ``out`` itself if there is none.
    """
    align = config.align
    # a multiple that is more than a quarter of what is left would change it too much
    while align > 1 and 4 * align > prefix + out:
        align //= 2
    lower = (prefix + out) // align * align - prefix
    most_gone = PLANS[config.method].max_reduction * tokens
    fitting = []
    for count in (lower, lower + align):
        if 1 <= count < tokens and tokens - count <= most_gone:
            fitting.append(count)
    # of two that are equally near the lower one, which comes first
    return min(fitting, key=lambda count: abs(count - out), default=out)


def _counts(config: BATConfig, block: int, tokens: int, out: int) -> Counts:
    split = PLANS[config.method].split
    if split is None or out == tokens:
        return Counts(block, tokens, attentive=out, pairs=0, centres=0, tokens_out=out)
    return split(config, block, tokens, out)
