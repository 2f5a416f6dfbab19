"""The registered interface through which the attention of most layers of transformers goes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from batvit.backbones.attention_capture import AttentionCapture
from batvit.reduction.site import QueriesKeys
from batvit.reduction.wrapped import SPLIT_ATTENTION


class InterfaceCapture(AttentionCapture):
    """Captures what an attention hands to its interface, and adds the bias of the sizes there.

    That may be sdpa, eager, or whatever the model was loaded with. Some attentions take no mask
    themselves; every interface does.
    """

    own = AttentionCapture.own | {"eager", "bias", "config", "scale"}
    scale: float

    def __init__(self, module: Any, eager: Callable[..., Any], bias: Tensor | None) -> None:
        super().__init__(module)
        self.eager = eager
        self.bias = bias
        self.config = _CaptureConfig

    def captured(self) -> QueriesKeys:
        """Return what the attention made."""
        heads = self.queries.shape[1]
        if heads != self.module.config.num_attention_heads:
            raise TypeError(SPLIT_ATTENTION)
        keys = self.keys
        # several heads of queries may share one of keys; else nothing is copied
        if keys.shape[1] != heads:
            keys = keys.repeat_interleave(heads // keys.shape[1], dim=1)
        return QueriesKeys(self.queries, keys, self.scale)


class _CaptureConfig:
    """Stands in for the configuration of an attention, which names the interface."""

    _attn_implementation = "batvit"


def _capture(
    module: InterfaceCapture,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> Any:
    """Keep queries and keys, and hand them on to the interface of the model."""
    module.queries = query
    module.keys = key
    module.scale = arguments["scaling"] or query.shape[-1] ** -0.5
    kernel = module.module.config._attn_implementation
    own = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, module.eager)
    mask = attention_mask if module.bias is None else module.bias
    return own(module.module, query, key, value, mask, **arguments)


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
