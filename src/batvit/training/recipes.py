"""Named ways to train, each with its command, what to expect, and how long it takes.

None of those for ImageNet was run here. Hours are estimates: DeiT-B's published 53 hours for 300
epochs on 8 V100 (Touvron et al. 2021, section 5), times the share of epochs and MACs; reading the
pictures may take longer. Numbers are the authors' (their logs and abstract; docs/algorithm.md).

A recipe is data; :func:`resolve` fills in what the caller does not give.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEIT_AUGMENTATION: dict[str, Any] = {
    "smoothing": 0.1,
    "mixup": 0.8,
    "cutmix": 1.0,
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "reprob": 0.25,
    "aug_repeats": 3,
    "drop_path": 0.1,
}
FINE_TUNE: dict[str, Any] = DEIT_AUGMENTATION | {
    "epochs": 30,
    "batch_size": 1024,
    "lr": 4e-5,
    "min_lr": 2e-6,
    "warmup_epochs": 0,
}
# the keep rate falls as EViT's does; the authors' log does not tell
SCRATCH: dict[str, Any] = DEIT_AUGMENTATION | {
    "epochs": 300,
    "batch_size": 2048,
    "lr": 2e-3,
    "min_lr": 1e-5,
    "warmup_epochs": 5,
    "keep_warmup_start": 10,
    "keep_warmup_epochs": 100,
}
GPU: dict[str, Any] = {"precision": "bf16", "workers": 8}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and how to train it."""

    about: str
    """its command, hours, and number to reach"""
    model: str
    """timm's name"""
    train: Mapping[str, Any]
    """fields of TrainConfig"""
    reduction: Mapping[str, Any]
    """the preset (``mode``) and any fields of BATConfig"""
    pretrained: bool = True
    """whether it starts from trained weights"""


