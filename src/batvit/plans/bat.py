"""Beyond Attentive Tokens (Long et al., CVPR 2023): see :mod:`batvit.core`."""

from batvit.config import BATConfig
from batvit.core import Assignment, assign
from batvit.plans.plan import Counts, Evidence


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Decouple, match the attentive, cluster the inattentive."""
    return assign(
        evidence.features,
        evidence.importance,
        attentive=counts.attentive,
        pairs=counts.pairs,
        centres=counts.centres,
        importance_power=config.importance_power,
        matching=config.matching,
        neighbours=config.neighbours,
        real=evidence.size > 0 if evidence.padded else None,
    )


def split(config: BATConfig, block: int, tokens: int, out: int) -> Counts:
    """Split the tokens that go on into attentive ones, pairs and centres.

    ``out = attentive - pairs + centres``.

    Args:
        config: ``centres`` and ``pairs``, each a share (float) or a count (int).
        block: of the site, from 0.
        tokens: image tokens that come in.
        out: image tokens that go on, fewer than come in.

    Raises:
        ValueError: if the counts do not fit.
    """
    if isinstance(config.centres, int):
        centres = config.centres
    else:
        centres = max(1, round(config.centres * out))
    if centres > out:
        raise ValueError(
            f"block {block}: {centres} centres do not fit into {out} outgoing tokens; give fewer"
        )
    if isinstance(config.pairs, int):
        pairs = config.pairs
    else:
        # pairs = share * attentive, and attentive = out - centres + pairs
        pairs = min(int(config.pairs * (out - centres) / (1 - config.pairs)), tokens - out)
    attentive = out - centres + pairs
    if 2 * pairs > attentive:
        raise ValueError(
            f"block {block}: {pairs} pairs need {2 * pairs} attentive tokens, "
            f"there are {attentive}; give fewer pairs"
        )
    left = tokens - attentive
    if left < centres or (centres == 0 and left > 0):
        raise ValueError(
            f"block {block}: {attentive} attentive tokens of {tokens} leave {left} "
            f"for {centres} centres; change centres or pairs"
        )
    return Counts(block, tokens, attentive, pairs, centres, out)
