"""What batvit needs to know of a model, whatever library it comes from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from batvit.config import BATConfig
from batvit.plans import PLANS
from batvit.reduction.block import ReducedBlock
from batvit.reduction.grid import WithGrid
from batvit.reduction.wrapped import unwrapped


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of a Vision Transformer, for images of one size.

    Examples:
        >>> from batvit.backbones.registry import anatomy_of
        >>> anatomy = anatomy_of(timm.create_model("vit_tiny_patch16_224"))
        >>> anatomy.depth, anatomy.patches, anatomy.prefix
        (12, 196, 1)
    """

    tower: nn.Module
    """what takes the images alone: the model, or the image half of one that takes texts too"""
    stem: nn.Module
    """the module of the tower that is given the images"""
    blocks: tuple[nn.Module, ...]
    """the transformer blocks, in order; wrappers around them are taken off"""
    image_size: tuple[int, int]
    """height and width in pixels"""
    grid: tuple[int, int]
    """rows and columns of patches"""
    width: int
    """channels of a token"""
    prefix: int
    """tokens that are no patches: class, distillation, registers, detection"""
    class_token: bool
    """whether the first token is a class token; without one, importance is the attention each token
    receives"""
    reads_patches: bool
    """whether what follows the blocks reads all patches; then each gets its group's feature back
    after the last"""

    arguments: dict[str, Any] = field(default_factory=dict)
    """what the tower's forward needs besides images of this size"""
    reads_prefix_only: bool = False
    """whether what follows the blocks reads prefix tokens and nothing else; then no other need go
    through the last MLP"""
    left_out: int = 0
    """patches that do not reach the first block: those that a masked autoencoder hides"""
    suffix: int = 0
    """how many of the prefix tokens stand behind the patches"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(map(unwrapped, self.blocks)))

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def channels(self) -> int:
        """Channels of an image: what the stem says, or its first convolution takes."""
        channels = int(getattr(self.stem, "in_chans", 0))
        if channels:
            return channels
        for part in self.stem.modules():
            if isinstance(part, nn.Conv2d):
                return part.in_channels
        return 3

    @property
    def patches(self) -> int:
        """Image tokens at the first block."""
        return self.grid[0] * self.grid[1] - self.left_out

    @property
    def name(self) -> str:
        """The name of the library's class of the tower."""
        kind: type = type(self.tower)
        if issubclass(kind, WithGrid):
            kind = kind.own_class()
        return kind.__name__

    def name_of(self, block: int) -> str:
        """Return what the tower calls one of its blocks, counted from 0: ``blocks.3``."""
        for name, module in self.tower.named_modules():
            if module is self.blocks[block]:
                return str(name)
        raise ValueError(f"block {block} is no module of this {self.name}")


class Adapter(ABC):
    """One library's Vision Transformers.

    A subclass in one file, and :func:`batvit.register`, add another library.

    Examples:
        A whole one is ``examples/own_backbone.py``. What an adapter tells:

        >>> from batvit.backbones.registry import adapter_of
        >>> adapter = adapter_of(timm.create_model("vit_tiny_patch16_224"))
        >>> adapter.library, adapter.families["DeiT"]
        ('timm', 'deit_small_patch16_224')
    """

    library: ClassVar[str]
    """top-level module without which no such model can exist; the adapter is asked only once it is
    imported"""
    families: ClassVar[dict[str, str]]
    """what is supported, each with an example: the name of a model or of its class"""
    blocks: ClassVar[tuple[type[ReducedBlock], ...]]
    """a reduced class for every class of block, which derives from the library's own"""

    def reduced_classes(self) -> tuple[type[ReducedBlock], ...]:
        """Return :attr:`blocks`, or those of them that a model at hand may need."""
        return self.blocks

    def refusal(self, model: nn.Module) -> str | None:
        """Return why a model of this library that does not match cannot be reduced, if known.

        Half a sentence that begins with what the model has, and a remedy.
        """
        return None

    @abstractmethod
    def matches(self, model: nn.Module) -> bool:
        """Return whether a model is one of this library's Vision Transformers, or holds one."""

    @abstractmethod
    def anatomy(self, model: nn.Module, image_size: tuple[int, int] | None = None) -> Anatomy:
        """Return the parts of a model that matches.

        Args:
            model: for which :meth:`matches` holds.
            image_size: (height, width) in pixels; the model's own by default.

        Raises:
            TypeError: if it is one of a kind that cannot be reduced, saying why.
            ValueError: if it takes images of one size only, and not of this.
        """

    def check(self, model: nn.Module, config: BATConfig) -> None:  # noqa: B027
        """Refuse a configuration that a model cannot run, with ValueError; none as a rule."""

    def patched(self, model: nn.Module, config: BATConfig) -> None:  # noqa: B027
        """Do what else a model needs once its blocks are reduced; nothing as a rule."""

    def unpatched(self, model: nn.Module) -> None:  # noqa: B027
        """Undo :meth:`patched`. Called for models that are not patched, too."""


def last_output_form(anatomy: Anatomy, config: BATConfig) -> str:
    """Return how the last block leaves its tokens; see :meth:`ReducedBlock.run`.

    What reads patches gets the grid back, unless patches were dropped.
    """
    if config.prefix_only and anatomy.reads_prefix_only:
        return "prefix"
    if anatomy.reads_patches and not PLANS[config.method].drops:
        return "grid"
    return "tensor"
