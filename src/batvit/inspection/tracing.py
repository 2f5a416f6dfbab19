"""What becomes of each patch, and how diverse the tokens stay, recorded while a model runs."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from batvit.backbones.registry import anatomy_of
from batvit.core import Assignment, diversity, unmerge
from batvit.inspection.summary import info
from batvit.plans import PLANS
from batvit.plans.plan import Counts
from batvit.reduction.block import features_of
from batvit.reduction.site import Reduce, reductions
from batvit.reduction.tokens import Tokens


@dataclass(frozen=True, eq=False)
class SiteTrace:
    """What became of each patch at one site, for a batch of B images."""

    counts: Counts
    """how many tokens came in, were attentive, were merged in pairs and into clusters, and went
    on"""
    origin: Assignment
    """which of the M groups after this site each of the N patches of the image is in"""
    size: Float[Tensor, "batch groups"]
    """how many patches each group holds"""

    @property
    def attentive(self) -> Bool[Tensor, "batch patches"]:
        """Return which patches are attentive; the others are in a cluster, or pruned."""
        # the attentive groups come first, and each pair is one of them
        groups = self.counts.attentive - self.counts.pairs
        return self.origin.kept & (self.origin.index < groups)

    def to_dict(self, image: int = 0) -> dict[str, Any]:
        """Return the counts, and the group of each patch of one image, in plain values."""
        return self.counts._asdict() | {"groups": self.origin.index[image].tolist()}

    def unmerge(
        self, features: Float[Tensor, "batch groups channels"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Give every patch the feature of its group; zeros for a pruned one."""
        return unmerge(features, self.origin)


