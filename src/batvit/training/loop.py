"""Training, the same for any classifier, alone or in many processes, from the start or from where it was left."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from batvit.data.tar_shards import Stream
from batvit.storage.run_folder import claimed
from batvit.storage.weights import save_state
from batvit.training import checkpoints
from batvit.training.batches import Batching, Part, seed_all
from batvit.training.config import TrainConfig
from batvit.training.keep_rate_warmup import share_of, shares
from batvit.training.learner import DivergedError, Learner
from batvit.training.processes import Stop, StoppedError, accelerator_on, stoppable
from batvit.training.progress import Epoch, Progress, Step
from batvit.training.record import BEST, LAST, LOG, RUN, Record, check_output
from batvit.training.reduction import Reduction, reduction_of


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
    about: Mapping[str, Any] | None = None,
    log_with: Sequence[str] = (),
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: Callable[[Step], None] | None = None,
) -> list[Epoch]:
    """Train a classifier, in place, where its weights are, or on the devices of all processes that were launched.

    The same configuration gives the same losses on the same machine, in one go or resumed, and, to rounding, in any number of
    processes. Python's, NumPy's and torch's generators are seeded again at every picture and update.

    Args:
        model: pictures (B, 3, H, W) to logits (B, classes), with float32 weights; ends in eval mode.
        train: sized; gives a picture (3, H, W) and its label. Or a stream.
        val: batches of pictures and labels, as :func:`batvit.evaluate.evaluate` takes them; gone through once an epoch. Of
            several processes each gives its part, see :meth:`Part.of`, or all give all.
        config: how.
        output: folder for the run: ``run.json`` (how it was made), ``log.jsonl``, ``summary.csv``, ``checkpoints``,
            ``last.safetensors`` and ``best.safetensors`` (highest top-1, the earliest of equals), the reduction beside them
            (``.batvit.json``), each whole at any time.
        resume: go on from the last checkpoint in ``output``, if there is one.
        teacher: the model to learn from, where the configuration says so; by default ``model`` as it comes, without its
            reduction. It is left alone.
        reduce: the reduction of ``model``, by default that which :func:`batvit.patch` put into it. ``model`` comes with the
            whole of it, and accuracy is always that of the whole.
        about: what else ``run.json`` is to tell than reduction and number of parameters, plain values; a run goes on only where
            they are the same.
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
        ValueError: if a set is empty, a batch is larger than the training set, a label does not fit the model, or a run is
            resumed with anything else than what it was started with.
        OSError: see :func:`check_output`.
    """
    reduce = reduction_of(model) if reduce is None else reduce
    if config.keep_warmup_start + config.keep_warmup_epochs and reduce is None:
        raise ValueError(
            "keep_warmup needs a reduction to warm up; call batvit.patch(model) first, or leave it out"
        )
    folder = None if output is None else check_output(output, resume=resume)
    accelerator = accelerator_on(
        next(model.parameters(), torch.empty(0)).device,
        config.precision,
        log_with=log_with,
        folder=folder,
    )
    batching = Batching(train, config, Part(accelerator.process_index, accelerator.num_processes))
    seed_all(config.seed)
    if config.learns_from_teacher:
        teacher = _dense_copy(model, reduce) if teacher is None else copy.deepcopy(teacher)
    learner = Learner(
        model,
        config,
        batching,
        accelerator,
        teacher=teacher if config.learns_from_teacher else None,
    )
    told = (
        _told_of(model, reduce)
        | dict(about or {})
        | {"pictures": batching.size, "processes": accelerator.num_processes}
    )
    try:
        with stoppable() as stop, claimed(folder if accelerator.is_main_process else None):
            run = Run(learner, batching, folder, reduce, stop, on_epoch, progress)
            try:
                run.begin(told, resume=resume, log_with=log_with)
                run.go(val)
            finally:
                run.give(1.0)
                accelerator.end_training()
    finally:
        learner.finish()
    return run.at.history


def _dense_copy(model: nn.Module, reduce: Reduction | None) -> nn.Module:
    return copy.deepcopy(model) if reduce is None else reduce.dense_copy(model)


def _told_of(model: nn.Module, reduce: Reduction | None) -> dict[str, Any]:
    """What tells a model from another, in plain values: its reduction, whole, and the number of its parameters."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return {"config": None if reduce is None else reduce.describe(), "param_count": count}


