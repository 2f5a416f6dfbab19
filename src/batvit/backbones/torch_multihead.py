"""What blocks around ``torch.nn.MultiheadAttention`` have in common: torchvision's, open_clip's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import QueriesKeys


class MultiheadBlock(ReducedBlock):
    """A block whose attention is ``nn.MultiheadAttention`` and whose forward takes no mask."""

    attentions = (nn.MultiheadAttention,)
    mask = None

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, Callable[[], QueriesKeys] | None]:
        """Run the attention module itself; its fast path shows neither queries nor keys.

        At a site they are projected once more, when the reduction asks for them.
        """
        attention = getattr(self, self.parts.attention)
        # a padding mask of numbers is the same for all heads and queries, as the bias is
        padding_mask = None if bias is None else bias[:, 0, 0]
        attended, _ = attention(x, x, x, key_padding_mask=padding_mask, need_weights=False)
        if self.reduce is None:
            return attended, None
        queries = 1 if self.reduce.class_token else x.shape[1]
        return attended, partial(project_again, attention, x, queries)


def project_again(attention: nn.MultiheadAttention, x: Tensor, queries: int) -> QueriesKeys:
    """Return queries and keys once more, by the attention's own weights.

    Args:
        attention: whose queries, keys and values are projected by one matrix.
        x: (B, N, C), normalised.
        queries: of how many tokens, from the first on; the keys are those of all.
    """
    query_weight, key_weight, _ = attention.in_proj_weight.chunk(3)
    query_bias = None
    key_bias = None
    if attention.in_proj_bias is not None:
        query_bias, key_bias, _ = attention.in_proj_bias.chunk(3)
    heads = attention.num_heads
    return QueriesKeys(
        queries=_project(x[:, :queries], query_weight, query_bias, heads),
        keys=_project(x, key_weight, key_bias, heads),
        scale=attention.head_dim**-0.5,
    )


def _project(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """Take (B, N, C) to (B, heads, N, C / heads)."""
    projected: Tensor = nn.functional.linear(x, weight, bias).unflatten(-1, (heads, -1))
    return projected.transpose(1, 2)
