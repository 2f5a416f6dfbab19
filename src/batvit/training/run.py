"""A training run: from update to update, from epoch to epoch, and what is written on the way."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

from torch import Tensor

from batvit.storage.weights import save_state
from batvit.training import checkpoints
from batvit.training.keep_rate_warmup import KeepRateWarmup, share_of, shares
from batvit.training.learner import DivergedError, Learner
from batvit.training.logs import LOG
from batvit.training.processes import StoppedError, StopRequest
from batvit.training.progress import Epoch, Progress, Step
from batvit.training.record import BEST, LAST, Record


@dataclass(kw_only=True)
class Run:
    """A run that is under way in this process; :func:`batvit.training.loop.fit` makes it.

    :meth:`whole` is all of it: :meth:`begin`, then :meth:`train`.
    """

    learner: Learner
    """the model, and what moves its weights"""
    warmup: KeepRateWarmup
    """how much of its reduction the model has by now"""
    record: Record | None
    """the files of the run; None where nothing is to be written"""
    stop: StopRequest
    """whether the process was asked to stop"""
    on_epoch: Callable[[Epoch], None] | None = None
    """called after each epoch, in the first process"""
    on_step: Callable[[Step], None] | None = None
    """called after each update, in the first process"""
    position: Progress = field(default_factory=Progress)
    """where the run stands"""
    saved: int = 0
    """the update of the last checkpoint"""

    def whole(
        self,
        val: Iterable[tuple[Tensor, Tensor]],
        metadata: Mapping[str, object],
        *,
        resume: bool,
        log_with: Sequence[str],
    ) -> None:
        """Begin, or go on, and train to the end; the model has its whole reduction afterwards.

        The arguments and errors are those of :meth:`begin` and :meth:`train`.
        """
        try:
            self.begin(metadata, resume=resume, log_with=log_with)
            self.train(val)
        finally:
            self.warmup.set_share(1.0)
            self.learner.accelerator.end_training()

    def begin(
        self, metadata: Mapping[str, object], *, resume: bool, log_with: Sequence[str]
    ) -> None:
        """Go on from the last checkpoint, or write how the run is made.

        Args:
            metadata: what tells the run from another.
            resume: whether to go on, if there is a checkpoint.
            log_with: trackers of accelerate.

        Raises:
            ValueError: if it is resumed with anything else than it was begun with, or if a share of
                the reduction does not fit the model.
        """
        if self.record is not None:
            self._begin_record(self.record, metadata, resume=resume)
        # set every share once, so that one that does not fit is refused before the first update
        config = self.learner.config
        for share in shares(config):
            self.warmup.set_share(share)
        if log_with:
            given = {name: value for name, value in asdict(config).items() if value is not None}
            self.learner.accelerator.init_trackers("batvit", config=given)

    def train(self, val: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Train and evaluate, epoch after epoch.

        Raises:
            DivergedError: if the loss or a weight is not finite any more.
            StoppedError: if the process was asked to stop, when the checkpoint is written.
            CheckpointError: if something cannot be written.
        """
        done = len(self.position.history)
        for number in range(done + 1, self.learner.config.epochs + 1):
            try:
                self._train_epoch(number)
            except DivergedError as error:
                kept = ""
                if self.record is not None and number > 1:
                    path = self.record.folder / LAST
                    kept = f"; the weights after epoch {number - 1} are in {path}"
                raise DivergedError(f"epoch {number}: {error}{kept}") from error
            self._end_epoch(number, val)

    def _begin_record(
        self, record: Record, metadata: Mapping[str, object], *, resume: bool
    ) -> None:
        accelerator = self.learner.accelerator
        checkpoint = None
        if resume:
            if record.begun:
                reduction = self.warmup.reduction
                defaults = {} if reduction is None else reduction.defaults()
                record.check_same(self.learner.config, metadata, defaults)
            checkpoint = checkpoints.latest(record.folder)
        # the first process writes only when all have looked
        accelerator.wait_for_everyone()
        if checkpoint is not None:
            self.position = checkpoints.load(accelerator, checkpoint, ema=self.learner.average)
            self.saved = self.position.update
        elif accelerator.is_main_process:
            record.begin(self.learner.config, metadata)
        if accelerator.is_main_process:
            record.truncate(self.position.update, len(self.position.history))

    def _train_epoch(self, number: int) -> None:
        """Train for one epoch, or what is left of it.

        It is saved before it is evaluated, as that may fail, or take longer than there is time.
        """
        position = self.position
        config = self.learner.config
        updates = self.learner.batching.updates
        end = number * updates
        done = position.update - (number - 1) * updates
        batches = self.learner.batching.epoch(number, done=done)
        self.learner.model.train()
        start = time.perf_counter()
        for update in range(position.update + 1, end + 1):
            self.warmup.set_share(share_of(config, (update - 1) / updates))
            parts = [
                (images, labels) for images, labels in islice(batches, config.grad_accum_steps)
            ]
            if len(parts) < config.grad_accum_steps:
                raise ValueError(
                    f"the training pictures ended in update {update}; give their true number, and "
                    "at least as many tar shards as all processes have workers"
                )
            loss, asked_to_stop = self.learner.update(update, parts, stop=self.stop.asked)
            position.update = update
            position.lr = self.learner.lr
            position.losses.append(loss)
            position.seconds += time.perf_counter() - start
            self._report(number)
            is_due = config.save_every > 0 and update % config.save_every == 0
            if is_due or asked_to_stop or update == end:
                self.learner.check_weights(update)
                self._save()
            if asked_to_stop:
                raise StoppedError(self._stop_message())
            start = time.perf_counter()

    def _end_epoch(self, number: int, val: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Evaluate, and write what there is after an epoch."""
        self.warmup.set_share(1.0)
        evaluation = self.learner.evaluate(val)
        position = self.position
        epoch = Epoch(
            epoch=number,
            train_loss=sum(position.losses) / len(position.losses),
            eval_loss=evaluation.loss,
            top1=evaluation.top1,
            top5=evaluation.top5,
            lr=position.lr,
            seconds=position.seconds,
            samples_per_sec=self._speed(),
        )
        position.history.append(epoch)
        position.losses = []
        position.seconds = 0.0
        # all processes take part, where each holds a part of the weights
        weights = self.learner.state_dict()
        accelerator = self.learner.accelerator
        if accelerator.is_main_process:
            if self.record is not None:
                self._write_epoch(self.record, weights)
            if self.on_epoch is not None:
                self.on_epoch(epoch)
        accuracy = {"eval_loss": epoch.eval_loss, "top1": epoch.top1, "top5": epoch.top5}
        accelerator.log(accuracy, step=position.update)
        self._save()

    def _write_epoch(self, record: Record, weights: Mapping[str, Tensor]) -> None:
        """Write the weights after an epoch, the reduction beside them, and the log."""
        names = [LAST]
        if self.position.best is self.position.history[-1]:
            names.append(BEST)
        with checkpoints.written(record.folder / LAST):
            for name in names:
                path = record.folder / name
                if self.warmup.reduction is not None:
                    self.warmup.reduction.save_beside(path)
                save_state(weights, path)
            record.add_epoch(self.position.history, self.position.update)

    def _report(self, number: int) -> None:
        """Log an update of an epoch, if one is due, and tell the caller."""
        position = self.position
        config = self.learner.config
        accelerator = self.learner.accelerator
        recent = position.losses[-config.log_every :]
        step = Step(
            update=position.update,
            updates=config.epochs * self.learner.batching.updates,
            loss=sum(recent) / len(recent),
            lr=position.lr,
            samples_per_sec=self._speed(),
        )
        if position.update % config.log_every == 0:
            accelerator.log({"train_loss": step.loss, "lr": step.lr}, step=position.update)
            if self.record is not None and accelerator.is_main_process:
                with checkpoints.written(self.record.folder / LOG):
                    self.record.add_step(step, number)
        if self.on_step is not None and accelerator.is_main_process:
            self.on_step(step)

    def _speed(self) -> float:
        """Return the training pictures a second of this epoch so far."""
        return len(self.position.losses) * self.learner.config.batch_size / self.position.seconds

    def _save(self) -> None:
        """Write a checkpoint; if this update has one already, rewrite only its progress."""
        if self.record is None:
            return
        checkpoints.save(
            self.learner.accelerator,
            self.record.folder,
            self.position,
            ema=self.learner.average,
            keep=self.learner.config.keep,
            updates_per_epoch=self.learner.batching.updates,
            again=self.saved == self.position.update,
        )
        self.saved = self.position.update

    def _stop_message(self) -> str:
        text = f"asked to stop (SIGTERM) after update {self.position.update}"
        if self.record is None:
            return text
        return f"{text}; go on with resume=True from {self.record.folder}"
