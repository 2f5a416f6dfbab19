"""How to train: one frozen value, checked when it is made. To read this file needs no torch."""

import re
from dataclasses import dataclass, fields
from typing import Any

from batvit.checks import PRECISIONS, check_choice, check_interval, check_switch

DISTILLATIONS = ("none", "soft", "hard")
CHOICES = {"precision": tuple(PRECISIONS), "distill": DISTILLATIONS}
# of the name of a policy
SETTING = re.compile(r"(?P<name>[a-z]+)0*(?P<digits>\d+)")
LARGEST_SETTING = 100
SWITCHES = ("grad_checkpointing", "compile")
INTERVALS = {
    "epochs": "[1, 100000]",
    "batch_size": "[1, 10000000]",
    "grad_accum_steps": "[1, 1000000]",
    "keep_warmup_steps": "[1, 100000]",
    "log_every": "[1, 1000000000]",
    "keep": "[1, 1000000000]",
    "min_lr": "[0, 1000]",
    "warmup_epochs": "[0, 100000]",
    "weight_decay": "[0, 1000]",
    "mixup": "[0, 1000]",
    "cutmix": "[0, 1000]",
    "workers": "[0, 1024]",
    "aug_repeats": "[0, 1000]",
    "keep_warmup_start": "[0, 100000]",
    "keep_warmup_epochs": "[0, 100000]",
    "save_every": "[0, 1000000000]",
    "token_labels": "[0, 1000]",
    "lr": "(0, 1000]",
    "clip_grad": "(0, 1000000]",
    "distill_tau": "(0, 1000]",
    "layer_decay": "(0, 1]",
    "smoothing": "[0, 1)",
    "drop_path": "[0, 1)",
    "ema": "[0, 1)",
    "reprob": "[0, 1]",
    "color_jitter": "[0, 1]",
    "distill_alpha": "[0, 1]",
    "seed": "[0, 4294967295]",
}
"""where the value of each field must lie"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train: by default the authors' schedule, and random crops, flips and colours alone.

    Raises:
        ValueError, TypeError: naming the field, the value received, and what to do.

    Examples:
        >>> from batvit.training import TrainConfig
        >>> TrainConfig(epochs=3, lr=1e-4).batch_size
        64
        >>> TrainConfig(epochs=0)
        Traceback (most recent call last):
            ...
        ValueError: epochs must lie in [1, 100000], got 0; the default is 30
    """

    epochs: int = 30
    """passes over the training set"""
    batch_size: int = 64
    """pictures an update, of all processes and accumulated parts together; what does not fill an
    update at the end of an epoch is left out"""
    grad_accum_steps: int = 1
    """parts in which each process goes through its pictures of an update, to save memory"""
    lr: float = 4e-5
    """highest learning rate"""
    min_lr: float = 2e-6
    """learning rate at the start of the warm-up and at the end, along a cosine"""
    warmup_epochs: int = 0
    """epochs in which the learning rate rises"""
    weight_decay: float = 0.05
    """pull of the weights towards zero; biases and norms are left out"""
    layer_decay: float | None = None
    """factor on the learning rate from each block to the one before it"""
    opt: str = "adamw"
    """optimizer, by timm's name"""
    clip_grad: float | None = None
    """largest norm of the gradient; not clipped when not given"""
    ema: float | None = None
    """decay of an average of the weights, such as 0.9999; the average is then evaluated and kept"""
    smoothing: float = 0.1
    """label smoothing"""
    mixup: float = 0.0
    """alpha of mixup: pictures blended in pairs"""
    cutmix: float = 0.0
    """alpha of cutmix: a rectangle of each picture taken from another"""
    auto_augment: str | None = None
    """augmentation policy, by timm's name, such as rand-m9-mstd0.5-inc1"""
    color_jitter: float = 0.4
    """change of brightness, contrast and saturation where there is no policy"""
    reprob: float = 0.0
    """probability that a rectangle of a picture is erased"""
    aug_repeats: int = 0
    """views of each picture in one epoch, of a share of the pictures (repeated augmentation);
    0 as 1; not of tar shards"""
    drop_path: float = 0.0
    """stochastic depth: the rate at which the last block is skipped, falling to 0 at the first;
    models are made with it"""
    distill: str = "none"
    """learn from the dense model: its probabilities (soft), its most likely class (hard), or not
    (none)"""
    distill_alpha: float = 0.5
    """share of the distillation in the loss"""
    distill_tau: float = 1.0
    """temperature of soft distillation"""
    token_labels: float = 0.0
    """weight of the loss at each token of an LV-ViT, whose labels are the dense model's"""
    keep_warmup_start: int = 0
    """epochs with all tokens, before their number begins to fall"""
    keep_warmup_epochs: int = 0
    """epochs in which it falls, along a cosine, to what the reduction says"""
    keep_warmup_steps: int = 5
    """different numbers of tokens on the way, each held for a while"""
    seed: int = 0
    """of everything random"""
    precision: str = "fp32"
    """of the forward pass: fp32, or mixed with bf16 or fp16; the weights stay fp32"""
    grad_checkpointing: bool = False
    """compute activations again in the backward pass instead of keeping them"""
    compile: bool = False
    """run the model through torch.compile"""
    workers: int = 0
    """processes that prepare training pictures, for each process that trains; 0 prepares them
    in it"""
    log_every: int = 50
    """updates from line to line of the log"""
    save_every: int = 0
    """updates from checkpoint to checkpoint within an epoch; there is one after each epoch
    anyway"""
    keep: int = 2
    """how many of the latest checkpoints are kept, besides the best"""

    def __post_init__(self) -> None:
        self._check_numbers()
        _check_optimizer(self.opt)
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed, remedy=f"the default is {allowed[0]}")
        for name in SWITCHES:
            check_switch(name, getattr(self, name))
        _check_policy(self.auto_augment)
        self._check_together()

    def _check_numbers(self) -> None:
        """Refuse numbers outside of their intervals; an integer for a float becomes one."""
        for field in fields(self):
            value = getattr(self, field.name)
            optional = field.default is None
            if field.name not in INTERVALS or (value is None and optional):
                continue
            kind = int if field.type is int else float
            check_interval(
                field.name,
                value,
                INTERVALS[field.name],
                kind=kind,
                remedy=f"the default is {field.default}",
            )
            object.__setattr__(self, field.name, kind(value))

    def _check_together(self) -> None:
        """Refuse values that do not go together."""
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr must not be above lr ({self.lr}), got {self.min_lr}; lower it"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be fewer than the {self.epochs} epochs, "
                f"got {self.warmup_epochs}; lower it"
            )
        if self.mixes and self.batch_size % 2:
            raise ValueError(
                f"batch_size must be even for mixup and cutmix, got {self.batch_size}; add one"
            )
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be cut into the parts of "
                f"grad_accum_steps={self.grad_accum_steps}; give a multiple of it"
            )
        if self.keep_warmup_start + self.keep_warmup_epochs >= self.epochs:
            raise ValueError(
                "the tokens would still be falling at the end: keep_warmup_start + "
                f"keep_warmup_epochs must be fewer than the {self.epochs} epochs, "
                f"got {self.keep_warmup_start} + {self.keep_warmup_epochs}; lower them"
            )

    @property
    def mixes(self) -> bool:
        """Return whether pictures are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def learns_from_teacher(self) -> bool:
        """Return whether the dense model is run beside the one that learns."""
        return self.distill != "none" or self.token_labels > 0

    def check_teacher(self, teacher: object) -> None:
        """Refuse a teacher from whom nothing is to be learnt.

        Args:
            teacher: a model, or the file of one; None if there is none.

        Raises:
            ValueError: naming what to set.
        """
        if teacher is not None and not self.learns_from_teacher:
            raise ValueError(
                "a teacher is given, but nothing is to be learnt from it; "
                "give distill=soft, or distill=hard, too"
            )

    @property
    def warms_up_keep_rate(self) -> bool:
        """Return whether training begins with less than the whole reduction."""
        return self.keep_warmup_start + self.keep_warmup_epochs > 0


def _check_optimizer(name: Any) -> None:
    from timm.optim import get_optimizer_info, list_optimizers

    if name not in list_optimizers():
        raise ValueError(
            f"opt must be one of timm's optimizers, got {name!r}; the default is adamw"
        )
    if get_optimizer_info(name).second_order:
        raise ValueError(
            f"opt {name} needs second derivatives, which are not computed; the default is adamw"
        )


def _check_policy(name: Any) -> None:
    if name is None:
        return
    from timm.data import create_transform

    remedy = "give a policy of timm's, such as rand-m9-mstd0.5-inc1"
    if not isinstance(name, str):
        raise TypeError(f"auto_augment must be a text, got {name!r}; {remedy}")
    for part in name.split("-")[1:]:
        setting = SETTING.match(part)
        # a deviation of more than 100 is timm's way to say: uniform
        if setting is None or setting["name"] == "mstd":
            continue
        if len(setting["digits"]) > 3 or int(setting["digits"]) > LARGEST_SETTING:
            raise ValueError(
                f"auto_augment: no number may be above {LARGEST_SETTING}, got {name!r}; {remedy}"
            )
    try:
        create_transform(32, is_training=True, auto_augment=name)
    except Exception as error:
        raise ValueError(
            f"auto_augment must be a policy of timm's, such as rand-m9-mstd0.5-inc1, got {name!r}"
        ) from error
