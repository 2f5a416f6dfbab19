"""Training with the reduction in place: a loop, the named recipes, and what a run leaves."""

from batvit.training.config import TrainConfig
from batvit.training.learner import DivergedError
from batvit.training.loop import fit
from batvit.training.processes import StoppedError
from batvit.training.progress import Epoch, Step

__all__ = ["DivergedError", "Epoch", "Step", "StoppedError", "TrainConfig", "fit"]
