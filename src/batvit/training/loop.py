"""Training, the same for any classifier, alone or in many processes, from the start or resumed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from batvit.data.tar_shards import Stream
from batvit.module_copy import quiet_copy
from batvit.storage.run_folder import claimed
from batvit.training.batches import Batching, Part, seed_all
from batvit.training.config import TrainConfig
from batvit.training.keep_rate_warmup import KeepRateWarmup
from batvit.training.learner import Learner
from batvit.training.processes import accelerator_on, stoppable
from batvit.training.progress import Epoch, Step
from batvit.training.record import Record, check_output
from batvit.training.reduction import Reduction, reduction_of
from batvit.training.run import Run


def fit(
    model: nn.Module,
    train: Dataset[Any] | Stream,
    val: Iterable[tuple[Tensor, Tensor]],
    config: TrainConfig,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    teacher: nn.Module | None = None,
    reduce: Reduction | None = None,
    metadata: Mapping[str, Any] | None = None,
    log_with: Sequence[str] = (),
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Epoch]:
    """Train a classifier, in place, where its weights are, or on the devices of all processes.

    The same configuration gives the same losses on the same machine, in one go or resumed, and, to
    rounding, in any number of processes. What belongs to the whole process is set: Python's,
    NumPy's and torch's generators are seeded again at every picture and update, and accelerate's
    state is begun anew, so an ``Accelerator`` that was made before cannot be used after.

    Args:
        model: pictures (B, 3, H, W) to logits (B, classes), with float32 weights; ends in eval
            mode.
        train: sized; gives a picture (3, H, W) and its label. Or a stream.
        val: batches of pictures and labels, as :func:`batvit.evaluate` takes them; gone through
            once an epoch. Of several processes each gives its part, see :meth:`Part.of`, or all
            give all.
        config: how.
        output: folder for the run: ``run.json`` (how it was made), ``log.jsonl``, ``summary.csv``,
            ``checkpoints``, ``last.safetensors`` and ``best.safetensors`` (highest top-1, the
            earliest of equals), the reduction beside them (``.batvit.json``), each whole at any
            time.
        resume: go on from the last checkpoint in ``output``, if there is one.
        teacher: the model to learn from, where the configuration says so; by default ``model`` as
            it comes, without its reduction. It is left alone.
        reduce: the reduction of ``model``, by default that which :func:`batvit.patch` put into it.
            ``model`` comes with the whole of it, and accuracy is always that of the whole.
        metadata: for ``run.json`` beside reduction and number of parameters, plain values; a
            run is resumed only where they are the same.
        log_with: trackers of accelerate, such as ``tensorboard`` and ``wandb``.
        on_epoch: called after each epoch, when its weights are written, in the first process.
        progress: called after each update, in the first process.

    Returns:
        One :class:`Epoch` after the other, those before a resumed checkpoint too.

    Raises:
        DivergedError: if the loss or a weight is not finite any more.
        StoppedError: after SIGTERM, when the checkpoint is written.
        CheckpointError: if it cannot be written.
        UnreadableError: naming a picture that cannot be read.
        ValueError: if a set is empty, a batch is larger than the training set, a label does not fit
            the model, a teacher is given of whom nothing is learnt, or a run is resumed with
            anything else than it was begun with.
        OSError: see :func:`batvit.training.record.check_output`.

    Examples:
        >>> from batvit.training import TrainConfig
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=2)
        >>> pictures = [(torch.full((3, 32, 32), float(label)), label) for label in (0, 1) * 4]
        >>> batches = torch.utils.data.DataLoader(pictures, batch_size=4)
        >>> config = TrainConfig(epochs=2, batch_size=4)
        >>> epochs = batvit.fit(batvit.patch(model), pictures, batches, config)
        >>> len(epochs)
        2
    """
    reduction = reduction_of(model) if reduce is None else reduce
    _check_warmup(config, reduction)
    config.check_teacher(teacher)
    folder = None if output is None else check_output(output, resume=resume)
    device = next(model.parameters(), torch.empty(0)).device
    accelerator = accelerator_on(device, config.precision, log_with=log_with, folder=folder)
    part = Part(accelerator.process_index, accelerator.num_processes)
    batching = Batching(train, config, part)
    seed_all(config.seed)
    own_teacher = _teacher(teacher, model, reduction) if config.learns_from_teacher else None
    learner = Learner(model, config, batching, accelerator, teacher=own_teacher)
    metadata = _metadata(model, reduction, batching, metadata or {})
    try:
        with stoppable() as stop, claimed(folder if accelerator.is_main_process else None):
            run = Run(
                learner=learner,
                warmup=KeepRateWarmup(reduction, learner.models),
                record=None if folder is None else Record(folder),
                stop=stop,
                on_epoch=on_epoch,
                on_step=progress,
            )
            run.whole(val, metadata, resume=resume, log_with=log_with)
    finally:
        learner.finish()
    return run.position.history


def _check_warmup(config: TrainConfig, reduction: Reduction | None) -> None:
    if config.warms_up_keep_rate and reduction is None:
        raise ValueError(
            f"keep_warmup_start={config.keep_warmup_start} and "
            f"keep_warmup_epochs={config.keep_warmup_epochs} need a reduction to warm up; "
            "call batvit.patch(model) first, or leave them out"
        )


def _metadata(
    model: nn.Module, reduction: Reduction | None, batching: Batching, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what tells a run from another, in plain values, beside its configuration."""
    return {
        "config": None if reduction is None else reduction.describe(),
        "param_count": sum(parameter.numel() for parameter in model.parameters()),
        **metadata,
        "pictures": batching.size,
        "processes": batching.part.processes,
    }


def _teacher(teacher: nn.Module | None, model: nn.Module, reduction: Reduction | None) -> nn.Module:
    """Return a copy of the model to learn from: the one that is given, or the dense model."""
    if teacher is not None:
        return quiet_copy(teacher)
    if reduction is None:
        return quiet_copy(model)
    return reduction.dense_copy(model)
