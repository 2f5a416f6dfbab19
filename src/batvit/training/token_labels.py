"""Token labelling (Jiang et al., NeurIPS 2021) with fewer tokens: a group's label is the mean of its patches' labels."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.backbones.patch import config_of
from batvit.core import merge
from batvit.trace import trace


class TokenLabels:
    """The loss of the patch tokens of an LV-ViT against what the dense one says of each patch.

    The published labels come from another network, stored for every picture; here they are the dense model's own, of the same
    view. MixToken is not done.

    Raises:
        ValueError: if model or teacher is no LV-ViT, or the model was not told to give both heads' logits.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        for name, found in (("the model", model), ("the teacher", teacher)):
            if not isinstance(getattr(found, "aux_head", None), nn.Linear):
                raise ValueError(f"token_labels are for LV-ViT, {name} is a {type(found).__name__}; leave them out")
        if not getattr(model, "token_labeling", False):
            raise ValueError("token_labels needs the logits of the tokens: set model.token_labeling = True, then patch it")
        self.model, self.teacher = model, teacher

    def run(
        self, student: Callable[[Tensor], Any], images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> tuple[Any, Tensor]:
        """The student's output, and the loss of its tokens: (B, 3, H, W) to a scalar."""
        labels = self._labels(images, autocast)
        if config_of(self.model) is None:
            output = student(images)
        else:
            with trace(self.model) as found:
                output = student(images)
            labels = merge(labels, found.sites[-1].origin)
        return output, functional.cross_entropy(output[1].flatten(0, 1).float(), labels.flatten(0, 1))

    @torch.no_grad()
    def _labels(self, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]]) -> Tensor:
        """(B, patches, classes), probabilities."""
        teacher: Any = self.teacher
        with autocast():
            tokens = teacher.forward_features(images)
            logits: Tensor = teacher.aux_head(tokens[:, teacher.num_prefix_tokens :])
        return logits.float().softmax(dim=-1)
