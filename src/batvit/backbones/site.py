"""What happens at a site, whatever library the block comes from: importance, plan, merge."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from batvit.config import BATConfig, Counts
from batvit.core import Assignment, class_importance, merge, received_importance, sum_by_group
from batvit.core.merge import unmerge
from batvit.plans import PLANS, Evidence


@dataclass(frozen=True, eq=False)
class Tokens:
    """What goes from block to block after the first site: all state of one forward pass travels here."""

    x: Float[Tensor, "batch tokens channels"]
    """prefix tokens, then one token a group"""
    size: Float[Tensor, "batch groups"]
    """how many patches each group holds"""
    origin: Assignment
    """which group each patch of the image is in"""
    padded: bool = False
    """whether some patches are padding: they have size 0, weigh nothing in any group, and are attended to by none"""
    bias: Float[Tensor, "batch 1 1 tokens"] | None = None
    """what is added to the attention logits, in the type of ``x``; see :meth:`weighed`"""
    tables: tuple[Tensor, ...] = ()
    """the rotary tables, a row a patch, that :attr:`rows` were made of"""
    rows: tuple[Tensor, ...] = ()
    """the same tables, a row a group; see :meth:`placed`"""

    @classmethod
    def start(
        cls, x: Float[Tensor, "batch tokens channels"], prefix: int, real: Bool[Tensor, "batch patches"] | None = None
    ) -> "Tokens":
        """Every patch a group of its own; ``real`` is False where a patch is padding."""
        batch, patches = x.shape[0], x.shape[1] - prefix
        size = torch.ones(batch, patches, dtype=torch.float32, device=x.device) if real is None else real.float()
        tokens = cls(x, size, Assignment.identity(batch, patches, x.device), padded=real is not None)
        # all sizes are one
        return tokens.weighed(size_aware=False)

    def weighed(self, size_aware: bool, size_power: float = 1.0) -> "Tokens":
        """The same with a bias that fits the sizes; None if the attention needs none.

        With ``size_aware`` the logarithms of the sizes, times their power: a token that stands for five counts as five, or as
        5 ** power. Padding gets -inf.
        """
        if not (size_aware or self.padded):
            return replace(self, bias=None)
        logs = (self.size if size_aware else (self.size > 0).float()).log() * size_power
        bias = nn.functional.pad(logs, (self.x.shape[1] - logs.shape[1], 0))[:, None, None]
        return replace(self, bias=bias.to(self.x.dtype))

    def placed(self, tables: tuple[Tensor, ...]) -> "Tokens":
        """The same with the rows of these rotary tables for each group.

        They are merged only where they are not the very tables that were merged last: as groups change at sites alone, once
        a site, if all blocks are given the same tables.
        """
        if len(tables) == len(self.tables) and all(new is old for new, old in zip(tables, self.tables, strict=True)):
            return self
        return replace(self, tables=tables, rows=tuple(self.positions(table) for table in tables))

    def positions(self, table: Float[Tensor, "*batch_and_heads patches width"]) -> Float[Tensor, "batch _ groups width"]:
        """The rows of a rotary table for each group: the mean of the rows of its patches.

        Rotation is linear. So the merged key, turned by the mean rotation of its patches, meets every query at the mean of
        the logits that it would have if it stood at each of these patches in turn.

        Args:
            table: sines or cosines for every patch: (N, D), (H, N, D) or (B, H, N, D), where H may be 1.

        Returns:
            (B, 1 or H, M, D): what broadcasts over the queries (B, H, M, D).
        """
        rows = table[(None,) * (4 - table.dim())].transpose(1, 2)
        flat = rows.flatten(2).expand(self.origin.batch, -1, -1)
        merged: Tensor = merge(flat, self.origin).unflatten(-1, rows.shape[2:])
        return merged.transpose(1, 2)

    def grid(self) -> Float[Tensor, "batch tokens channels"]:
        """Every patch gets its group's feature back, so that what pools patches weights a group by its size."""
        prefix = self.x.shape[1] - self.size.shape[1]
        return torch.cat([self.x[:, :prefix], unmerge(self.x[:, prefix:], self.origin)], dim=1)


# what travels between modules can be taken apart by those that look for tensors in it: parallel wrappers, for one
torch.export.register_dataclass(Assignment)
torch.export.register_dataclass(Tokens)


