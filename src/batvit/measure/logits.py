"""The logits of a classifier, checked: the one place that runs a model for accuracy or search."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data.loading import placed


def finite_logits(model: nn.Module, images: Tensor, *, name: str) -> Tensor:
    """Run a classifier on a batch of pictures.

    Args:
        model: put into eval mode; the batch goes to its device, in its precision.
        images: (B, 3, H, W).
        name: of the model, for errors.

    Returns:
        Logits (B, classes), float32, on the CPU.

    Raises:
        ValueError: if the model returns something that is not one row of finite logits a picture.
    """
    with torch.inference_mode():
        logits = model.eval()(placed(images, model))
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{name}: expected logits ({len(images)}, classes), got {type(logits).__name__}"
        )
    if logits.dim() != 2 or len(logits) != len(images) or not logits.shape[1]:
        raise ValueError(
            f"{name}: expected logits ({len(images)}, classes), got {tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        raise ValueError(
            f"{name}: logits are not finite; run it in fp32 or bf16, or check its weights"
        )
    return logits.float().cpu()


def log_probabilities(model: nn.Module, images: Tensor, *, name: str) -> Tensor:
    """Run a classifier as :func:`finite_logits`, and return log-probabilities (B, classes)."""
    return functional.log_softmax(finite_logits(model, images, name=name), dim=1)


def divergence(own: Tensor, dense: Tensor) -> Tensor:
    """Return the KL divergence of the dense model's distribution to a model's own, in nats (B,).

    Args:
        own: log-probabilities of the model (B, classes).
        dense: log-probabilities of the dense model, alike.
    """
    return functional.kl_div(own, dense, log_target=True, reduction="none").sum(dim=1)
