"""The search for the configuration that keeps most within a budget: :func:`run`.

- ``tuning``: :func:`run`, a whole tuning, from pictures to files.
- ``settings``: what is asked of a tuning, checked, and what its steps share.
- ``result``: :class:`Tuned`, what a tuning found, and how it is written and printed.
- ``parts``: the search in parts, each of which knows the cost better than the one before.
- ``search``: one part: trials of candidates within a goal.
- ``space``: what is tried: configurations that are given tokens until they use up a budget.
- ``objective``: how far a reduced model is from the dense one, picture by picture.
- ``cost_model``: what a configuration costs, predicted.
- ``trials``: the journal of all trials, kept by Optuna.
- ``finalists``: the best of a search, measured.
- ``verification``: the best beside the preset, on pictures held out.
"""

from batvit.tune.result import Tuned
from batvit.tune.tuning import run

__all__ = ["Tuned", "run"]
