"""What happens at a site, whatever library the block comes from: importance, plan, merge."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batvit.config.config import BATConfig
from batvit.core import (
    Assignment,
    class_importance,
    merge,
    received_importance,
    sum_by_group,
)
from batvit.plans import PLANS, Evidence
from batvit.plans.plan import Counts
from batvit.reduction.tokens import Tokens

# what travels between modules can be taken apart by those that look for tensors in it: parallel wrappers, for one
torch.export.register_dataclass(Assignment)
torch.export.register_dataclass(Tokens)


class QueriesKeys(NamedTuple):
    """The queries and keys that an attention module made."""

    queries: Float[Tensor, "batch heads queries width"]
    """of all tokens; where there is a class token, the first is enough"""
    keys: Float[Tensor, "batch heads tokens width"]
    """of all tokens (B, H, prefix + M, d)"""
    scale: float


class Reduce(nn.Module):
    """The reduction at one site: a module without parameters, so that it can be hooked, timed and counted by name."""

    during_training: Any = None
    """what a training loop is told of this reduction"""
    _last: tuple[int, Counts] | None = None

    def __init__(
        self, config: BATConfig, block: int, *, depth: int, prefix: int, class_token: bool
    ) -> None:
        super().__init__()
        self.config, self.block, self.depth = config, block, depth
        self.prefix, self.class_token = prefix, class_token
        self._config_json = json.dumps(config.to_dict())

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
        from batvit.reduction.frozen_counts import frozen_counts

        found: Counts | str = frozen_counts(
            self._config_json, self.block, self.depth, patches, self.prefix
        )
        if isinstance(found, str):
            raise ValueError(found)
        if not torch.compiler.is_compiling():
            self._last = patches, found
        return found

    def forward(
        self,
        tokens: Tokens,
        captured: QueriesKeys | Callable[[], QueriesKeys],
        rope: tuple[Tensor, ...] = (),
    ) -> Tokens:
        """Between attention and MLP: M tokens in, fewer out. Prefix tokens pass by.

        All that a reduction costs is done in here, so that it is timed as a part of it.

        Args:
            tokens: after the attention of this block and its residual.
            captured: what that attention made; or what makes it once more, if that is needed.
            rope: the rotary tables that the block was given, a row a patch.
        """
        counts = self.counts(tokens.origin.tokens)
        if counts.tokens_out == tokens.size.shape[1]:
            return tokens
        captured = captured if isinstance(captured, QueriesKeys) else captured()
        prefix, image = tokens.x[:, : self.prefix], tokens.x[:, self.prefix :].contiguous()
        importance = self.importance(tokens, captured)
        features = image if self.config.similarity == "tokens" else self.keys(captured)
        if tokens.padded:
            # what padding holds must not sway the plan
            features = torch.where(tokens.size.unsqueeze(-1) > 0, features, 0)
        evidence = Evidence(
            features, importance, tokens.size, self.depth, self.block, tokens.padded
        )
        method = PLANS[self.config.method]
        with torch.no_grad():
            plan = method.decide(evidence, counts, self.config)
        if method.combine is None:
            image = merge(
                image, plan, self.weight(importance, tokens.size), keep_norm=self.config.keep_norm
            )
        else:
            image = method.combine(image, evidence, plan)
        x, size = torch.cat([prefix, image], dim=1), sum_by_group(tokens.size, plan)
        reduced = replace(
            tokens,
            x=x,
            size=size,
            origin=tokens.origin.then(plan),
            bias=None,
            rope=(),
            merged_rope=(),
        )
        # after the last block nobody reads them
        read = rope if self.block < self.depth - 1 else ()
        return reduced.with_size_bias(self.config.size_aware, self.config.size_power).with_rotary(
            read
        )

    def importance(self, tokens: Tokens, captured: QueriesKeys) -> Float[Tensor, "batch groups"]:
        """Class attention; the mean attention received where there is no class token."""
        measure = class_importance if self.class_token else received_importance
        return measure(
            captured.queries,
            captured.keys,
            prefix=self.prefix,
            scale=captured.scale,
            bias=tokens.bias,
        )

    def keys(self, captured: QueriesKeys) -> Float[Tensor, "batch groups width"]:
        """The keys of the image tokens, averaged over heads."""
        return captured.keys[:, :, self.prefix :].mean(dim=1)

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


def config_of(model: nn.Module) -> BATConfig | None:
    """The configuration a model is patched with, or None."""
    sites = reductions(model)
    return next(iter(sites.values())).config if sites else None


def reductions(model: nn.Module) -> dict[int, Reduce]:
    """The reductions of a patched model by block number, counted from 0."""
    sites = [module for module in model.modules() if isinstance(module, Reduce)]
    return {site.block: site for site in sites}
