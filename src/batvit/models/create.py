"""A model by its timm name, with weights from a file or from timm's hub."""

import difflib
import importlib
from pathlib import Path
from typing import Any

import timm
from torch import nn

from batvit.storage.files import first_line
from batvit.storage.weights import load_state, misshapen_key, read_weights


def create_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
    drop_path: float = 0.0,
) -> nn.Module:
    """A timm model, with weights from a local file or, if asked, from timm's hub.

    Args:
        name: as ``timm.create_model`` takes it.
        checkpoint: a ``.safetensors`` or ``.pth`` file; no download then.
        pretrained: have timm download its weights, if there is no checkpoint.
        num_classes: classes of the head, if not the model's own.
        image_size: (height, width) in pixels, if not the model's own; position embeddings are resampled.
        drop_path: the rate of stochastic depth, for training.

    Raises:
        ValueError: if the model is unknown, or the file is no checkpoint or not one of this model.
        OSError: if the file is missing or the download fails.
    """
    _check_name(name)
    if num_classes is not None and num_classes < 0:
        raise ValueError(
            f"num_classes must be 1 or more, or 0 for a model without a head, got {num_classes}"
        )
    state = None if checkpoint is None else read_weights(checkpoint)
    options = {"num_classes": num_classes, "drop_path_rate": drop_path or None}
    model = _build(
        name,
        pretrained and state is None,
        {key: value for key, value in options.items() if value is not None},
    )
    # weights fine-tuned at that size need it before, others are resampled to it after
    fits = state is None or not misshapen_key(model, state)
    if image_size is not None and not fits:
        _resize(model, name, image_size)
    if checkpoint is not None and state is not None:
        load_state(model, state, Path(checkpoint))
    if image_size is not None and fits:
        _resize(model, name, image_size)
    return model


def _check_name(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if "/" in name:
        return
    if not timm.is_model(architecture):
        # what this library adds to timm's registry
        importlib.import_module("batvit.models")
    if not timm.is_model(architecture):
        known = [model for model in timm.list_models() if not model.startswith("bat_")]
        # only as much of a name as was typed, or the shortest names would look nearest
        likeness = {
            m: difflib.SequenceMatcher(None, architecture, m[: len(architecture)]).ratio()
            for m in known
        }
        near = [
            m
            for m in sorted(known, key=lambda m: -likeness[m])[:3]
            if architecture and likeness[m] > 0.6
        ]
        raise ValueError(
            f"unknown model {name!r}"
            + (f"; did you mean {', '.join(near)}?" if near else "; see timm.list_models()")
        )
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise ValueError(
            f"unknown weights {name!r}; there are {', '.join(tagged) or 'none of this model'}"
        )


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if pretrained:
            message = f"no pretrained weights of {name} could be had ({first_line(error)}); give --checkpoint FILE"
        elif "/" in name:
            message = f"{name} could not be had ({first_line(error)}); give the name of a timm model"
        else:
            raise
        raise OSError(message) from error


def _resize(model: Any, name: str, image_size: tuple[int, int]) -> None:
    wanted = f"{image_size[0]} x {image_size[1]} pixels"
    if not hasattr(model, "set_input_size"):
        raise ValueError(f"{name} cannot change its image size to {wanted}")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if any(pixels % side for pixels, side in zip(image_size, patch, strict=True)):
        raise ValueError(
            f"{wanted} cannot be cut into the {patch[0]} x {patch[1]} patches of {name}; give multiples of them"
        )
    model.set_input_size(image_size)
