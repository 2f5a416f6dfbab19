"""A head for other classes, on the trunk of a trained model."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data import ImageNetInfo
from torch import nn


@torch.no_grad()
def replace_head(model: Any, classes: int, names: Sequence[str] | None) -> str:
    """Give a timm model a head for so many classes, and say what was done.

    Where the old head is that of ImageNet-1k and every class bears the name of one of its synsets, such as n01440764, the new
    head takes over their rows; otherwise it starts at random.

    Args:
        model: of 1 class or more.
        classes: how many there are to be.
        names: theirs, in label order, if they are told.
    """
    before, old = model.num_classes, _heads(model)
    synsets = {name: i for i, name in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    rows = [synsets[name] for name in names or () if name in synsets]
    model.reset_classifier(classes)
    if before == len(synsets) and len(rows) == classes:
        for new, kept in zip(_heads(model), old, strict=True):
            new.weight.copy_(kept.weight[rows])
            if new.bias is not None:
                new.bias.copy_(kept.bias[rows])
        return f"the head for {classes} classes takes over their rows of the one for {before}"
    return f"a new head for {classes} classes takes the place of the one for {before}"


def _heads(model: Any) -> list[nn.Linear]:
    found = [getattr(model, name, None) for name in ("head", "head_dist", "aux_head")]
    return [head for head in found if isinstance(head, nn.Linear)]