class Run:
    """From update to update, and what is written on the way."""

    def __init__(
        self,
        learner: Learner,
        batching: Batching,
        folder: Path | None,
        reduce: Reduction | None,
        stop: Stop,
        on_epoch: Callable[[Epoch], None] | None,
        progress: Callable[[Step], None] | None,
    ) -> None:
        self.learner, self.batching, self.config, self.accelerator = (
            learner,
            batching,
            learner.config,
            learner.accelerator,
        )
        self.folder, self.record = folder, None if folder is None else Record(folder)
        self.reduce, self.stop, self.on_epoch, self.progress = reduce, stop, on_epoch, progress
        self.share = 1.0
        self.at = Progress()
        self.saved = 0

    def begin(self, about: Mapping[str, Any], *, resume: bool, log_with: Sequence[str]) -> None:
        """Take up the last checkpoint, or write how the run is made."""
        if self.folder is not None and self.record is not None:
            if resume and (self.folder / RUN).exists():
                self.record.check_same(
                    self.config, about, {} if self.reduce is None else self.reduce.defaults()
                )
            found = checkpoints.latest(self.folder) if resume else None
            self.accelerator.wait_for_everyone()
            if found is not None:
                ema = self.learner.ema
                self.at = checkpoints.load(
                    self.accelerator, found, ema=None if ema is None else ema.module
                )
                self.saved = self.at.update
            elif self.accelerator.is_main_process:
                self.record.begin(self.config, about)
            if self.accelerator.is_main_process:
                self.record.cut(self.at.update, len(self.at.history))
        # one that does not fit is found before the first update
        for share in shares(self.config):
            self.give(share)
        if log_with:
            self.accelerator.init_trackers(
                "batvit", config={k: v for k, v in asdict(self.config).items() if v is not None}
            )

    def go(self, val: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Train and evaluate, epoch after epoch."""
        for number in range(len(self.at.history) + 1, self.config.epochs + 1):
            try:
                self._train(number)
            except DivergedError as error:
                kept = (
                    f"; the weights after epoch {number - 1} are in {self.folder / LAST}"
                    if self.folder and number > 1
                    else ""
                )
                raise DivergedError(f"epoch {number}: {error}{kept}") from error
            self._close(number, val)

    def _train(self, number: int) -> None:
        """One epoch, or what is left of it; saved before it is evaluated, as that may fail, or take longer than there is."""
        at, end, steps = self.at, number * self.batching.updates, self.config.grad_accum_steps
        batches = self.batching.epoch(number, done=at.update - (number - 1) * self.batching.updates)
        self.learner.model.train()
        mark = time.perf_counter()
        for update in range(at.update + 1, end + 1):
            self.give(share_of(self.config, (update - 1) / self.batching.updates))
            parts = [(images, labels) for images, labels in islice(batches, steps)]
            if len(parts) < steps:
                raise ValueError(
                    f"the training pictures ended in update {update}; give the number of them that there are, and of tar "
                    "shards as many as all processes have workers"
                )
            loss, asked = self.learner.update(update, parts, stop=self.stop.asked)
            at.update, at.lr, now = update, self.learner.lr, time.perf_counter()
            at.losses.append(loss)
            at.seconds += now - mark
            self._tell(number)
            if (
                asked
                or update == end
                or (self.config.save_every and update % self.config.save_every == 0)
            ):
                self.learner.check_weights(update)
                self._save()
            if asked:
                self._leave()
            mark = time.perf_counter()

    def _close(self, number: int, val: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Evaluate, and write what there is after an epoch."""
        self.give(1.0)
        found, at = self.learner.evaluate(val), self.at
        loss, speed = (
            sum(at.losses) / len(at.losses),
            len(at.losses) * self.config.batch_size / at.seconds,
        )
        at.history.append(
            Epoch(number, loss, found.loss, found.top1, found.top5, at.lr, at.seconds, speed)
        )
        at.losses, at.seconds = [], 0.0
        weights = self.learner.state_dict()
        if self.accelerator.is_main_process:
            if self.folder is not None and self.record is not None:
                with checkpoints.written(self.folder / LAST):
                    for name in (LAST, BEST) if at.best.epoch == number else (LAST,):
                        if self.reduce is not None:
                            self.reduce.save_beside(self.folder / name)
                        save_state(weights, self.folder / name)
                    self.record.epoch(at.history, at.update)
            if self.on_epoch is not None:
                self.on_epoch(at.history[-1])
        self.accelerator.log(
            {"eval_loss": found.loss, "top1": found.top1, "top5": found.top5}, step=at.update
        )
        self._save()

    def _tell(self, number: int) -> None:
        at = self.at
        total, speed = (
            self.config.epochs * self.batching.updates,
            len(at.losses) * self.config.batch_size / at.seconds,
        )
        recent = at.losses[-self.config.log_every :]
        step = Step(at.update, total, sum(recent) / len(recent), at.lr, speed)
        if at.update % self.config.log_every == 0:
            self.accelerator.log({"train_loss": step.loss, "lr": step.lr}, step=at.update)
            if self.record is not None and self.accelerator.is_main_process:
                with checkpoints.written(self.record.folder / LOG):
                    self.record.step(step, number)
        if self.progress is not None and self.accelerator.is_main_process:
            self.progress(step)

    def give(self, share: float) -> None:
        """Put a share of the reduction in place."""
        if self.reduce is not None and share != self.share:
            for model in self.learner.models:
                self.reduce.set_share(model, share)
            self.learner.model.train(self.learner.model.training)
            self.share = share

    def _save(self) -> None:
        if self.folder is not None:
            ema = self.learner.ema
            checkpoints.save(
                self.accelerator,
                self.folder,
                self.at,
                ema=None if ema is None else ema.module,
                keep=self.config.keep,
                updates_per_epoch=self.batching.updates,
                again=self.saved == self.at.update,
            )
            self.saved = self.at.update

    def _leave(self) -> None:
        where = f"; go on with --resume from {self.folder}" if self.folder is not None else ""
        raise StoppedError(f"asked to stop (SIGTERM) after update {self.at.update}{where}")
