"""The method, in torch alone; its steps are numbered as in docs/algorithm.md.

Read: assignment, decouple, match, cluster, merge, bat, diversity.
"""

from batvit.core.assignment import Assignment
from batvit.core.bat import assign
from batvit.core.cluster import cluster
from batvit.core.decouple import class_importance, decouple, received_importance
from batvit.core.diversity import diversity
from batvit.core.match import match
from batvit.core.merge import merge, sum_by_group, unmerge

__all__ = [
    "Assignment",
    "assign",
    "class_importance",
    "cluster",
    "decouple",
    "diversity",
    "match",
    "merge",
    "received_importance",
    "sum_by_group",
    "unmerge",
]
