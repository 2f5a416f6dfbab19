"""A head for other classes, on the trunk of a trained model."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data import ImageNetInfo
from torch import nn

HEADS = ("head", "head_dist", "aux_head")
"""the attributes by which timm's models, and LV-ViT, hold their heads"""


@torch.no_grad()
def replace_head(model: Any, classes: int, names: Sequence[str] | None) -> str:
    """Give a timm model a head for so many classes, and say what was done.

    Where the old head is that of ImageNet-1k and every class bears the name of one of its synsets,
    such as n01440764, the new head takes over their rows; otherwise it starts at random.

    Args:
        model: of 1 class or more.
        classes: how many there are to be.
        names: theirs, in label order, if they are known.
    """
    before = model.num_classes
    old_heads = _heads(model)
    model.reset_classifier(classes)
    rows = _rows_of_synsets(before, names or ())
    if len(rows) != classes:
        return f"a new head for {classes} classes takes the place of the one for {before}"
    for new, old in zip(_heads(model), old_heads, strict=True):
        new.weight.copy_(old.weight[rows])
        if new.bias is not None:
            new.bias.copy_(old.bias[rows])
    return f"the head for {classes} classes takes over their rows of the one for {before}"


def _rows_of_synsets(classes: int, names: Sequence[str]) -> list[int]:
    """Return the rows of names in a head of ImageNet-1k; none for a head of other classes."""
    synsets = ImageNetInfo("imagenet-1k").label_names()
    if classes != len(synsets):
        return []
    places = {name: i for i, name in enumerate(synsets)}
    return [places[name] for name in names if name in places]


def _heads(model: Any) -> list[nn.Linear]:
    heads = []
    for name in HEADS:
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            heads.append(head)
    return heads
