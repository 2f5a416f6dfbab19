"""Density peaks over all tokens (Zeng et al., TCFormer, CVPR 2022, equations 1 to 3).

The paper is "Not All Tokens Are Equal". Like the clustering of BAT, but of every token, and the
density over the 5 nearest unless the configuration says otherwise. There random noise breaks ties;
here the lower position comes first. There a learned score weights the members of a cluster; here it
is their importance.
"""

from batvit.config import BATConfig
from batvit.core import Assignment, cluster
from batvit.plans.plan import Counts, Evidence

NEIGHBOURS = 5


def plan(evidence: Evidence, counts: Counts, config: BATConfig) -> Assignment:
    """Make as many clusters as tokens go on."""
    return cluster(evidence.features, counts.tokens_out, neighbours=config.neighbours or NEIGHBOURS)
