r"""Vision Transformers with fewer tokens: Beyond Attentive Tokens (CVPR 2023).

    image - patch_embed -> tokens (B, prefix + N, C), sizes = 1
            every block:       x = x + attention(x)           attention knows the sizes, if the configuration says so
            at a site:             decouple   importance   -> attentive | inattentive
                                   match      attentive    -> pairs       \ Assignment: N tokens
                                   cluster    inattentive  -> clusters    /           -> M groups
                                   merge      by Assignment -> (B, prefix + M, C), sizes added up
                               x = x + mlp(x)
            norm - pool - head -> logits

``batvit.patch(model, keep_rate=0.7)`` is all it takes.
"""

import importlib
import typing

from batvit.backbones.anatomy import Adapter, Anatomy
from batvit.backbones.patch import config_of, patch, register, supported, unpatch
from batvit.config import BATConfig, Counts
from batvit.core import Assignment, diversity, merge, unmerge
from batvit.info import info
from batvit.saved import load
from batvit.trace import Trace, diversity_by_block, trace

if typing.TYPE_CHECKING:
    from batvit.engines import load_engine
    from batvit.exporter import export
    from batvit.visualize import draw

__version__ = "0.1.0"

__all__ = [
    "Adapter",
    "Anatomy",
    "Assignment",
    "BATConfig",
    "Counts",
    "Trace",
    "config_of",
    "diversity",
    "diversity_by_block",
    "draw",
    "export",
    "info",
    "load",
    "load_engine",
    "merge",
    "patch",
    "register",
    "supported",
    "trace",
    "unmerge",
    "unpatch",
]


LATER = {"draw": "batvit.visualize", "export": "batvit.exporter", "load_engine": "batvit.engines"}


def __getattr__(name: str) -> typing.Any:
    # pictures and preprocessing need libraries that models do without
    if name in LATER:
        return getattr(importlib.import_module(LATER[name]), name)
    raise AttributeError(f"module 'batvit' has no attribute {name!r}")
