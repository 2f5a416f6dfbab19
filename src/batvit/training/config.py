"""How to train: one frozen value, checked when it is made."""

from dataclasses import Field, dataclass, fields
from typing import Any

from timm.data import create_transform
from timm.optim import get_optimizer_info, list_optimizers

PRECISIONS = ("fp32", "bf16", "fp16")
DISTILLATIONS = ("none", "soft", "hard")
ALLOWED = {
    "[1, inf)": (
        "epochs",
        "batch_size",
        "grad_accum_steps",
        "keep_warmup_steps",
        "log_every",
        "keep",
    ),
    "[0, inf)": (
        *("min_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix", "workers"),
        *("aug_repeats", "keep_warmup_start", "keep_warmup_epochs", "save_every", "token_labels"),
    ),
    "(0, inf)": ("lr", "clip_grad", "distill_tau"),
    "(0, 1]": ("layer_decay",),
    "[0, 1)": ("smoothing", "drop_path", "ema"),
    "[0, 1]": ("reprob", "color_jitter", "distill_alpha"),
    "[0, 4294967295]": ("seed",),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. By default the authors' schedule, and no augmentation beyond random crops, flips and colours.

    Raises:
        ValueError, TypeError: naming the field, the value received, and what to do.
    """

    epochs: int = 30
    """passes over the training set"""
    batch_size: int = 64
    """pictures an update, of all processes and accumulated parts together; the rest of an epoch is left out"""
    grad_accum_steps: int = 1
    """parts in which each process goes through its pictures of an update, to save memory"""
    lr: float = 4e-5
    """highest learning rate"""
    min_lr: float = 2e-6
    """learning rate at the start of the warm-up and at the end, along a cosine"""
    warmup_epochs: int = 0
    """epochs in which the learning rate rises"""
    weight_decay: float = 0.05
    """pull of the weights towards zero; biases and norms are collect_errors"""
    layer_decay: float | None = None
    """factor on the learning rate from each block to the one before it"""
    opt: str = "adamw"
    """optimizer, by timm's name"""
    clip_grad: float | None = None
    """largest norm of the gradient; not clipped when not given"""
    ema: float | None = None
    """decay of an average of the weights, such as 0.9999, which then is what is evaluated and kept"""
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
    """views of each picture in one epoch, of a share of the pictures (repeated augmentation); 0 as 1; not of tar shards"""
    drop_path: float = 0.0
    """stochastic depth: the rate at which the last block is skipped, falling to 0 at the first; models are made with it"""
    distill: str = "none"
    """learn from the dense model: its probabilities (soft), its most likely class (hard), or not (none)"""
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
    """processes that prepare training pictures, for each process that trains; 0 prepares them in it"""
    log_every: int = 50
    """updates from line to line of the log"""
    save_every: int = 0
    """updates from checkpoint to checkpoint within an epoch; there is one after each epoch anyway"""
    keep: int = 2
    """how many of the latest checkpoints are kept, besides the best"""

    def __post_init__(self) -> None:
        interval = {name: allowed for allowed, names in ALLOWED.items() for name in names}
        for field in fields(self):
            if field.name in interval:
                value = _number(field, getattr(self, field.name), interval[field.name])
                object.__setattr__(self, field.name, value)
        if self.opt not in list_optimizers():
            raise ValueError(
                f"opt must be one of timm's optimizers, got {self.opt!r}; the default is adamw"
            )
        if get_optimizer_info(self.opt).second_order:
            raise ValueError(
                f"opt {self.opt} needs second derivatives, which are not computed; the default is adamw"
            )
        for name, known in (("precision", PRECISIONS), ("distill", DISTILLATIONS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}; the default is {known[0]}"
                )
        for name in ("grad_checkpointing", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        _check_policy(self.auto_augment)
        self._check_together()

    def _check_together(self) -> None:
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr must not be above lr ({self.lr}), got {self.min_lr}; lower it"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be fewer than the {self.epochs} epochs, got {self.warmup_epochs}; lower it"
            )
        if self.mixes and self.batch_size % 2:
            raise ValueError(
                f"batch_size must be even for mixup and cutmix, got {self.batch_size}; add one"
            )
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into {self.grad_accum_steps} parts; see grad_accum_steps"
            )
        if self.keep_warmup_start + self.keep_warmup_epochs >= self.epochs:
            raise ValueError(
                f"the tokens would still be falling at the end: keep_warmup_start + keep_warmup_epochs must be fewer than the "
                f"{self.epochs} epochs, got {self.keep_warmup_start} + {self.keep_warmup_epochs}"
            )

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def learns_from_teacher(self) -> bool:
        """Whether the dense model is run beside it."""
        return self.distill != "none" or self.token_labels > 0


def _number(field: "Field[Any]", value: Any, allowed: str) -> int | float | None:
    """The value, an integer where a float is meant made one; refused if it does not lie in the interval."""
    name, kind, default = field.name, field.type, f"the default is {field.default}"
    if value is None and field.default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        expected = "an integer" if kind is int else "a number"
        raise TypeError(
            f"{name} must be {expected}, got {value!r} ({type(value).__name__}); {default}"
        )
    low, high = map(float, allowed[1:-1].split(","))
    if (
        not low <= value <= high
        or (value == low and allowed[0] == "(")
        or (value == high and allowed[-1] == ")")
    ):
        raise ValueError(f"{name} must lie in {allowed}, got {value}; {default}")
    return value if kind is int else float(value)


def _check_policy(name: Any) -> None:
    if name is None:
        return
    try:
        create_transform(32, is_training=True, auto_augment=name)
    except Exception as error:
        raise ValueError(
            f"auto_augment must be a policy of timm's, such as rand-m9-mstd0.5-inc1, got {name!r}"
        ) from error
