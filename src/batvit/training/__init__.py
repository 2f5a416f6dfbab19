"""Training with the reduction in place; it takes any classifier, and knows no method.

To be used:

- ``loop``: :func:`fit`, from checked arguments to a finished run.
- ``config``: :class:`TrainConfig`, how to train.
- ``recipes``: named ways to train, and what given values make of one.
- ``progress``: :class:`Epoch` and :class:`Step`, what a run tells of itself.
- ``logs``, ``plot``: what runs logged, read again and drawn.
- ``inputs``: opened pictures prepared for a model and a loop.

Behind :func:`fit`:

- ``run``: from update to update, and what is written on the way.
- ``learner``: one update of one model.
- ``objective``, ``token_labels``: what is minimised.
- ``batches``: which pictures go into which update.
- ``stochastic_depth``: which pictures skip which blocks.
- ``reduction``, ``keep_rate_warmup``: what training knows of a reduction, and its share over time.
- ``processes``: devices, processes and signals, by accelerate.
- ``record``, ``checkpoints``: the files of a run, to be read and to go on from.
"""

import typing

from batvit.checks import installed

if typing.TYPE_CHECKING:
    from batvit.training.config import TrainConfig
    from batvit.training.learner import DivergedError
    from batvit.training.loop import fit
    from batvit.training.processes import StoppedError
    from batvit.training.progress import Epoch, Step

WHERE = {
    "DivergedError": "learner",
    "Epoch": "progress",
    "Step": "progress",
    "StoppedError": "processes",
    "TrainConfig": "config",
    "fit": "loop",
}
"""the module of each name, imported when the name is first asked for: some need no torch"""

__all__ = ["DivergedError", "Epoch", "Step", "StoppedError", "TrainConfig", "fit"]


def __getattr__(name: str) -> typing.Any:
    if name not in WHERE:
        raise AttributeError(f"module 'batvit.training' has no attribute {name!r}")
    module = installed(f"batvit.training.{WHERE[name]}")
    value = getattr(module, name)
    # the next time it is found without asking
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
