"""What the blocks built on ``torch.nn.MultiheadAttention`` have in common: torchvision's and open_clip's."""

from typing import Any, ClassVar

from torch import Tensor, nn

from batvit.backbones.block import Parts, ReducedBlock
from batvit.backbones.site import Heard, Tokens


class MultiheadBlock(ReducedBlock):
    """A block whose attention is ``nn.MultiheadAttention``, reduced: ``class ReducedX(MultiheadBlock, Sized, X)``."""

    attentions = (nn.MultiheadAttention,)
    mask = "sizes"

    def bias(self, tokens: Tokens) -> Tensor:
        """The logarithms of the sizes as a padding mask of numbers (B, tokens): it is the same for all heads and queries."""
        return super().bias(tokens)[:, 0, 0]

    def attend(self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]) -> tuple[Tensor, Heard]:
        """Run the attention module itself, then hear it: in its fast path, what it makes never comes to light.

        Args:
            x: (B, prefix + M, C), normalised.
            bias: (B, prefix + M), to be added to the attention logits, or None.
            arguments: nothing.

        Returns:
            What the attention gives (B, prefix + M, C), and the queries and keys, projected a second time.
        """
        attention = getattr(self, self.parts.attention)
        return attended(attention, x, bias), heard(attention, x)


class Sized(nn.Module):
    """Stands between :class:`MultiheadBlock` and the library's block, whose forward takes no padding mask."""

    parts: ClassVar[Parts]

    def forward(self, *args: Any, **arguments: Any) -> Any:
        """The library's own forward; with sizes, its two lines with a padding mask in the first.

        Args:
            args: x (B, tokens, C).
            arguments: ``sizes`` (B, tokens), to be added to the attention logits, or None; all else is the library's.

        Returns:
            (B, tokens, C).
        """
        sizes = arguments.pop("sizes", None)
        if sizes is None:
            return super().forward(*args, **arguments)
        (x,) = args
        parts = self.parts
        y = attended(getattr(self, parts.attention), getattr(self, parts.attention_norm)(x), sizes)
        for name in parts.after_attention:
            y = getattr(self, name)(y)
        x = y = x + y
        for name in (parts.mlp_norm, parts.mlp, *parts.after_mlp):
            y = getattr(self, name)(y)
        return x + y


def attended(attention: nn.Module, x: Tensor, sizes: Tensor | None) -> Tensor:
    """What ``nn.MultiheadAttention`` makes of x (B, tokens, C), called as the libraries call it; sizes is (B, tokens)."""
    out: Tensor = attention(x, x, x, key_padding_mask=sizes, need_weights=False)[0]
    return out


def heard(attention: nn.MultiheadAttention, x: Tensor) -> Heard:
    """The queries and keys that ``nn.MultiheadAttention`` makes of x (B, tokens, C), by its own weights."""
    rows = 2 * attention.embed_dim
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[:rows]
    made = nn.functional.linear(x, attention.in_proj_weight[:rows], bias)
    queries, keys = made.unflatten(-1, (2, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
    return Heard(queries, keys, attention.head_dim**-0.5)
