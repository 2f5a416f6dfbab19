r"""Vision Transformers with fewer tokens: Beyond Attentive Tokens (CVPR 2023).

    image - patch_embed -> tokens (B, prefix + N, C), sizes = 1
            every block:       x = x + attention(x)      attention knows the sizes, if so configured
            at a site:             decouple   importance   -> attentive | inattentive
                                   match      attentive    -> pairs       \ Assignment: N tokens
                                   cluster    inattentive  -> clusters    /           -> M groups
                                   merge      by Assignment -> (B, prefix + M, C), sizes added up
                               x = x + mlp(x)
            norm - pool - head -> logits

``batvit.patch(model, keep_rate=0.7)`` is all it takes.
"""

import typing

from batvit.backbones.transformers_notice import watch as _watch
from batvit.checks import installed as _installed

if typing.TYPE_CHECKING:
    from batvit import compare, tune
    from batvit.backbones.adapter import Adapter, Anatomy
    from batvit.backbones.patch import patch, unpatch
    from batvit.backbones.registry import register
    from batvit.backbones.transformers_saved import load
    from batvit.config.config import BATConfig
    from batvit.core import Assignment, diversity, merge, unmerge
    from batvit.deploy.export import export
    from batvit.deploy.load import load_engine
    from batvit.inspection.drawing import draw
    from batvit.inspection.summary import info
    from batvit.inspection.tracing import Trace, diversity_by_block, trace
    from batvit.measure.accuracy import evaluate
    from batvit.measure.speed import benchmark
    from batvit.models.supported import supported
    from batvit.plans import Counts
    from batvit.reduction.site import config_of
    from batvit.training.loop import fit

__version__ = "0.1.0"

# a reduced model that transformers loads dense is told of, whenever transformers is imported
_watch()

_HOME = {
    "Adapter": "backbones.adapter",
    "Anatomy": "backbones.adapter",
    "Assignment": "core",
    "BATConfig": "config",
    "Counts": "plans",
    "Trace": "inspection.tracing",
    "benchmark": "measure.speed",
    "config_of": "reduction.site",
    "diversity": "core",
    "diversity_by_block": "inspection.tracing",
    "draw": "inspection.drawing",
    "evaluate": "measure.accuracy",
    "export": "deploy.export",
    "fit": "training.loop",
    "info": "inspection.summary",
    "load": "backbones.transformers_saved",
    "load_engine": "deploy.load",
    "merge": "core",
    "patch": "backbones.patch",
    "register": "backbones.registry",
    "supported": "models.supported",
    "trace": "inspection.tracing",
    "unmerge": "core",
    "unpatch": "backbones.patch",
}
"""the module of each name, imported when the name is first asked for: --help needs no torch"""
_ROOMS = ("compare", "tune")
"""folders that are called by their name, ``batvit.compare.run``"""

__all__ = [
    "Adapter",
    "Anatomy",
    "Assignment",
    "BATConfig",
    "Counts",
    "Trace",
    "benchmark",
    "compare",
    "config_of",
    "diversity",
    "diversity_by_block",
    "draw",
    "evaluate",
    "export",
    "fit",
    "info",
    "load",
    "load_engine",
    "merge",
    "patch",
    "register",
    "supported",
    "trace",
    "tune",
    "unmerge",
    "unpatch",
]


if not typing.TYPE_CHECKING:
    # hidden from type checkers, which would take any name for one of this module

    def __getattr__(name: str) -> typing.Any:
        if name in _ROOMS:
            return _installed(f"batvit.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'batvit' has no attribute {name!r}")
        value = getattr(_installed(f"batvit.{_HOME[name]}"), name)
        # the next time it is there without asking
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
