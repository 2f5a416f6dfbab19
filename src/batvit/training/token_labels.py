"""Token labelling (Jiang et al., NeurIPS 2021): a label for every patch, also where patches share a token."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenLabels:
    """The loss of an LV-ViT's patches against what the dense one says of each.

    With fewer tokens every patch has the logits of its group. The cross-entropy is linear in the labels, so a group learns the
    mean of its patches' labels, as often as it has patches.

    The published labels come from another network, stored for every picture; here they are the dense model's own, of the same
    view. MixToken is not done.

    Raises:
        ValueError: if model or teacher is no LV-ViT, or the model was not told to give both heads' logits.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        for name, found in (("the model", model), ("the teacher", teacher)):
            if not isinstance(getattr(found, "aux_head", None), nn.Linear):
                raise ValueError(
                    f"token_labels are for LV-ViT, {name} is a {type(found).__name__}; leave them out"
                )
        if not getattr(model, "token_labeling", False):
            raise ValueError(
                "token_labels needs the logits of the patches: set model.token_labeling = True, then patch it"
            )
        self.teacher = teacher

    def loss(
        self, dense: Tensor, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """The second head's logits (B, patches, classes) of the pictures (B, 3, H, W) to a scalar."""
        labels = self._labels(images, autocast)
        if dense.shape != labels.shape:
            raise ValueError(
                f"token_labels has labels for {labels.shape[1]} patches, the model gives logits for {dense.shape[1]}: its "
                "reduction drops tokens; choose one that merges them, or leave token_labels out"
            )
        return functional.cross_entropy(dense.flatten(0, 1).float(), labels.flatten(0, 1))

    @torch.no_grad()
    def _labels(
        self, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """(B, patches, classes), probabilities."""
        teacher: Any = self.teacher
        with autocast():
            tokens = teacher.forward_features(images)
            logits: Tensor = teacher.aux_head(tokens[:, teacher.num_prefix_tokens :])
        return logits.float().softmax(dim=-1)
