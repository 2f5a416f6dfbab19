"""Fine-tuning, the same for any classifier: precision by accelerate; optimizer, schedule, mixing and views by timm."""

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from timm.data import Mixup, create_transform
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from batvit.checkpoint import save_weights
from batvit.data import data_config, placed
from batvit.evaluate import evaluate
from batvit.files import check_folder, write_atomic
from batvit.train_config import TrainConfig

CONFIG, LOG, LAST, BEST = "train.json", "log.jsonl", "last.safetensors", "best.safetensors"


class DivergedError(ValueError):
    """The loss or a weight is not a finite number any more. The last good checkpoint stays as it is."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training set, and the accuracy after it."""

    epoch: int
    """counted from 1"""
    train_loss: float
    """mean over the updates"""
    top1: float
    """on the validation set, in percent"""
    top5: float
    lr: float
    """learning rate of the last update"""
    seconds: float
    """spent on training, without validation"""
    samples_per_sec: float
    """training pictures a second"""


def augmentation(model: nn.Module, config: TrainConfig) -> Callable[[Any], Tensor]:
    """Random views for training, the ``transform`` of :class:`batvit.data.Pictures`: PIL image to (3, H, W).

    Crop, flip and colours, and what the configuration adds, of the size and normalisation that the model expects.
    """
    given = {name: data_config(model)[name] for name in ("input_size", "interpolation", "mean", "std")}
    views: Callable[[Any], Tensor] = create_transform(
        **given, is_training=True, auto_augment=config.auto_augment, re_prob=config.reprob
    )
    return views


def check_output(output: str | Path) -> Path:
    """Refuse a folder for a run, before any work is done for it.

    Raises:
        OSError: if it holds a run already, cannot be written, or its parent does not exist.
    """
    folder = check_folder(output)
    held = next((name for name in (LOG, LAST, BEST) if (folder / name).exists()), None)
    if held is not None:
        raise FileExistsError(f"{folder}: already holds a run ({held}); name another folder, or move that run away")
    return folder


def fit(
    model: nn.Module,
    train: Dataset[Any],
    val: Iterable[tuple[Tensor, Tensor]],
    config: TrainConfig,
    *,
    output: str | Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Epoch]:
    """Fine-tune a classifier, in place, where its weights are: one process, one device.

    The same configuration gives the same losses on the same machine. Python's, NumPy's and torch's generators are seeded.

    Args:
        model: pictures (B, 3, H, W) to logits (B, classes), with float32 weights; ends in eval mode.
        train: sized; gives a picture (3, H, W) and its label.
        val: batches of pictures and labels, as :func:`batvit.evaluate.evaluate` takes them; gone through once an epoch.
        config: how.
        output: folder for the run: ``train.json`` (the configuration), ``log.jsonl`` (a line an epoch),
            ``last.safetensors`` and ``best.safetensors`` (highest top-1, the earliest of equals), each whole at any time.
        on_epoch: called after each epoch, when its checkpoint is written.
        progress: called after each update with how many are done and how many there will be.

    Returns:
        One :class:`Epoch` after the other.

    Raises:
        DivergedError: if the loss or a weight is not finite any more.
        ValueError: if a set is empty, a batch is larger than the training set, or a label does not fit the model.
        OSError: see :func:`check_output`.
    """
    folder = None if output is None else check_output(output)
    set_seed(config.seed)
    batches = _batches(train, config)
    training = _Training(model, config, classes=_count_classes(model, train), updates_per_epoch=len(batches))
    if folder is not None:
        folder.mkdir(exist_ok=True)
        write_atomic(folder / CONFIG, json.dumps(asdict(config), indent=2) + "\n")
    history: list[Epoch] = []
    for number in range(1, config.epochs + 1):
        try:
            loss, seconds = training.epoch(batches, progress)
        except DivergedError as error:
            kept = f"; the weights after epoch {number - 1} are in {folder / LAST}" if folder and history else ""
            raise DivergedError(f"epoch {number}: {error}{kept}") from error
        accuracy = evaluate({"model": model}, val)["model"]
        speed = len(batches) * config.batch_size / seconds
        history.append(Epoch(number, loss, accuracy.top1, accuracy.top5, training.last_lr, seconds, speed))
        if folder is not None:
            _record(model, history, folder)
        if on_epoch is not None:
            on_epoch(history[-1])
    model.eval()
    return history


