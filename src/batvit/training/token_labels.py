"""Token labelling: a label for every patch, also where patches share a token.

Jiang et al., NeurIPS 2021.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def give_patch_logits(model: nn.Module) -> None:
    """Have an LV-ViT give the logits of its patches while it trains, before it is patched."""
    if hasattr(model, "token_labeling"):
        changed: Any = model
        changed.token_labeling = True


class TokenLabels:
    """The loss of an LV-ViT's patches against what the dense one says of each.

    With fewer tokens every patch has the logits of its group. The cross-entropy is linear in the
    labels, so a group learns the mean of its patches' labels, as often as it has patches.

    The published labels come from another network, stored for every picture; here they are the
    dense model's own, of the same view. MixToken is not done.

    Args:
        model: the LV-ViT that learns, patched or not.
        teacher: the dense one, frozen and in eval mode.

    Raises:
        ValueError: if one of them is no LV-ViT, or the model does not give its patches' logits.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        for name, module in (("the model", model), ("the teacher", teacher)):
            if not isinstance(getattr(module, "aux_head", None), nn.Linear):
                raise ValueError(
                    f"token_labels are for LV-ViT, {name} is a {type(module).__name__}; "
                    "leave them out"
                )
        if not getattr(model, "token_labeling", False):
            raise ValueError(
                "token_labels needs the logits of the patches: set model.token_labeling = True, "
                "then patch it"
            )
        self.teacher = teacher

    def loss(
        self, dense: Tensor, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """Return the loss of the patches, a scalar.

        Args:
            dense: the second head's logits (B, patches, classes).
            images: (B, 3, H, W).
            autocast: gives the context in which the teacher runs.

        Raises:
            ValueError: if patches have no logits, because their tokens were dropped.
        """
        labels = self._labels(images, autocast)
        if dense.shape != labels.shape:
            raise ValueError(
                f"token_labels has labels for {labels.shape[1]} patches, the model gives logits "
                f"for {dense.shape[1]}: its reduction drops tokens; choose one that merges them, "
                "or leave token_labels out"
            )
        return functional.cross_entropy(dense.flatten(0, 1).float(), labels.flatten(0, 1))

    @torch.no_grad()
    def _labels(
        self, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """Return what the teacher says of each patch: probabilities (B, patches, classes)."""
        teacher: Any = self.teacher
        with autocast():
            tokens = teacher.forward_features(images)
            logits: Tensor = teacher.aux_head(tokens[:, teacher.num_prefix_tokens :])
        return logits.float().softmax(dim=-1)
