"""What all layers of transformers have in common."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from batvit.backbones.transformers_interface import InterfaceCapture, refuse_kernel
from batvit.reduction.block import ReducedBlock, features_of
from batvit.reduction.site import QueriesKeys
from batvit.reduction.tokens import Tokens

MASK = "attention_mask"


class ReducedLayer(ReducedBlock):
    """What all layers of transformers have in common; those that differ derive from it."""

    eager: ClassVar[Callable[..., Any]]
    """the attention that the file of the library's own layer falls back to"""

    def forward(
        self, hidden_states: Any, attention_mask: Tensor | None = None, **arguments: Any
    ) -> Any:
        """Do as the layer's own.

        Every layer is given the mask of all patches, and the first reduced one reads it.
        """
        real = None
        hidden_states = Tokens.of(hidden_states)
        if attention_mask is not None and not isinstance(hidden_states, Tokens):
            real = self._real_patches(attention_mask)
        if self.mask == MASK:
            arguments = arguments | {MASK: None}
        return self.run(hidden_states, real=real, **arguments)

    def _real_patches(self, mask: Tensor) -> Tensor:
        """Return which patches are no padding (B, N).

        Args:
            mask: (B, 1, tokens, tokens), True where a token may be seen, or what is added to the
                logits.

        Raises:
            ValueError: if it is no mask of padding, in which all queries see the same.
        """
        refuse_kernel(self.kernel, "a mask of padding")
        # inside a graph no value can be looked at
        if not torch.compiler.is_compiling():
            of_last_query = mask[:, :1, -1:].expand_as(mask)
            if not torch.equal(mask, of_last_query):
                raise ValueError(
                    "a reduced model takes masks of padding (B, tokens), "
                    f"got one of pairs of tokens, {tuple(mask.shape)}; batvit.unpatch the model"
                )
        row = mask[:, 0, -1, self.prefix :]
        return row if row.dtype == torch.bool else row == 0

    @property
    def kernel(self) -> str:
        """The name of the attention's interface."""
        attention: Any = self.own_attention(self.attention_module)
        return str(attention.config._attn_implementation)

    @property
    def attention_module(self) -> Any:
        """The layer's attention."""
        return getattr(self, self.parts.attention)

    def run(self, x: Tensor | Tokens, **arguments: Any) -> Any:
        x = Tokens.of(x)
        # another kernel may have been set since it was patched
        if isinstance(x, Tokens) and x.bias is not None:
            refuse_kernel(self.kernel, "size_aware")
        return super().run(x, **arguments)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        capture = self.capture(bias)
        if self.mask is not None:
            arguments = arguments | {self.mask: bias}
        return features_of(capture(x, **arguments)), capture.captured()

    def capture(self, bias: Tensor | None) -> Any:
        """Return what stands in for the attention during one call."""
        return InterfaceCapture(self.attention_module, type(self).eager, bias)

    @classmethod
    def trial(cls, block: Any, x: Tensor) -> dict[str, Any]:
        return {} if cls.mask is None else {cls.mask: None}
