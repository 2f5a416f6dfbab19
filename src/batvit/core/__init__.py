"""The method, in torch alone; its steps are numbered as in docs/algorithm.md.

Read in this order:

- ``assignment``: which group each token joins: what every step returns.
- ``decouple``: steps 1 and 2, the class attention, and who is attentive.
- ``cluster``: step 3, density peaks among the inattentive.
- ``match``: step 4, pairs among the attentive.
- ``merge``: step 5, the only place where features move.
- ``bat``: steps 2 to 4 put together.
- ``diversity``: the paper's measure.
- ``precision``: what is computed in float32, also under autocast.
- ``rounding``: whether torch was told to round the factors of products of float32.
- ``frozen_rounding``: the same as a constant of a compiled graph.
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
