"""Steps 1 and 2: how much attention each token gets, and who is attentive."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

NO_IMPORTANCE = 1e-30


def class_importance(
    queries: Float[Tensor, "batch heads queries width"],
    keys: Float[Tensor, "batch heads keys width"],
    *,
    prefix: int,
    scale: float,
    bias: Float[Tensor, "batch 1 1 keys"] | None = None,
) -> Float[Tensor, "batch tokens"]:
    """Return the attention that the class token pays to each image token, averaged over heads.

    a = softmax(q_cls k^T / sqrt(d)), the entries of the image tokens. Only this one row of the
    attention is computed.

    Args:
        queries: (B, H, 1 or more, d), of which the first, the class token's, is read.
        keys: of all tokens (B, H, prefix + N, d).
        prefix: how many tokens (class, distillation, registers) stand before the N image tokens.
        scale: what the attention module multiplies q k^T with, 1 / sqrt(d) as a rule.
        bias: what the attention module adds to its logits (log size of each token), if anything.

    Returns:
        (B, N) in float32; non-negative, sums to at most 1.
    """
    # keys first: so their heads are copied in the order in which they lie
    logits = (keys @ (queries[:, :, :1] * scale).transpose(-2, -1)).transpose(-2, -1)
    return _softmax(logits, bias).mean(dim=1)[:, 0, prefix:]


def received_importance(
    queries: Float[Tensor, "batch heads queries width"],
    keys: Float[Tensor, "batch heads queries width"],
    *,
    prefix: int,
    scale: float,
    bias: Float[Tensor, "batch 1 1 queries"] | None = None,
) -> Float[Tensor, "batch tokens"]:
    """Return the attention that each image token receives, averaged over heads and queries.

    For models without a class token. Arguments and result as in :func:`class_importance`, with the
    queries of all tokens.
    """
    return _softmax((queries * scale) @ keys.transpose(-2, -1), bias).mean(dim=(1, 2))[:, prefix:]


def _softmax(logits: Tensor, bias: Tensor | None) -> Tensor:
    # the queries were scaled before the product, which float16 would overflow
    if bias is not None:
        logits = logits + bias
    return logits.softmax(dim=-1, dtype=torch.float32)


def decouple(importance: Float[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
    """Return the positions of the tokens by falling importance, equal ones by rising position.

    Those of the attentive tokens come first, as many as there are to be.
    """
    return falling_order(importance)


def falling_order(values: Float[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
    """Return the positions of the tokens by falling value, equal ones by rising position."""
    # asked first, as torch loads its exporters to answer the second question
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        # no stable sort is translated, and ONNX's own sort is one
        return values.sort(dim=1, descending=True).indices
    return values.argsort(dim=1, descending=True, stable=True)


def log_importance(
    importance: Float[Tensor, "batch tokens"], index: Int64[Tensor, "batch chosen"], power: float
) -> Float[Tensor, "batch chosen"]:
    """Return the logarithm of importance ** power for the tokens at the given positions.

    In float32; finite, also where the importance is zero.
    """
    return importance.gather(1, index).float().clamp(min=NO_IMPORTANCE).log() * power


def take(
    x: Float[Tensor, "batch tokens channels"], index: Int64[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen channels"]:
    """Return the tokens at the given positions."""
    # whole rows of one flat table: several times faster on a CPU than gathering numbers one by one
    rows = index + torch.arange(x.shape[0], device=index.device).unsqueeze(1) * x.shape[1]
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*index.shape, x.shape[-1])


def ranks(order: Int64[Tensor, "batch tokens"]) -> Int64[Tensor, "batch tokens"]:
    """Return the place of each token in an order: the inverse permutation."""
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return order.scatter(1, order, places)
