"""Layers of transformers whose attention holds another: ``attention.attention``.

What stands around it projects; the residual of the MLP may be added by the layer's ``output``.
"""

from typing import Any

from torch import Tensor

from batvit.backbones.attention_capture import AttentionCapture
from batvit.backbones.transformers_common import ReducedLayer
from batvit.backbones.transformers_interface import InterfaceCapture
from batvit.reduction.site import QueriesKeys


class NestedCapture(AttentionCapture):
    """Stands in for an attention around another, for which a capture of its own stands in."""

    own = AttentionCapture.own | {"attention"}

    def __init__(self, module: Any, attention: Any) -> None:
        super().__init__(module)
        self.attention = attention

    def captured(self) -> QueriesKeys:
        """Return what the attention inside made."""
        made: QueriesKeys = self.attention.captured()
        return made


class NestedLayer(ReducedLayer):
    """A layer whose attention holds another, which asks the interface (ViTPose)."""

    @classmethod
    def own_attention(cls, attention: Any) -> Any:
        return getattr(attention, "attention", attention)

    def capture(self, bias: Tensor | None) -> Any:
        return NestedCapture(
            self.attention_module, self.inner_capture(self.attention_module.attention, bias)
        )

    def inner_capture(self, attention: Any, bias: Tensor | None) -> Any:
        """Return what stands in for the attention inside."""
        return InterfaceCapture(attention, type(self).eager, bias)


class OutputLayer(NestedLayer):
    """A nested layer that ends in ``output(x, residual)``, which adds the residual (DPT, YOLOS)."""

    def second_line(self, x: Tensor) -> Tensor:
        parts = self.parts
        hidden = self._through((parts.mlp_norm, parts.mlp), x)
        added: Tensor = getattr(self, parts.after_mlp[0])(hidden, x)
        return added
