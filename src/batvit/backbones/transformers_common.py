"""What all layers of transformers have in common.

Their attention goes through a registered interface.
"""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from batvit.backbones.attention_capture import AttentionCapture
from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import QueriesKeys
from batvit.reduction.tokens import Tokens
from batvit.reduction.wrapped import SPLIT_ATTENTION


class InterfaceCapture(AttentionCapture):
    """Captures what an attention hands to its interface.

    That may be sdpa, eager, or whatever the model was loaded with.
    """

    own = AttentionCapture.own | {"scale", "eager", "config"}
    scale: float

    def __init__(self, attention: Any, eager: Callable[..., Any]) -> None:
        super().__init__(attention)
        self.eager = eager
        self.config = _CaptureConfig


class _CaptureConfig:
    """Stands in for the configuration of an attention, which names the interface."""

    _attn_implementation = "batvit"


def _capture(
    module: InterfaceCapture,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **arguments: Any,
) -> Any:
    """Keep queries and keys, and hand them on to the interface of the model."""
    module.queries = query
    module.keys = key
    module.scale = arguments["scaling"]
    kernel = module.attention.config._attn_implementation
    own = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, module.eager)
    return own(module.attention, query, key, value, mask, **arguments)


AttentionInterface.register("batvit", _capture)


def refuse_kernel(kernel: str, what: str) -> None:
    """Refuse to add to the logits of an attention other than sdpa and eager.

    Raises:
        ValueError: naming the kernel and what is to be added.
    """
    if kernel not in ("sdpa", "eager"):
        remedy = ", or patch with size_aware=False" if what == "size_aware" else ""
        raise ValueError(
            f"{what} adds to the attention logits, "
            f"which attn_implementation={kernel!r} cannot take; "
            f'call model.set_attn_implementation("sdpa"){remedy}'
        )


class ReducedLayer(ReducedBlock):
    """What all layers of transformers have in common."""

    mask = "attention_mask"
    eager: ClassVar[Callable[..., Any]]
    """the attention that the file of the library's own layer falls back to"""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        file: Any = sys.modules[cls.own_class().__module__]
        cls.eager = staticmethod(file.eager_attention_forward)

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
        return self.run(hidden_states, real=real, attention_mask=None, **arguments)

    def _real_patches(self, mask: Tensor) -> Tensor:
        """Return which patches are no padding (B, N).

        Args:
            mask: (B, 1, tokens, tokens), True where a token may be seen, or what is added to the
                logits.

        Raises:
            ValueError: if it is no mask of padding, in which all queries see the same.
        """
        refuse_kernel(self._kernel, "a mask of padding")
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
    def _kernel(self) -> str:
        kernel: str = getattr(self, self.parts.attention).config._attn_implementation
        return kernel

    def run(self, x: Tensor | Tokens, **arguments: Any) -> Any:
        x = Tokens.of(x)
        # another kernel may have been set since it was patched
        if isinstance(x, Tokens) and x.bias is not None:
            refuse_kernel(self._kernel, "size_aware")
        return super().run(x, **arguments)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        capture = InterfaceCapture(getattr(self, self.parts.attention), type(self).eager)
        arguments = arguments | {"attention_mask": bias}
        attended, _ = capture(x, **arguments)
        if capture.queries.shape[1] != capture.attention.config.num_attention_heads:
            raise TypeError(SPLIT_ATTENTION)
        return attended, QueriesKeys(capture.queries, capture.keys, capture.scale)

    def trial(self, x: Tensor) -> dict[str, Any]:
        return {"attention_mask": None}
