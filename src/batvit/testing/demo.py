"""The whole library on handwritten digits, offline: train, reduce, fine-tune, compare, draw.

A small Vision Transformer is trained from nothing. Its tokens are reduced as it is, and as in the
paper with some fine-tuning; all models are compared on digits that none was trained on.
"""

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batvit.backbones.patch import patch
from batvit.config import BATConfig
from batvit.data.digits import CLASSES, Digits, digits
from batvit.inspection.drawing import draw_many, from_tensor
from batvit.inspection.tracing import trace
from batvit.measure.accuracy import Evaluation, evaluate
from batvit.measure.speed import SpeedComparison, benchmark
from batvit.reduction.site import config_of
from batvit.storage.pictures import save_picture
from batvit.storage.weights import save_weights
from batvit.training.config import TrainConfig
from batvit.training.loop import fit
from batvit.training.progress import Epoch

# DeiT's layout, small: 64 patches
ARCHITECTURE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 4,
    "embed_dim": 64,
    "depth": 6,
    "num_heads": 4,
    "num_classes": CLASSES,
    "weight_init": "jax",
}
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
FROM_SCRATCH = TrainConfig(epochs=6, batch_size=32, lr=1e-2, min_lr=1e-4, opt="muon", clip_grad=1.0)
FINE_TUNING = TrainConfig(epochs=1, batch_size=32, lr=1e-4, min_lr=1e-5, clip_grad=1.0)
KEEP_RATES = (0.7, 0.5)
TIMED_BATCH = 128
ROUNDS = 9
"""measurements of each model"""
DRAWN = 4
"""digits whose groups are drawn"""
PICTURE = "groups.png"
DENSE = "dense"
TRAINING_FREE = "training-free"
FINE_TUNED = "fine-tuned"

Fit = Callable[[nn.Module, Digits, DataLoader[tuple[Tensor, Tensor]], TrainConfig], list[Epoch]]
"""trains a model in place, as :func:`batvit.fit`"""


@dataclass(frozen=True)
class Row:
    """One model beside the dense one, which itself is compared with nothing."""

    name: str
    accuracy: Evaluation
    speed: SpeedComparison | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        speed = {} if self.speed is None else self.speed.to_dict()
        return {"name": self.name, **asdict(self.accuracy), **speed}


class Data(NamedTuple):
    """Digits to train on, and others in batches."""

    train: Digits
    val: DataLoader[tuple[Tensor, Tensor]]


def load_data() -> Data:
    """Return the digits as the model takes them: always the same."""
    side = ARCHITECTURE["img_size"]
    train, val = digits((side, side), mean=MEAN, std=STD)
    return Data(train, DataLoader(val, TIMED_BATCH))


def new_model() -> VisionTransformer:
    """Return a small Vision Transformer with random weights: always the same."""
    torch.manual_seed(FROM_SCRATCH.seed)
    return VisionTransformer(**ARCHITECTURE)


def train_dense(
    model: nn.Module, data: Data, *, epochs: int = FROM_SCRATCH.epochs, fit: Fit = fit
) -> list[Epoch]:
    """Train a new model in place."""
    return fit(model, data.train, data.val, replace(FROM_SCRATCH, epochs=epochs))


def reduce_training_free(dense: nn.Module) -> dict[str, nn.Module]:
    """Return reduced copies with the weights of the dense model, by name."""
    models = {}
    for rate in KEEP_RATES:
        models[f"{TRAINING_FREE}, keep {rate}"] = patch(copy.deepcopy(dense), keep_rate=rate)
    return models


def reduce_fine_tuned(dense: nn.Module, data: Data, *, fit: Fit = fit) -> dict[str, nn.Module]:
    """Return copies reduced as in the paper and fine-tuned with the reduction in place, by name."""
    models = {}
    for rate in KEEP_RATES:
        model = patch(copy.deepcopy(dense), mode="paper", keep_rate=rate)
        fit(model, data.train, data.val, FINE_TUNING)
        models[f"{FINE_TUNED}, keep {rate}"] = model
    return models


def compare_models(models: Mapping[str, nn.Module], data: Data) -> list[Row]:
    """Return accuracy and speed of each model, the one named ``dense`` first."""
    accuracies = evaluate(models, data.val)
    images, _ = next(iter(data.val))
    rows = []
    for name, model in models.items():
        speed = None
        if name != DENSE:
            speed = benchmark(models[DENSE], model, images, rounds=ROUNDS)
        rows.append(Row(name, accuracies[name], speed))
    return rows


class DenseSpeed(NamedTuple):
    """The dense model, which ran in turns with each of the others."""

    macs: int
    samples_per_sec: float
    """median over those runs"""


def dense_speed(rows: Sequence[Row]) -> DenseSpeed:
    """Return what the rows of the other models know of the dense one."""
    speeds = [row.speed for row in rows if row.speed is not None]
    per_second = statistics.median(speed.dense.samples_per_sec for speed in speeds)
    return DenseSpeed(speeds[0].dense_macs, per_second)


def save_models(models: Mapping[str, nn.Module], folder: Path) -> None:
    """Write the weights of every model that has its own, the configuration beside them."""
    for name, model in models.items():
        if name.startswith(TRAINING_FREE):
            # these have the weights of the dense model
            continue
        path = save_weights(model, folder / f"{name.replace(', keep ', '-')}.safetensors")
        config = config_of(model)
        if config is not None:
            config.save(BATConfig.path_beside(path))


def draw_groups(model: nn.Module, data: Data, path: Path) -> None:
    """Write a picture of what becomes of each patch of some digits in a reduced model."""
    images, _ = next(iter(data.val))
    images = images[:DRAWN]
    with trace(model) as traced, torch.inference_mode():
        model(images)
    pictures = [from_tensor(image, MEAN, STD) for image in images]
    save_picture(draw_many(pictures, traced), path)
