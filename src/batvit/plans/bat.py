"""Beyond Attentive Tokens (Long et al., CVPR 2023): see :mod:`batvit.core`."""

from batvit.config import BATConfig, Counts
from batvit.core import Assignment, assign
from batvit.plans.plan import Evidence


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
