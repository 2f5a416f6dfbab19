"""Token merging (Bolya et al., ICLR 2023, section 3): bipartite soft matching of all image tokens in the order of the image.

The published method is this plan in every block, r tokens fewer each time, with ``similarity="keys"``, ``weight="size"`` and
``size_aware=True`` (its proportional attention, equation 1). It differs in one thing: the class token, which is never
merged there either, is not counted when tokens are dealt to the two sets, so the sets are swapped.
"""

from batvit.config import BATConfig, Counts
from batvit.core import Assignment, match
from batvit.plans.plan import Evidence


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Every second token may join its most similar other one; the most similar of these pairs are merged."""
    return match(evidence.features, counts.tokens_in - counts.tokens_out)
