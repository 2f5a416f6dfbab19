"""What happens at a site, whatever library the block comes from: importance, plan, merge."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batvit.config import BATConfig
from batvit.core import Assignment, class_importance, merge, received_importance
from batvit.plans import PLANS, Evidence
from batvit.plans.plan import Counts
from batvit.reduction.features import ReducedFeatures, has_listeners
from batvit.reduction.schedule import counts_at
from batvit.reduction.tokens import Tokens

# parallel wrappers and exporters look for tensors in what travels between modules
torch.export.register_dataclass(Assignment)
torch.export.register_dataclass(Tokens)


NO_TORCHSCRIPT_EXPORT = (
    "the TorchScript exporter cannot write a reduced model; "
    "call torch.onnx.export(…, dynamo=True), or batvit.export"
)


class QueriesKeys(NamedTuple):
    """The queries and keys that an attention module made."""

    queries: Float[Tensor, "batch heads queries width"]
    """of all tokens; where there is a class token, the first is enough"""
    keys: Float[Tensor, "batch heads tokens width"]
    """of all tokens (B, H, prefix + M, d)"""
    scale: float
    """what their product is multiplied with, 1 / sqrt(d) as a rule"""


class Reduce(nn.Module):
    """The reduction at one site.

    A module without parameters, so that it can be hooked, timed and counted by name.
    """

    during_training: Any = None
    """what a training loop needs of this reduction; see :mod:`batvit.backbones.during_training`"""

    def __init__(
        self, config: BATConfig, block: int, *, depth: int, prefix: int, class_token: bool
    ) -> None:
        super().__init__()
        self.config = config
        self.block = block
        self.depth = depth
        self.prefix = prefix
        self.class_token = class_token
        self._config_json = json.dumps(config.to_dict())
        self._counts: dict[int, Counts] = {}

    def forward(
        self,
        tokens: Tokens,
        captured: QueriesKeys | Callable[[], QueriesKeys],
        rope: tuple[Tensor, ...] = (),
    ) -> Any:
        """Take M tokens between attention and MLP, and give fewer. Prefix tokens pass by.

        All that a reduction costs is done in here, so that it is timed as a part of it.

        Args:
            tokens: after the attention of this block and its residual.
            captured: what that attention made; or what makes it once more, if that is needed.
            rope: the rotary tables that the block was given, a row a patch.

        Returns:
            :class:`Tokens`; where hooks listen, their features.
        """
        reduced = self.reduced(Tokens.of(tokens), captured, rope)
        return ReducedFeatures.given(reduced) if has_listeners(self) else reduced

    def reduced(
        self,
        tokens: Tokens,
        captured: QueriesKeys | Callable[[], QueriesKeys],
        rope: tuple[Tensor, ...],
    ) -> Tokens:
        """Return the tokens that :meth:`forward` gives."""
        counts = self.counts(tokens.origin.tokens)
        tokens_in = tokens.sizes.shape[1]
        if tokens_in != counts.tokens_in:
            raise ValueError(
                f"block {self.block} got {tokens_in} tokens where {counts.tokens_in} of "
                f"{tokens.origin.tokens} come in: a site before it did not run, as where a model "
                "is patched while it runs, its blocks were changed, or a hook gave another tensor"
            )
        if counts.tokens_out == tokens_in:
            return tokens
        # asked first, as the other question loads the exporters
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if is_traced and torch.onnx.is_in_onnx_export():
            raise TypeError(NO_TORCHSCRIPT_EXPORT)
        if not isinstance(captured, QueriesKeys):
            captured = captured()
        prefix = tokens.x[:, : self.prefix]
        image = tokens.x[:, self.prefix :].contiguous()
        evidence = self.evidence(tokens, image, captured)
        assignment = self.decide(evidence, counts)
        groups = self.combine(image, evidence, assignment)
        reduced = tokens.regrouped(torch.cat([prefix, groups], dim=1), assignment)
        reduced = reduced.with_size_bias(self.config.size_aware, self.config.size_power)
        if self.block == self.depth - 1:
            # no later block reads rotary tables
            return reduced
        return reduced.with_rotary(rope)

    def decide(self, evidence: Evidence, counts: Counts) -> Assignment:
        """Return what the plan decides, without gradients."""
        decide = PLANS[self.config.method].decide
        if torch.compiler.is_exporting() and torch.is_grad_enabled():
            # no_grad would be a graph within the graph, which torch's pipelining cannot split
            detached = evidence._replace(
                features=evidence.features.detach(),
                importance=evidence.importance.detach(),
                size=evidence.size.detach(),
            )
            return decide(detached, counts, self.config)
        with torch.no_grad():
            return decide(evidence, counts, self.config)

    def counts(self, patches: int) -> Counts:
        """Return the counts at this site for an image of ``patches`` tokens.

        Raises:
            ValueError: if the configuration does not go with so many.
        """
        if torch.compiler.is_compiling():
            return self._counts_in_graph(patches)
        # a traced number belongs to its trace; the next one would find it here
        patches = int(patches)
        if patches not in self._counts:
            self._counts[patches] = counts_at(
                self.config, self.block, depth=self.depth, patches=patches, prefix=self.prefix
            )
        return self._counts[patches]

    def _counts_in_graph(self, patches: int) -> Counts:
        # it loads torch's compiler, for which importing this library need not wait
        from batvit.reduction.frozen_counts import frozen_counts

        counts: Counts | str = frozen_counts(
            self._config_json, self.block, self.depth, patches, self.prefix
        )
        if isinstance(counts, str):
            raise ValueError(counts)
        return counts

    def evidence(
        self, tokens: Tokens, image: Float[Tensor, "batch groups channels"], captured: QueriesKeys
    ) -> Evidence:
        """Return what the plan decides by.

        Args:
            tokens: M of them.
            image: their features without those of prefix tokens (B, M, C).
            captured: queries and keys of this block.
        """
        features = image if self.config.similarity == "tokens" else self.keys(captured)
        if tokens.padded:
            # what padding holds must not sway the plan
            features = torch.where(tokens.sizes.unsqueeze(-1) > 0, features, 0)
        return Evidence(
            features,
            importance=self.importance(tokens, captured),
            size=tokens.sizes.float(),
            depth=self.depth,
            block=self.block,
            padded=tokens.padded,
        )

    def importance(self, tokens: Tokens, captured: QueriesKeys) -> Float[Tensor, "batch groups"]:
        """Return the class attention; the attention received where there is no class token."""
        measure = class_importance if self.class_token else received_importance
        return measure(
            captured.queries,
            captured.keys,
            prefix=self.prefix,
            scale=captured.scale,
            bias=tokens.bias,
        )

    def keys(self, captured: QueriesKeys) -> Float[Tensor, "batch groups width"]:
        """Return the keys of the image tokens, averaged over heads."""
        return captured.keys[:, :, self.prefix :].mean(dim=1)

    def combine(
        self,
        image: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        assignment: Assignment,
    ) -> Float[Tensor, "batch groups channels"]:
        """Return the features of the groups: as the plan does it, or their weighted mean."""
        plan = PLANS[self.config.method]
        if plan.combine is not None:
            return plan.combine(image, evidence, assignment)
        weight = self.weight(evidence.importance, evidence.size)
        return merge(image, assignment, weight, keep_norm=self.config.keep_norm)

    def weight(
        self, importance: Float[Tensor, "batch groups"], size: Float[Tensor, "batch groups"]
    ) -> Float[Tensor, "batch groups"]:
        """Return what each member of a group is weighted by."""
        if self.config.weight == "importance":
            return importance
        if self.config.weight == "size":
            return size
        return importance * size

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows of it."""
        return f"block={self.block}, method={self.config.method}"


def config_of(model: nn.Module) -> BATConfig | None:
    """Return the configuration a model is patched with, or None.

    Examples:
        >>> model = timm.create_model("vit_tiny_patch16_224")
        >>> batvit.config_of(model) is None
        True
        >>> batvit.config_of(batvit.patch(model, keep_rate=0.6)).keep_rate
        0.6
    """
    for site in reductions(model).values():
        return site.config
    return None


def reductions(model: nn.Module) -> dict[int, Reduce]:
    """Return the reductions of a patched model by block number, counted from 0."""
    sites = [module for module in model.modules() if isinstance(module, Reduce)]
    return {site.block: site for site in sites}
