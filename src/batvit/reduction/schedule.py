"""How many tokens go on at every site: fixed by the configuration and the image size, whatever the image shows."""

import math

from batvit.config.config import BATConfig
from batvit.plans import PLANS
from batvit.plans.plan import Counts

# a product such as 196 * (138 / 196) must not be rounded up by its last bit
ROUNDING = 1e-9


def schedule(config: BATConfig, *, depth: int, patches: int, prefix: int = 0) -> tuple[Counts, ...]:
    """Return the counts at every site of a model.

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
    found: list[Counts] = []
    tokens = patches
    for site, block in enumerate(sites):
        if config.tokens is not None:
            out = _given_tokens(config.tokens[site], block, tokens)
        else:
            out = _kept_tokens(config, site, len(sites), tokens, patches)
            out = out if out == tokens else _aligned(config, out, tokens, prefix)
        found.append(_counts(config, block, tokens, out))
        tokens = out
    return tuple(found)


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
    """What the keep rate leaves at a site, before it is aligned."""
    rate = config.keep_rate[site] if isinstance(config.keep_rate, tuple) else config.keep_rate
    assert rate is not None
    if config.spread_sites:
        # as many in the end as three sites of this rate would leave
        kept = rate ** (3 * (site + 1) / sites) * patches
    else:
        kept = rate * tokens
    return min(tokens, max(1, math.ceil(float(kept) - ROUNDING)))


def _aligned(config: BATConfig, out: int, tokens: int, prefix: int) -> int:
    """The nearest count that makes prefix + count a multiple; ``out`` if the plan can take ``tokens`` to none."""
    largest = PLANS[config.method].max_reduction * tokens
    align = config.align
    # a multiple that is more than a quarter of what is left would change it too much
    while align > 1 and 4 * align > prefix + out:
        align //= 2
    lower = (prefix + out) // align * align - prefix
    fitting = [
        count
        for count in (lower, lower + align)
        if 1 <= count < tokens and tokens - count <= largest
    ] or [out]
    # torch.compile looks into this, and min(…, key=…) ends its graph up to torch 2.11
    return fitting[0] if out - fitting[0] <= fitting[-1] - out else fitting[-1]


def _counts(config: BATConfig, block: int, tokens: int, out: int) -> Counts:
    split = PLANS[config.method].split
    if split is None or out == tokens:
        return Counts(block, tokens, out, 0, 0, out)
    return split(config, block, tokens, out)
