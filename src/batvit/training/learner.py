"""One update: a model, what it learns from, and what moves its weights."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from batvit.data.loading import placed
from batvit.measure.accuracy import Evaluation, Totals, evaluate
from batvit.training.batches import Batching, seed_all, seed_of
from batvit.training.config import TrainConfig
from batvit.training.keep_rate_warmup import shares
from batvit.training.objective import Objective
from batvit.training.processes import is_sharded
from batvit.training.stochastic_depth import StochasticDepth, paths_of


class DivergedError(ValueError):
    """The loss or a weight is not finite any more. The last good checkpoint stays as it is."""


class Learner:
    """A model with its optimizer, schedule and objective: what changes from update to update.

    Args:
        model: changed in place; :meth:`finish` leaves it as one to be used.
        config: how.
        batching: the training pictures.
        accelerator: what the model runs on.
        teacher: the model to learn from, frozen here; None where there is none.

    Raises:
        ValueError: if the model, or the teacher, cannot be trained, or learnt from, as it is asked.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        batching: Batching,
        accelerator: Accelerator,
        *,
        teacher: nn.Module | None,
    ) -> None:
        self.model = model
        self.config = config
        self.batching = batching
        self.accelerator = accelerator
        classes = _count_classes(model, batching)
        if teacher is not None:
            _freeze(teacher, model, classes, batching)
        _prepare(model, config)
        self.objective = Objective(
            config,
            classes=classes,
            teacher=teacher,
            model=model,
            autocast=lambda: accelerator.autocast(),
        )
        self.ema: ModelEmaV3 | None = None
        if is_sharded(accelerator):
            _check_sharded(config)
        elif config.ema is not None:
            self.ema = ModelEmaV3(model, decay=config.ema, use_warmup=True)
        optimizer = create_optimizer_v2(
            model,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
        )
        self.scheduler = _scheduler(optimizer, config, batching.updates)
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        self.run = _compiled(self.wrapped, config) if config.compile else self.wrapped
        self.depth = StochasticDepth(model, batching)
        self.lr = 0.0

    @property
    def average(self) -> nn.Module | None:
        """The model with the average of the weights, if there is one."""
        if self.ema is None:
            return None
        averaged: nn.Module = self.ema.module
        return averaged

    @property
    def models(self) -> list[nn.Module]:
        """The models that are reduced together."""
        average = self.average
        return [self.model] if average is None else [self.model, average]

    @property
    def result(self) -> nn.Module:
        """The model that is evaluated and kept."""
        average = self.average
        if average is not None:
            return average
        return self.wrapped if is_sharded(self.accelerator) else self.model

    def update(
        self, number: int, batches: Iterable[tuple[Tensor, Tensor]], *, stop: bool = False
    ) -> tuple[float, bool]:
        """Take one step of the optimizer.

        Args:
            number: of the update, counted from 1 over all epochs.
            batches: the pictures and labels of this process, one batch for each part.
            stop: whether this process was asked to stop.

        Returns:
            The loss before the step, over all processes, and whether any of them was asked to stop.

        Raises:
            DivergedError: if the loss is not finite.
        """
        loss = self._backward(number, batches)
        # one message for both, as processes wait for one another at each
        sums = torch.stack((loss / self.accelerator.num_processes, loss.new_tensor(float(stop))))
        value, asked = self.accelerator.reduce(sums, "sum").tolist()
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss became {value} in update {number}; lower lr ({self.config.lr})"
            )
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip_grad)
        # with layer decay the rate of each group is a share of the schedule's
        group = self.optimizer.param_groups[0]
        self.lr = group["lr"] / group.get("lr_scale", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step_update(number)
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return value, asked > 0

    def check_weights(self, update: int) -> None:
        """Refuse to go on with weights that a step has spoilt, though the loss before it was fine.

        Raises:
            DivergedError: naming the first weight that is not finite.
        """
        for name, value in chain(self.wrapped.named_parameters(), self.wrapped.named_buffers()):
            own_part = value.to_local() if isinstance(value, DTensor) else value
            if not own_part.isfinite().all():
                raise DivergedError(
                    f"{name} is not finite after update {update}; lower lr ({self.config.lr})"
                )

    def evaluate(self, val: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Return the accuracy of :attr:`result` over the pictures of all processes."""
        with self.accelerator.autocast():
            own_part = evaluate({"model": self.result}, val)["model"]
        if self.accelerator.num_processes == 1:
            return own_part
        totals = torch.tensor(
            astuple(own_part.totals()), dtype=torch.float64, device=self.accelerator.device
        )
        return Evaluation.from_totals(Totals(*self.accelerator.reduce(totals, "sum").tolist()))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights to keep, gathered from all processes."""
        if is_sharded(self.accelerator):
            gathered: dict[str, Tensor] = self.accelerator.get_state_dict(self.wrapped)
            return gathered
        return self.result.state_dict()

    def finish(self) -> None:
        """Leave the caller's model as one to be used, with averaged weights if there are any."""
        average = self.average
        if average is not None:
            self.model.load_state_dict(average.state_dict())
        # accelerate puts them on the instance for mixed precision, and to know what is prepared
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(self.model).pop(name, None)
        if self.config.grad_checkpointing:
            unwrapped: Any = self.model
            unwrapped.set_grad_checkpointing(False)
        self.depth.finish()
        _set_distilled(self.model, False)
        self.model.eval()

    def _backward(self, number: int, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Add up the gradients of all parts of an update, and return their mean loss."""
        steps = self.config.grad_accum_steps
        loss = torch.zeros((), device=next(self.model.parameters()).device)
        for i, (images, labels) in enumerate(batches):
            part = self.batching.part.rank * steps + i
            with self._without_exchange(last=i == steps - 1):
                part_loss = self._loss(number, part, images, labels) / steps
                self.accelerator.backward(part_loss)
            loss += part_loss.detach()
        return loss

    def _loss(self, number: int, part: int, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of one part of an update, a scalar."""
        images = placed(images, self.model)
        seed = self.config.seed
        # a picture is mixed, and skips blocks, alike in whichever part of an update it is
        seed_all(seed, number)
        images, targets = self.objective.mixed(images, labels.to(images.device))
        self.depth.draw(seed_of(seed, number), part, images.device)
        # other noise is the part's own
        seed_all(seed, number, part)
        return self.objective(self.run, images, targets)

    def _without_exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Keep the gradients of all parts but the last in this process: one exchange an update."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)


def _scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, updates: int) -> Any:
    """Return timm's schedule of the learning rate, which counts updates, so many an epoch."""
    scheduler, _ = create_scheduler_v2(
        optimizer,
        num_epochs=config.epochs,
        min_lr=config.min_lr,
        warmup_lr=config.min_lr,
        warmup_epochs=config.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=updates,
    )
    return scheduler


def _compiled(model: nn.Module, config: TrainConfig) -> Any:
    """Return the model compiled, with a graph for each share of the reduction."""
    # beyond the limit torch would go on without a graph; it is a setting of the whole process
    limits: Any = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, len(shares(config)))
    return torch.compile(model)


def _check_sharded(config: TrainConfig) -> None:
    if config.ema is not None or config.warms_up_keep_rate:
        raise ValueError(
            "ema, keep_warmup_start and keep_warmup_epochs need whole models in each process, "
            "which FSDP does not keep; leave them out"
        )


def _prepare(model: Any, config: TrainConfig) -> None:
    """Switch a model to how it is to be trained."""
    if config.drop_path and not paths_of(model):
        raise ValueError(
            f"drop_path={config.drop_path} is given, but the model was made without stochastic "
            f"depth; make it with drop_path_rate={config.drop_path}, or leave drop_path out"
        )
    if config.grad_checkpointing:
        if not hasattr(model, "set_grad_checkpointing"):
            raise ValueError(
                f"a {type(model).__name__} offers no gradient checkpointing; "
                "leave out grad_checkpointing"
            )
        model.set_grad_checkpointing(True)
    _set_distilled(model, config.distill != "none")


def _set_distilled(model: Any, enable: bool) -> None:
    """Let a distilled DeiT give the outputs of both heads, or their mean; others have one head."""
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(enable)


def _freeze(teacher: nn.Module, model: nn.Module, classes: int, batching: Batching) -> None:
    """Put a teacher of the same classes where the model is, in eval mode, without gradients."""
    known = _count_classes(teacher, batching)
    if known != classes:
        raise ValueError(
            f"the teacher knows {known} classes, the model {classes}; "
            "give a teacher of the same classes"
        )
    teacher.to(next(model.parameters()).device)
    teacher.eval()
    teacher.requires_grad_(False)


@torch.no_grad()
def _count_classes(model: nn.Module, batching: Batching) -> int:
    """Return the classes of a model, of which few tell, by the logits of one picture."""
    logits = model.eval()(placed(batching.sample(model).unsqueeze(0), model))
    if isinstance(logits, Tensor) and logits.dim() == 2:
        return logits.shape[1]
    output = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    raise ValueError(
        f"expected logits (1, classes) for one picture, got {output}; give a classifier"
    )