class Heard(NamedTuple):
    """The queries and keys that an attention module made."""

    queries: Float[Tensor, "batch heads queries width"]
    """of all tokens; where there is a class token, the first is enough"""
    keys: Float[Tensor, "batch heads tokens width"]
    """of all tokens (B, H, prefix + M, d)"""
    scale: float


class Reduce(nn.Module):
    """The reduction at one site: a module without parameters, so that it can be hooked, timed and counted by name."""

    _last: tuple[int, Counts] | None = None

    def __init__(self, config: BATConfig, block: int, *, depth: int, prefix: int, class_token: bool) -> None:
        super().__init__()
        self.config, self.block, self.depth = config, block, depth
        self.prefix, self.class_token = prefix, class_token
        self._told = json.dumps(config.to_dict())

    def counts(self, patches: int) -> Counts:
        """The counts at this site for an image of ``patches`` tokens.

        Raises:
            ValueError: if the configuration does not go with so many.
        """
        # to a graph what is remembered would be one more thing to watch
        last = None if torch.compiler.is_compiling() else self._last
        if last is not None and last[0] == patches:
            return last[1]
        # it loads torch's compiler, for which importing this library need not wait
        from batvit.backbones.constant import counts

        found: Counts | str = counts(self._told, self.block, self.depth, patches, self.prefix)
        if isinstance(found, str):
            raise ValueError(found)
        if not torch.compiler.is_compiling():
            self._last = patches, found
        return found

    def forward(self, tokens: Tokens, heard: Heard | Callable[[], Heard], tables: tuple[Tensor, ...] = ()) -> Tokens:
        """Between attention and MLP: M tokens in, fewer out. Prefix tokens pass by.

        All that a reduction costs is done in here, so that it is timed as a part of it.

        Args:
            tokens: after the attention of this block and its residual.
            heard: what that attention made; or what makes it once more, if that is needed.
            tables: the rotary tables that the block was given, a row a patch.
        """
        counts = self.counts(tokens.origin.tokens)
        if counts.tokens_out == tokens.size.shape[1]:
            return tokens
        heard = heard if isinstance(heard, Heard) else heard()
        prefix, image = tokens.x[:, : self.prefix], tokens.x[:, self.prefix :].contiguous()
        importance = self.importance(tokens, heard)
        features = image if self.config.similarity == "tokens" else self.keys(heard)
        if tokens.padded:
            # what padding holds must not sway the plan
            features = torch.where(tokens.size.unsqueeze(-1) > 0, features, 0)
        evidence = Evidence(features, importance, tokens.size, self.depth, self.block, tokens.padded)
        method = PLANS[self.config.method]
        with torch.no_grad():
            plan = method.decide(evidence, counts, self.config)
        if method.combine is None:
            image = merge(image, plan, self.weight(importance, tokens.size), keep_norm=self.config.keep_norm)
        else:
            image = method.combine(image, evidence, plan)
        x, size = torch.cat([prefix, image], dim=1), sum_by_group(tokens.size, plan)
        reduced = replace(tokens, x=x, size=size, origin=tokens.origin.then(plan), bias=None, tables=(), rows=())
        # after the last block nobody reads them
        read = tables if self.block < self.depth - 1 else ()
        return reduced.weighed(self.config.size_aware, self.config.size_power).placed(read)

    def importance(self, tokens: Tokens, heard: Heard) -> Float[Tensor, "batch groups"]:
        """Class attention; the mean attention received where there is no class token."""
        measure = class_importance if self.class_token else received_importance
        return measure(heard.queries, heard.keys, prefix=self.prefix, scale=heard.scale, bias=tokens.bias)

    def keys(self, heard: Heard) -> Float[Tensor, "batch groups width"]:
        """The keys of the image tokens, averaged over heads."""
        return heard.keys[:, :, self.prefix :].mean(dim=1)

    def weight(
        self, importance: Float[Tensor, "batch groups"], size: Float[Tensor, "batch groups"]
    ) -> Float[Tensor, "batch groups"]:
        """What each member of a group is weighted by."""
        if self.config.weight == "importance":
            return importance
        return size if self.config.weight == "size" else importance * size

    def extra_repr(self) -> str:
        """What ``print(model)`` shows of it."""
        return f"block={self.block}, method={self.config.method}"
