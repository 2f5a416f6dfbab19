"""What the blocks built on ``torch.nn.MultiheadAttention`` have in common: torchvision's and open_clip's."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import QueriesKeys


class MultiheadBlock(ReducedBlock):
    """A block whose attention is ``nn.MultiheadAttention`` and whose forward takes no mask of sizes."""

    attentions = (nn.MultiheadAttention,)
    mask = None

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, Callable[[], QueriesKeys] | None]:
        """Run the attention module itself, to be captured at the reduction: of its fast path, nothing comes to light."""
        attention = getattr(self, self.parts.attention)
        # a padding mask of numbers is the same for all heads and queries, as sizes are
        sizes = None if bias is None else bias[:, 0, 0]
        attended = attention(x, x, x, key_padding_mask=sizes, need_weights=False)[0]
        if self.reduce is None:
            return attended, None
        return attended, partial(
            captured, attention, x, queries=1 if self.reduce.class_token else None
        )


def captured(
    attention: nn.MultiheadAttention, x: Tensor, queries: int | None = None
) -> QueriesKeys:
    """Queries of the first so many tokens (of all by default) and all keys, once more, by the attention's own weights."""
    of_queries, of_keys, _ = attention.in_proj_weight.chunk(3)
    biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
    first = _projected(x[:, :queries], of_queries, biases[0], attention.num_heads)
    keys = _projected(x, of_keys, biases[1], attention.num_heads)
    return QueriesKeys(first, keys, attention.head_dim**-0.5)


def _projected(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    projected: Tensor = nn.functional.linear(x, weight, bias).unflatten(-1, (heads, -1))
    return projected.transpose(1, 2)