class _Training:
    """What lives from update to update."""

    def __init__(self, model: nn.Module, config: TrainConfig, *, classes: int, updates_per_epoch: int) -> None:
        self.model, self.config, self.classes = model, config, classes
        self.accelerator = _accelerator(model, config.precision)
        optimizer = create_optimizer_v2(model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay)
        self.scheduler: Any = create_scheduler_v2(
            optimizer,
            num_epochs=config.epochs,
            min_lr=config.min_lr,
            warmup_lr=config.min_lr,
            warmup_epochs=config.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=updates_per_epoch,
        )[0]
        self.optimizer = self.accelerator.prepare(optimizer)
        self.mix = Mixup(config.mixup, config.cutmix, label_smoothing=config.smoothing, num_classes=classes)
        self.criterion = SoftTargetCrossEntropy() if config.mixes else LabelSmoothingCrossEntropy(config.smoothing)
        self.updates, self.updates_in_all = 0, config.epochs * updates_per_epoch
        self.last_lr = 0.0

    def epoch(
        self, batches: Iterable[tuple[Tensor, Tensor]], progress: Callable[[int, int], None] | None
    ) -> tuple[float, float]:
        """Mean loss, and seconds."""
        losses = []
        start = time.perf_counter()
        self.model.train()
        for images, labels in batches:
            losses.append(self.update(images, labels))
            if progress is not None:
                progress(self.updates, self.updates_in_all)
        seconds = time.perf_counter() - start
        # a step can spoil the weights though the loss before it was fine
        for name, value in self.model.state_dict().items():
            if not value.isfinite().all():
                raise DivergedError(f"{name} is not finite after update {self.updates}; lower lr ({self.config.lr})")
        return sum(losses) / len(losses), seconds

    def update(self, images: Tensor, labels: Tensor) -> float:
        """One step of the optimizer; returns the loss before it."""
        if int(labels.max()) >= self.classes:
            raise ValueError(f"label {int(labels.max())} does not fit a model of {self.classes} classes; labels count from 0")
        images = placed(images, self.model)
        labels = labels.to(images.device)
        if self.config.mixes:
            images, labels = self.mix(images, labels)
        with self.accelerator.autocast():
            logits = self.model(images)
        loss = self.criterion(logits.float(), labels)
        value: float = loss.item()
        if not math.isfinite(value):
            raise DivergedError(f"the loss became {value} in update {self.updates + 1}; lower lr ({self.config.lr})")
        self.accelerator.backward(loss)
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.last_lr = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        self.scheduler.step_update(self.updates)
        return value


def _accelerator(model: nn.Module, precision: str) -> Accelerator:
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and precision == "fp16":
        raise ValueError("precision fp16 needs a GPU, and this model is on the CPU; give bf16 or fp32, or move the model")
    # accelerate keeps device and precision for the whole process, and would refuse a second run in another
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no" if precision == "fp32" else precision)
    if accelerator.num_processes > 1:
        raise ValueError(f"training runs in one process, this is one of {accelerator.num_processes}; start it alone")
    return accelerator


def _batches(train: Dataset[Any], config: TrainConfig) -> DataLoader[tuple[Tensor, Tensor]]:
    size, batch = len(train), config.batch_size  # type: ignore[arg-type]
    if not size:
        raise ValueError("the training set is empty; give at least one batch of pictures")
    if batch > size:
        raise ValueError(f"batch_size {batch} is more than the {size} training pictures; lower it to {size} or less")
    keep = config.workers > 0
    return DataLoader(train, batch, shuffle=True, drop_last=True, num_workers=config.workers, persistent_workers=keep)


@torch.no_grad()
def _count_classes(model: nn.Module, train: Dataset[Any]) -> int:
    """What mixing and the check of labels need; found by asking, as any module may come."""
    image, _ = train[0]
    logits = model.eval()(placed(image.unsqueeze(0), model))
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"expected logits (1, classes) for one picture, got {found}; give a classifier")
    return logits.shape[1]


def _record(model: nn.Module, history: list[Epoch], folder: Path) -> None:
    save_weights(model, folder / LAST)
    if all(history[-1].top1 > earlier.top1 for earlier in history[:-1]):
        save_weights(model, folder / BEST)
    write_atomic(folder / LOG, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in history))
