"""What became of each patch, and how diverse the tokens stay: listening to a model while it runs."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from batvit.backbones.registry import anatomy_of
from batvit.core import Assignment, diversity, unmerge
from batvit.inspection.summary import info
from batvit.plans.plan import Counts
from batvit.reduction.site import Reduce, reductions
from batvit.reduction.tokens import Tokens


@dataclass(frozen=True, eq=False)
class SiteTrace:
    """What became of each patch at one site, for a batch of B images."""

    counts: Counts
    """how many tokens came in, were attentive, paired, clustered, and went on"""
    origin: Assignment
    """the N patches of the image to the M groups after this site"""
    size: Float[Tensor, "batch groups"]
    """how many patches each group holds"""

    @property
    def attentive(self) -> Bool[Tensor, "batch patches"]:
        """Which patches are in an attentive group; the others are in a cluster, or pruned."""
        return self.origin.kept & (self.origin.index < self.counts.attentive - self.counts.pairs)

    def unmerge(
        self, features: Float[Tensor, "batch groups channels"]
    ) -> Float[Tensor, "batch patches channels"]:
        """Give every patch the feature of its group; zeros for a pruned one."""
        return unmerge(features, self.origin)


@dataclass(eq=False)
class Trace:
    """The last forward pass of a patched model; made by :func:`trace`."""

    model: nn.Module
    image_size: tuple[int, int] | None = None
    """(height, width) in pixels of the images that went through"""
    sites: list[SiteTrace] = field(default_factory=list)
    kind: str = "attentive"
    """what the groups are that are no clusters: attentive, as BAT tells them from others; of its peers just groups"""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return anatomy_of(self.model, self.image_size).grid

    @property
    def covered(self) -> tuple[int, int]:
        """(height, width) in pixels of all patches together: the edge of an image that is no multiple of them is in none."""
        size, stem = self.image_size or self.grid, anatomy_of(self.model, self.image_size).stem
        strides = [module.stride for module in stem.modules() if isinstance(module, nn.Conv2d)]
        steps = [math.prod(stride[axis] for stride in strides) for axis in (0, 1)]
        whole = [number * step for number, step in zip(self.grid, steps, strict=True)]
        known = all(
            abs(pixels - all_) < step for pixels, all_, step in zip(whole, size, steps, strict=True)
        )
        return (whole[0], whole[1]) if known else size

    def __str__(self) -> str:
        if not self.sites:
            return "Trace(empty: run the model inside the with block)"
        sizes = [f"after block {s.counts.block}: {s.origin!r}" for s in self.sites]
        seen, patches = self.sites[0].origin.tokens, math.prod(self.grid)
        table = (
            info(self.model, image_size=self.image_size)
            if seen == patches
            else f"{seen} of {patches} patches were seen"
        )
        return "\n".join([str(table), *sizes])

    def _start(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.sites = []
        self.image_size = (args[0].shape[-2], args[0].shape[-1])

    def _record(self, module: Reduce, args: tuple[Any, ...], tokens: Tokens) -> None:
        counts = module.counts(tokens.origin.tokens)
        # gradient checkpointing runs a block again
        earlier = [site for site in self.sites if site.counts.block < counts.block]
        if earlier and counts.tokens_out == counts.tokens_in:
            # nothing was decided here: the groups are those that they were
            counts = earlier[-1].counts._replace(block=counts.block, tokens_in=counts.tokens_in)
        self.sites = [*earlier, SiteTrace(counts, tokens.origin, tokens.size.detach())]
        self.kind = "attentive" if module.config.method == "bat" else "groups"


@contextmanager
def trace(model: nn.Module) -> Iterator[Trace]:
    """Record what a patched model does with each patch, while the block runs.

    >>> with batvit.trace(model) as trace:
    ...     logits = model(images)
    >>> print(trace)

    Of several forward passes the last is kept. The model must not be compiled.

    Raises:
        ValueError: if the model is not patched.
        TypeError: if it is not supported.
    """
    stem = anatomy_of(model).stem
    sites = reductions(model)
    if not sites:
        raise ValueError(
            "this model is not patched, so there is nothing to trace; call batvit.patch(model) first"
        )
    record = Trace(model)
    with ExitStack() as hooks:
        hooks.callback(stem.register_forward_pre_hook(record._start).remove)
        for site in sites.values():
            hooks.callback(site.register_forward_hook(record._record).remove)
        yield record


@torch.no_grad()
def diversity_by_block(
    model: nn.Module, images: Float[Tensor, "batch 3 height width"]
) -> list[float]:
    """:func:`batvit.diversity` of the image tokens after each block, averaged over the images.

    A group counts once for every patch it holds, so dense and reduced models can be compared; dropped tokens do not count.

    Args:
        model: a supported model, patched or not, in eval mode.
        images: normalised as the model expects.
    """
    anatomy = anatomy_of(model, (images.shape[-2], images.shape[-1]))
    prefix = anatomy.prefix
    found: list[float] = []
    size: list[Tensor | None] = [None]

    def hear_site(module: nn.Module, args: Any, tokens: Tokens) -> None:
        size[0] = tokens.size

    def hear_block(module: nn.Module, args: Any, output: Tensor | Tokens) -> None:
        x = (output.x if isinstance(output, Tokens) else output)[:, prefix:]
        # a last block that gives the grid back has one token a patch again
        weight = size[0] if size[0] is not None and size[0].shape[1] == x.shape[1] else None
        found.append(float(diversity(x, weight).mean()))

    with ExitStack() as hooks:
        last: Any = anatomy.blocks[-1]
        if getattr(last, "output_form", None) == "prefix":
            # the tokens that the head does not read are looked at all the same
            hooks.callback(setattr, last, "output_form", "prefix")
            last.output_form = "tensor"
        for site in reductions(model).values():
            hooks.callback(site.register_forward_hook(hear_site).remove)
        for block in anatomy.blocks:
            hooks.callback(block.register_forward_hook(hear_block).remove)
        anatomy.tower(images, **anatomy.arguments)
    return found
