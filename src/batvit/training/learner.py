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
from batvit.training.stochastic_depth import Depth, paths_of


class DivergedError(ValueError):
    """The loss or a weight is not a finite number any more. The last good checkpoint stays as it is."""


class Learner:
    """What changes from update to update."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        batching: Batching,
        accelerator: Accelerator,
        *,
        teacher: nn.Module | None,
    ) -> None:
        self.model, self.config, self.batching, self.accelerator = (
            model,
            config,
            batching,
            accelerator,
        )
        classes = _count_classes(model, batching)
        self.teacher = _frozen(teacher, model, classes, batching)
        _prepare(model, config)
        self.objective = Objective(
            config,
            classes=classes,
            teacher=self.teacher,
            model=model,
            autocast=lambda: accelerator.autocast(),
        )
        if is_sharded(accelerator) and (
            config.ema is not None or config.keep_warmup_start + config.keep_warmup_epochs
        ):
            raise ValueError(
                "ema and keep_warmup need whole models in each process, which FSDP does not keep; leave them out"
            )
        self.ema = (
            None if config.ema is None else ModelEmaV3(model, decay=config.ema, use_warmup=True)
        )
        optimizer = create_optimizer_v2(
            model,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
        )
        self.scheduler: Any = create_scheduler_v2(
            optimizer,
            num_epochs=config.epochs,
            min_lr=config.min_lr,
            warmup_lr=config.min_lr,
            warmup_epochs=config.warmup_epochs,
            step_on_epochs=False,
            updates_per_epoch=batching.updates,
        )[0]
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = accelerator.prepare(model, optimizer)
        self.run = torch.compile(self.wrapped) if config.compile else self.wrapped
        if config.compile:
            # a graph for each share of the reduction; beyond the limit torch would go on without
            limits: Any = torch._dynamo.config
            limits.recompile_limit = max(limits.recompile_limit, len(shares(config)))
        self.depth = Depth(model, batching)
        self.lr = 0.0

    @property
    def models(self) -> list[nn.Module]:
        """What is reduced together."""
        return [self.model] if self.ema is None else [self.model, self.ema.module]

    @property
    def result(self) -> nn.Module:
        """What is evaluated and kept."""
        if self.ema is not None:
            averaged: nn.Module = self.ema.module
            return averaged
        return self.wrapped if is_sharded(self.accelerator) else self.model

    def update(
        self, number: int, batches: Iterable[tuple[Tensor, Tensor]], *, stop: bool = False
    ) -> tuple[float, bool]:
        """One step of the optimizer, the ``number``-th.

        Returns:
            The loss before it, over all processes, and whether any of them was asked to stop.
        """
        steps = self.config.grad_accum_steps
        loss = torch.zeros((), device=next(self.model.parameters()).device)
        for i, (images, labels) in enumerate(batches):
            with self._silent(last=i == steps - 1):
                part = (
                    self._loss(number, self.batching.part.rank * steps + i, images, labels) / steps
                )
                self.accelerator.backward(part)
            loss += part.detach()
        told = torch.stack((loss / self.accelerator.num_processes, loss.new_tensor(float(stop))))
        value, asked = self.accelerator.reduce(told, "sum").tolist()
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss became {value} in update {number}; lower lr ({self.config.lr})"
            )
        if self.config.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.config.clip_grad)
        self.lr = self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0].get(
            "lr_scale", 1.0
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step_update(number)
        if self.ema is not None:
            self.ema.update(self.model, step=number)
        return value, asked > 0

    def check_weights(self, update: int) -> None:
        """A step can spoil the weights though the loss before it was fine."""
        for name, value in chain(self.wrapped.named_parameters(), self.wrapped.named_buffers()):
            mine = value.to_local() if isinstance(value, DTensor) else value
            if not mine.isfinite().all():
                raise DivergedError(
                    f"{name} is not finite after update {update}; lower lr ({self.config.lr})"
                )

    def evaluate(self, val: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Accuracy of :attr:`result` over the pictures of all processes, each counted once."""
        with self.accelerator.autocast():
            mine = evaluate({"model": self.result}, val)["model"]
        if self.accelerator.num_processes == 1:
            return mine
        totals = torch.tensor(
            astuple(mine.totals()), dtype=torch.float64, device=self.accelerator.device
        )
        return Evaluation.from_totals(Totals(*self.accelerator.reduce(totals, "sum").tolist()))

    def state_dict(self) -> dict[str, Tensor]:
        """The weights to keep, gathered from all processes."""
        if is_sharded(self.accelerator):
            gathered: dict[str, Tensor] = self.accelerator.get_state_dict(self.wrapped)
            return gathered
        return self.result.state_dict()

    def finish(self) -> None:
        """Leave the caller's model as one to be used; with averaged weights, if they were asked for."""
        if self.ema is not None:
            self.model.load_state_dict(self.ema.module.state_dict())
        # what accelerate put on the instance for mixed precision, and by which it knows what it need not prepare again
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            vars(self.model).pop(name, None)
        if self.config.grad_checkpointing:
            unwrapped: Any = self.model
            unwrapped.set_grad_checkpointing(False)
        self.depth.finish()
        _distilled(self.model, False)
        self.model.eval()

    def _loss(self, number: int, part: int, images: Tensor, labels: Tensor) -> Tensor:
        images = placed(images, self.model)
        # a picture is mixed, and skips blocks, alike in whichever part of an update it is; other noise is the part's own
        seed_all(self.config.seed, number)
        images, targets = self.objective.mixed(images, labels.to(images.device))
        self.depth.deal(seed_of(self.config.seed, number), part, images.device)
        seed_all(self.config.seed, number, part)
        return self.objective(self.run, images, targets)

    def _silent(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once an update."""
        return nullcontext() if last else self.accelerator.no_sync(self.wrapped)


def _prepare(model: Any, config: TrainConfig) -> None:
    if config.drop_path and not paths_of(model):
        raise ValueError(
            f"drop_path is {config.drop_path}, but the model was made without stochastic depth; make it with "
            f"drop_path_rate={config.drop_path}, or leave drop_path out"
        )
    if config.grad_checkpointing:
        if not hasattr(model, "set_grad_checkpointing"):
            raise ValueError(
                f"a {type(model).__name__} offers no gradient checkpointing; leave out grad_checkpointing"
            )
        model.set_grad_checkpointing(True)
    _distilled(model, config.distill != "none")


def _distilled(model: Any, enable: bool) -> None:
    if hasattr(model, "set_distilled_training"):
        model.set_distilled_training(enable)


def _frozen(
    teacher: nn.Module | None, model: nn.Module, classes: int, batching: Batching
) -> nn.Module | None:
    if teacher is None:
        return None
    known = _count_classes(teacher, batching)
    if known != classes:
        raise ValueError(
            f"the teacher knows {known} classes, the model {classes}; give a teacher of the same classes"
        )
    return teacher.to(next(model.parameters()).device).eval().requires_grad_(False)


@torch.no_grad()
def _count_classes(model: nn.Module, batching: Batching) -> int:
    """What mixing and the check of labels need; found by asking, as any module may come."""
    logits = model.eval()(placed(batching.sample(model).unsqueeze(0), model))
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"expected logits (1, classes) for one picture, got {found}; give a classifier"
        )
    return logits.shape[1]
