"""How to fine-tune: one frozen value, checked when it is made."""

from dataclasses import Field, dataclass, fields
from typing import Any

from timm.data import create_transform
from timm.optim import list_optimizers

PRECISIONS = ("fp32", "bf16", "fp16")
ALLOWED = {
    "[1, inf)": ("epochs", "batch_size"),
    "[0, inf)": ("min_lr", "warmup_epochs", "weight_decay", "mixup", "cutmix", "workers"),
    "(0, inf)": ("lr", "clip_grad"),
    "[0, 1)": ("smoothing",),
    "[0, 1]": ("reprob",),
    "[0, 4294967295]": ("seed",),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to fine-tune. By default the authors' schedule, and no augmentation beyond random crops, flips and colours.

    Raises:
        ValueError, TypeError: naming the field, the value received, and what to do.
    """

    epochs: int = 30
    """passes over the training set"""
    batch_size: int = 64
    """pictures an update; what is left over at the end of an epoch is left out of it"""
    lr: float = 4e-5
    """highest learning rate"""
    min_lr: float = 2e-6
    """learning rate at the start of the warm-up and at the end, along a cosine"""
    warmup_epochs: int = 0
    """epochs in which the learning rate rises"""
    weight_decay: float = 0.05
    """pull of the weights towards zero; biases and norms are spared"""
    opt: str = "adamw"
    """optimizer, by timm's name"""
    smoothing: float = 0.1
    """label smoothing"""
    mixup: float = 0.0
    """alpha of mixup: pictures blended in pairs"""
    cutmix: float = 0.0
    """alpha of cutmix: a rectangle of each picture taken from another"""
    auto_augment: str | None = None
    """augmentation policy, by timm's name, such as rand-m9-mstd0.5-inc1"""
    reprob: float = 0.0
    """probability that a rectangle of a picture is erased"""
    clip_grad: float | None = None
    """largest norm of the gradient; not clipped when not given"""
    seed: int = 0
    """of everything random"""
    precision: str = "fp32"
    """of the forward pass: fp32, or mixed with bf16 or fp16; the weights stay fp32"""
    workers: int = 0
    """processes that prepare training pictures; 0 prepares them in this one"""

    def __post_init__(self) -> None:
        interval = {name: allowed for allowed, names in ALLOWED.items() for name in names}
        for field in fields(self):
            if field.name in interval:
                value = _number(field, getattr(self, field.name), interval[field.name])
                object.__setattr__(self, field.name, value)
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must not be above lr ({self.lr}), got {self.min_lr}; lower it")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than the {self.epochs} epochs, got {self.warmup_epochs}; lower it")
        if self.mixes and self.batch_size % 2:
            raise ValueError(f"batch_size must be even for mixup and cutmix, got {self.batch_size}; add one")
        if self.opt not in list_optimizers():
            raise ValueError(f"opt must be one of timm's optimizers, got {self.opt!r}; the default is adamw")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}; the default is fp32")
        _check_policy(self.auto_augment)

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


def _number(field: "Field[Any]", value: Any, allowed: str) -> int | float | None:
    """The value, an integer where a float is meant made one; refused if it does not lie in the interval."""
    name, kind, default = field.name, field.type, f"the default is {field.default}"
    if value is None and field.default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        expected = "an integer" if kind is int else "a number"
        raise TypeError(f"{name} must be {expected}, got {value!r} ({type(value).__name__}); {default}")
    low, high = map(float, allowed[1:-1].split(","))
    if not low <= value <= high or (value == low and allowed[0] == "(") or (value == high and allowed[-1] == ")"):
        raise ValueError(f"{name} must lie in {allowed}, got {value}; {default}")
    return value if kind is int else float(value)


def _check_policy(name: Any) -> None:
    if name is None:
        return
    try:
        create_transform(32, is_training=True, auto_augment=name)
    except Exception as error:
        raise ValueError(f"auto_augment must be a policy of timm's, such as rand-m9-mstd0.5-inc1, got {name!r}") from error
