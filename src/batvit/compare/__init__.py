"""Comparing reductions: every plan at the same MACs and the same time, on the same pictures.

- ``comparison``: ``run``, which does all of it
- ``summary``: what it gives back: rows, files, tables as text
- ``steps``: fitting, timing, scoring
- ``stopwatch``: times in turns
- ``rows``: one plan at one target, typed
- ``results``: the rows so far, kept in the folder
- ``scores``: the per-image scores of every model, kept in the folder
- ``failures``: what single plans fail with
- ``ranking``: which plan keeps most
- ``columns``: how numbers are written
- ``report``, ``report.html``, ``plot``, ``group_pictures``: what is shown of it
"""

from typing import TYPE_CHECKING, Any

from batvit.checks import installed

if TYPE_CHECKING:
    from batvit.compare.comparison import Stage, run
    from batvit.compare.summary import Comparison

__all__ = ["Comparison", "Stage", "run"]


def __getattr__(name: str) -> Any:
    # a report alone needs neither models nor matplotlib
    if name in __all__:
        return getattr(installed("batvit.compare.comparison"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
