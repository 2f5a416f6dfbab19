"""What all layers of transformers have in common: their attention goes through a registered interface."""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from batvit.backbones.attention_capture import AttentionCapture
from batvit.reduction.block import ReducedBlock, refuse_reentrant
from batvit.reduction.site import QueriesKeys
from batvit.reduction.tokens import Tokens


class InterfaceCapture(AttentionCapture):
    """Hears what an attention hands to its interface: sdpa, eager, or whatever the model was loaded with."""

    scale: float

    def __init__(self, attention: Any, eager: Callable[..., Any]) -> None:
        super().__init__(attention)
        self.eager = eager
        self.config = _CaptureConfig


class _CaptureConfig:
    _attn_implementation = "batvit"


def _capture(
    module: InterfaceCapture,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **arguments: Any,
) -> Any:
    module.queries, module.keys, module.scale = query, key, arguments["scaling"]
    own = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.attention.config._attn_implementation, module.eager
    )
    return own(module.attention, query, key, value, mask, **arguments)


AttentionInterface.register("batvit", _capture)


def refuse_kernel(kernel: str, what: str) -> None:
    """Refuse what no attention but sdpa and eager can be given: numbers added to its logits.

    Raises:
        ValueError: naming the kernel and what is to be added.
    """
    if kernel not in ("sdpa", "eager"):
        remedy = ", or patch with size_aware=False" if what == "size_aware" else ""
        raise ValueError(
            f"{what} adds to the attention logits, which attn_implementation={kernel!r} cannot take; "
            f'call model.set_attn_implementation("sdpa"){remedy}'
        )


class ReducedLayer(ReducedBlock):
    """What all layers of transformers have in common."""

    mask = "attention_mask"
    eager: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.eager = staticmethod(sys.modules[cls.__bases__[-1].__module__].eager_attention_forward)

    def forward(
        self, hidden_states: Any, attention_mask: Tensor | None = None, **arguments: Any
    ) -> Any:
        """As the layer's own; every layer is given the mask of all patches, and the first one reads it."""
        known: Any = self
        checkpointing = self.training and known.gradient_checkpointing
        refuse_reentrant(
            checkpointing
            and getattr(known._gradient_checkpointing_func, "keywords", {}).get(
                "use_reentrant", False
            )
        )
        real = (
            None
            if attention_mask is None or isinstance(hidden_states, Tokens)
            else self._real(attention_mask)
        )
        return self.run(hidden_states, real=real, attention_mask=None, **arguments)

    def _real(self, mask: Tensor) -> Tensor:
        """Of the attention mask (B, 1, tokens, tokens), a truth value or what is added to the logits: who may be seen."""
        refuse_kernel(self._kernel, "a mask of padding")
        # inside a graph no value can be looked at
        if not torch.compiler.is_compiling() and not torch.equal(
            mask, mask[:, :1, -1:].expand_as(mask)
        ):
            raise ValueError(
                f"a reduced model takes masks of padding (B, tokens), got one of pairs of tokens, {tuple(mask.shape)}; "
                "batvit.unpatch the model"
            )
        row = mask[:, 0, -1, self.prefix :]
        return row if row.dtype == torch.bool else row == 0

    @property
    def _kernel(self) -> str:
        kernel: str = getattr(self, self.parts.attention).config._attn_implementation
        return kernel

    def run(self, x: Tensor | Tokens, **arguments: Any) -> Any:
        # another kernel may have been set since it was patched
        if isinstance(x, Tokens) and x.bias is not None:
            refuse_kernel(self._kernel, "size_aware")
        return super().run(x, **arguments)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys]:
        capture = InterfaceCapture(getattr(self, self.parts.attention), type(self).eager)
        attended, _ = capture(x, **(arguments | {"attention_mask": bias}))
        return attended, QueriesKeys(capture.queries, capture.keys, capture.scale)

    def trial(self, x: Tensor) -> dict[str, Any]:
        return {"attention_mask": None}