RECIPES = {
    "deit_tiny": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_tiny \
            --data IMAGENET --output RUN
        Under an hour on 8 V100. The abstract: 72.3 at 0.76 G, dense 72.2 at 1.26; its
        protocol is not told.""",
        model="deit_tiny_patch16_224",
        train=FINE_TUNE | GPU,
        reduction={"mode": "paper", "keep_rate": 0.64},
    ),
    "deit_small": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_small \
            --keep-rate 0.6 --data IMAGENET --output RUN
        About an hour on 8 V100. At keep 0.6, 0.5, 0.4, 0.3, 0.2: 79.30, 79.02, 78.65, 77.82, 76.39;
        dense 79.8.""",
        model="deit_small_patch16_224",
        train=FINE_TUNE | GPU,
        reduction={"mode": "paper", "keep_rate": 0.6},
    ),
    "deit_base": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_base \
            --data IMAGENET --output RUN
        About 4 hours on 8 V100. No number is published; dense 81.8.""",
        model="deit_base_patch16_224",
        train=FINE_TUNE | GPU,
        reduction={"mode": "paper", "keep_rate": 0.7},
    ),
    "deit_tiny_scratch": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_tiny_scratch \
            --data IMAGENET --output RUN
        About 3 hours on 8 V100. The abstract: 72.3 at 0.76 G, dense 72.2 at 1.26; its
        protocol is not told.""",
        model="deit_tiny_patch16_224",
        train=SCRATCH | GPU,
        reduction={"mode": "paper", "keep_rate": 0.64},
        pretrained=False,
    ),
    "deit_small_scratch": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_small_scratch \
            --data IMAGENET --output RUN
        About 10 hours on 8 V100. 79.58 at keep 0.7, dense 79.8.""",
        model="deit_small_patch16_224",
        train=SCRATCH | GPU,
        reduction={"mode": "paper", "keep_rate": 0.7},
        pretrained=False,
    ),
    "deit_base_scratch": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe deit_base_scratch \
            --data IMAGENET --output RUN
        About 37 hours on 8 V100. No number is published; dense 81.8.""",
        model="deit_base_patch16_224",
        train=SCRATCH | GPU,
        reduction={"mode": "paper", "keep_rate": 0.7},
        pretrained=False,
    ),
    "lvvit_small": Recipe(
        about="""accelerate launch --num_processes 8 -m batvit train --recipe lvvit_small \
            --checkpoint FILE --data IMAGENET -o RUN
        About 2 hours on 8 V100. 83.1 at 4.7 G, dense 83.3 at 6.6. The labels of the tokens are the
        dense model's own, where the published ones come from an NFNet; there is no MixToken.""",
        model="lvvit_small_patch16_224",
        train=FINE_TUNE
        | GPU
        | {"mixup": 0.0, "cutmix": 0.0, "aug_repeats": 0, "token_labels": 0.5},
        reduction={"mode": "paper", "keep_rate": 0.7},
    ),
    "your_data": Recipe(
        about="""accelerate launch --num_processes 2 -m batvit train --recipe your_data \
            --data DIR --output RUN
        Minutes to hours. DIR holds train/ and val/ with one sub-folder of pictures a class; a new
        head is made for them.""",
        model="deit_small_patch16_224",
        train={
            "epochs": 20,
            "batch_size": 64,
            "lr": 2e-4,
            "min_lr": 1e-6,
            "layer_decay": 0.75,
            "auto_augment": "rand-m7-mstd0.5-inc1",
            "drop_path": 0.1,
            "clip_grad": 1.0,
            "precision": "bf16",
        },
        reduction={"mode": "training-free", "keep_rate": 0.7},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What to train, and how: the values that are given, and those of a recipe for the others."""

    model: str
    """timm's name"""
    train: dict[str, Any]
    """fields of TrainConfig"""
    reduction: dict[str, Any] | None
    """fields of BATConfig, with its preset (``mode``) or a file of one (``config``); None for the
    dense model"""
    pretrained: bool = True
    """whether it starts from trained weights"""


def resolve(
    recipe: str | None,
    *,
    model: str | None = None,
    train: Mapping[str, Any] | None = None,
    reduction: Mapping[str, Any] | None = None,
    dense: bool = False,
) -> Choices:
    """Let a recipe speak wherever no value is given.

    A given keep rate takes the place of a recipe's tokens, and given tokens that of its keep rate,
    as there cannot be both; a given ``config`` that of its whole reduction. For the dense model
    nothing is taken of a recipe's reduction, nor of how its keep rate is warmed up.

    Args:
        recipe: a name in :data:`RECIPES`; None where the given values are all there is.
        model: timm's name, if not that of the recipe.
        train: fields of TrainConfig.
        reduction: fields of BATConfig, with its preset (``mode``) or a file of one (``config``).
        dense: whether the model is trained without reduction.

    Raises:
        ValueError: if the recipe is unknown, if there is neither a recipe nor a model, or if a
            reduction is given for the dense model.
    """
    fields = dict(train or {})
    given = dict(reduction or {})
    if dense and given:
        name, value = next(iter(given.items()))
        raise ValueError(
            f"dense=True trains without reduction, but {name}={value} is given; leave one out"
        )
    if recipe is None:
        if model is None:
            raise ValueError("give model=MODEL, or recipe=NAME, which brings one")
        return Choices(model=model, train=fields, reduction=None if dense else given)
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
    chosen = RECIPES[recipe]
    return Choices(
        model=model or chosen.model,
        train=_train_fields(chosen, dense=dense) | fields,
        reduction=None if dense else _reduction_fields(chosen, given) | given,
        pretrained=chosen.pretrained,
    )


def _train_fields(recipe: Recipe, *, dense: bool) -> dict[str, Any]:
    """Return the fields of TrainConfig that a recipe brings."""
    fields = dict(recipe.train)
    for name in recipe.train:
        if dense and name.startswith("keep_warmup"):
            del fields[name]
    return fields


def _reduction_fields(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of BATConfig that a recipe brings, where they go with the given ones."""
    if "config" in given:
        return {}
    fields = dict(recipe.reduction)
    # they say the same in two ways, and a BATConfig takes one of them
    if "keep_rate" in given:
        fields.pop("tokens", None)
    if "tokens" in given:
        fields.pop("keep_rate", None)
    return fields