@dataclass(eq=False)
class Trace:
    """The last forward pass of a patched model; made by :func:`trace`.

    Examples:
        As in the example of :func:`trace`:

        >>> record.grid
        (14, 14)
        >>> [site.counts.tokens_out for site in record.sites]
        [95, 47, 23]
    """

    model: nn.Module
    image_size: tuple[int, int] | None = None
    """(height, width) in pixels of the images that went through"""
    sites: list[SiteTrace] = field(default_factory=list)
    kind: str = "attentive"
    """what groups that are no clusters are called: attentive, or just groups of a plan that knows
    no attentive tokens"""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return anatomy_of(self.model, self.image_size).grid

    @property
    def covered(self) -> tuple[int, int]:
        """(height, width) in pixels of all patches together.

        An edge of the image that is narrower than a patch is in none.
        """
        size = self.image_size or self.grid
        # the stride of the stem is that of all its convolutions, one after the other
        steps = [1, 1]
        for module in anatomy_of(self.model, self.image_size).stem.modules():
            if isinstance(module, nn.Conv2d):
                steps = [steps[0] * module.stride[0], steps[1] * module.stride[1]]
        height = self.grid[0] * steps[0]
        width = self.grid[1] * steps[1]
        # a stem that is no chain of convolutions does not tell its stride
        plausible = abs(height - size[0]) < steps[0] and abs(width - size[1]) < steps[1]
        return (height, width) if plausible else size

    def to_dict(self, image: int = 0) -> dict[str, Any]:
        """Return what became of each patch of one image of the batch, in plain values."""
        sites = [site.to_dict(image) for site in self.sites]
        return {"grid": self.grid, "sites": sites}

    def __str__(self) -> str:
        if not self.sites:
            return "Trace(empty: run the model inside the with block)"
        seen = self.sites[0].origin.tokens
        patches = math.prod(self.grid)
        if seen == patches:
            head = str(info(self.model, image_size=self.image_size))
        else:
            head = f"{seen} of {patches} patches were seen"
        groups = [f"after block {site.counts.block}: {site.origin!r}" for site in self.sites]
        return "\n".join([head, *groups])

    def _start(self, module: nn.Module, args: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Forget the pass before: a hook before the stem, which is given images first."""
        height, width = next(iter((*args, *arguments.values()))).shape[-2:]
        self.image_size = (int(height), int(width))
        self.sites = []

    def _record(self, module: Reduce, args: tuple[Any, ...], output: Any) -> None:
        """Keep what a site gave: a hook after it."""
        tokens = Tokens.of(output)
        counts = module.counts(tokens.origin.tokens)
        # gradient checkpointing runs a block again
        earlier = [site for site in self.sites if site.counts.block < counts.block]
        if earlier and counts.tokens_out == counts.tokens_in:
            # nothing was decided here: the groups are those that they were
            counts = earlier[-1].counts._replace(block=counts.block, tokens_in=counts.tokens_in)
        self.sites = [*earlier, SiteTrace(counts, tokens.origin, tokens.sizes.float())]
        has_parts = PLANS[module.config.method].split is not None
        self.kind = "attentive" if has_parts else "groups"


@contextmanager
def trace(model: nn.Module) -> Iterator[Trace]:
    """Record what a patched model does with each patch, while the block runs.

    Of several forward passes the last is kept. Passes of other threads, or of other contexts
    (:mod:`contextvars`), are not seen. The model must not be compiled.

    Raises:
        ValueError: if the model is not patched.
        TypeError: if it is not supported.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> with batvit.trace(batvit.patch(model, keep_rate=0.5)) as record:
        ...     logits = model(torch.zeros(1, 3, 224, 224))
        >>> print(record.sites[0].origin)  # doctest: +ELLIPSIS
        Assignment(196 tokens -> 95 groups, batch 1, largest group ..., 0 pruned)
    """
    stem = anatomy_of(model).stem
    sites = reductions(model)
    if not sites:
        raise ValueError(
            "this model is not patched, so there is nothing to trace; "
            "call batvit.patch(model) first"
        )
    record = Trace(model)
    with ExitStack() as hooks:
        of_this_context = hooks.enter_context(_listening())
        start = of_this_context(record._start)
        hooks.callback(stem.register_forward_pre_hook(start, with_kwargs=True).remove)
        for site in sites.values():
            hooks.callback(site.register_forward_hook(of_this_context(record._record)).remove)
        yield record


_listeners: ContextVar[tuple[object, ...]] = ContextVar("listeners", default=())


@contextmanager
def _listening() -> Iterator[Callable[[Callable[..., None]], Callable[..., None]]]:
    """Give what makes a hook hear its own thread and context alone, and no other pass."""
    listener = object()
    before = _listeners.set((*_listeners.get(), listener))

    def of_this_context(hook: Callable[..., None]) -> Callable[..., None]:
        def heard(*args: Any) -> None:
            if listener in _listeners.get():
                hook(*args)

        return heard

    try:
        yield of_this_context
    finally:
        _listeners.reset(before)


@torch.no_grad()
def diversity_by_block(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"]
) -> list[float]:
    """Return :func:`batvit.diversity` of the image tokens after each block, averaged over the
    images.

    A group counts once for every patch it holds, so that dense and reduced models can be compared.
    Dropped tokens do not count.

    Args:
        model: a supported model, patched or not, in eval mode.
        images: normalised as the model expects.

    Raises:
        TypeError: if the model is not supported.
        ValueError: if it takes images of one size only, and not of this.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=4).eval()
        >>> residuals = batvit.diversity_by_block(model, torch.zeros(1, 3, 224, 224))
        >>> len(residuals)
        4
    """
    height, width = images.shape[-2:]
    anatomy = anatomy_of(model, (height, width))
    listener = _DiversityListener(anatomy.prefix, anatomy.suffix)
    with ExitStack() as hooks:
        of_this_context = hooks.enter_context(_listening())
        after_site = of_this_context(listener.after_site)
        after_block = of_this_context(listener.after_block)
        last: Any = anatomy.blocks[-1]
        if getattr(last, "output_form", None) == "prefix":
            # look at the patches too, although the head does not read them
            hooks.callback(setattr, last, "output_form", "prefix")
            last.output_form = "tensor"
        for site in reductions(model).values():
            hooks.callback(site.register_forward_hook(after_site).remove)
        for block in anatomy.blocks:
            hooks.callback(block.register_forward_hook(after_block).remove)
        anatomy.tower(images, **anatomy.arguments)
    return listener.values


class _DiversityListener:
    """The diversity after each block of one forward pass."""

    def __init__(self, prefix: int, suffix: int) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.values: list[float] = []
        self.size: Tensor | None = None

    def after_site(self, module: nn.Module, args: Any, output: Any) -> None:
        """Remember how many patches each group holds."""
        self.size = Tokens.of(output).sizes.float()

    def after_block(self, module: nn.Module, args: Any, output: Any) -> None:
        """Measure the image tokens that a block gives."""
        tokens = Tokens.of(features_of(output))
        if not isinstance(tokens, Tokens):
            tokens = Tokens.start(tokens, self.prefix, suffix=self.suffix)
        x = tokens.x
        image = x[:, self.prefix :]
        size = self.size
        if size is not None and size.shape[1] != image.shape[1]:
            # a last block that gives the grid back has one token a patch again
            size = None
        self.values.append(float(diversity(image, size).mean()))
