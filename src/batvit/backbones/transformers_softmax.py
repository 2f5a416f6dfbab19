"""Layers of transformers whose attention asks no interface: it computes its softmax itself."""

from typing import Any

from torch import Tensor

from batvit.backbones.attention_capture import AttentionCapture
from batvit.backbones.transformers_common import ReducedLayer
from batvit.backbones.transformers_nested import NestedLayer, OutputLayer
from batvit.reduction.site import QueriesKeys
from batvit.reduction.wrapped import SPLIT_ATTENTION


class ProjectionCapture(AttentionCapture):
    """Captures what ``query`` and ``key`` of an attention give."""

    def query(self, x: Tensor) -> Tensor:
        self.queries = self.module.query(x)
        return self.queries

    def key(self, x: Tensor) -> Tensor:
        self.keys = self.module.key(x)
        return self.keys

    def captured(self) -> QueriesKeys:
        """Return what the attention made, head by head."""
        width = self.module.attention_head_size
        if self.queries.shape[-1] != width * self.module.num_attention_heads:
            raise TypeError(SPLIT_ATTENTION)
        queries = self.queries.unflatten(-1, (-1, width)).transpose(1, 2)
        keys = self.keys.unflatten(-1, (-1, width)).transpose(1, 2)
        return QueriesKeys(queries, keys, width**-0.5)


class SharedCapture(AttentionCapture):
    """Captures what ``qkv`` of an attention gives, and puts the sizes into its softmax.

    softmax(logits + log sizes) is softmax(logits) times the sizes, normalised once more.
    """

    own = AttentionCapture.own | {"bias"}

    def __init__(self, module: Any, bias: Tensor | None) -> None:
        super().__init__(module)
        self.bias = bias

    def qkv(self, x: Tensor) -> Tensor:
        made: Tensor = self.module.qkv(x)
        heads = self.module.num_heads
        self.queries, self.keys, _ = made.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        return made

    def dropout(self, shares: Tensor) -> Tensor:
        return self._with_sizes(shares, self.module.dropout)

    def attn_drop(self, shares: Tensor) -> Tensor:
        return self._with_sizes(shares, self.module.attn_drop)

    def _with_sizes(self, shares: Tensor, dropout: Any) -> Tensor:
        if self.bias is not None:
            shares = shares * self.bias.exp()
            shares = shares / shares.sum(dim=-1, keepdim=True)
        dropped: Tensor = dropout(shares)
        return dropped

    def captured(self) -> QueriesKeys:
        """Return what the attention made."""
        return QueriesKeys(self.queries, self.keys, self.module.scale)


class SharedProjectionLayer(ReducedLayer):
    """A layer whose attention makes queries, keys and values by one projection (BLIP)."""

    kernel = "eager"
    mask = None

    def capture(self, bias: Tensor | None) -> Any:
        return SharedCapture(self.attention_module, bias)


class TupleLayer(ReducedLayer):
    """A layer that gives a tuple, whose features come first."""

    def forward(
        self,
        hidden_states: Any,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        **arguments: Any,
    ) -> Any:
        if output_attentions:
            raise ValueError(
                f"a reduced {self.own_class().__name__} gives no attentions; leave out "
                "output_attentions, or batvit.unpatch the model"
            )
        return (super().forward(hidden_states, attention_mask, **arguments),)


class SharedProjectionTupleLayer(TupleLayer, SharedProjectionLayer):
    """Such a layer that gives a tuple (MGP-STR)."""


class ProjectionLayer(TupleLayer, NestedLayer):
    """A nested layer whose inner attention projects queries and keys by themselves."""

    kernel = "eager"

    def inner_capture(self, attention: Any, bias: Tensor | None) -> Any:
        return ProjectionCapture(attention)


class ProjectionOutputLayer(ProjectionLayer, OutputLayer):
    """Such a layer that ends in ``output(x, residual)`` (Flava)."""


class BiasLayer(ProjectionLayer):
    """Such a layer that takes a bias in place of a mask (Data2Vec)."""

    mask = "relative_position_bias"

    def forward(  # type: ignore[override]
        self, hidden_states: Any, output_attentions: bool = False, **arguments: Any
    ) -> Any:
        return super().forward(hidden_states, None, output_attentions, **arguments)
