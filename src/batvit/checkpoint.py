"""Weights from a file, and never code."""

import difflib
import pickle
from pathlib import Path
from typing import Any, cast

import timm
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import nn


def create_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A timm model, with weights from a local file or, if asked, from timm's hub.

    Args:
        name: as ``timm.create_model`` takes it.
        checkpoint: a ``.safetensors`` or ``.pth`` file; no download then.
        pretrained: have timm download its weights, if there is no checkpoint.
        num_classes: classes of the head, if not the model's own.
        image_size: (height, width) in pixels, if not the model's own; position embeddings are resampled.

    Raises:
        ValueError: if the model is unknown, or the file is no checkpoint or not one of this model.
        OSError: if the file is missing or the download fails.
    """
    if "/" not in name and not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(
            f"unknown model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "; see timm.list_models()")
        )
    classes: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    download = pretrained and checkpoint is None
    try:
        model: Any = timm.create_model(name, pretrained=download, **classes)
    except Exception as error:
        if not download:
            raise
        raise OSError(f"no pretrained weights of {name} could be had ({_first_line(error)}); give --checkpoint FILE") from error
    if checkpoint is not None:
        load_weights(model, checkpoint)
    if image_size is not None:
        if not hasattr(model, "set_input_size"):
            raise ValueError(f"{name} cannot change its image size to {image_size[0]} x {image_size[1]}")
        model.set_input_size(image_size)
    return cast(nn.Module, model)


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a ``.safetensors`` or ``.pth`` file into a model, every key or none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or its keys or shapes are not the model's, naming the first of each.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(f"{path}: not a readable checkpoint ({_first_line(error)})") from error
    expected = model.state_dict()
    missing, unexpected = [k for k in expected if k not in state], [k for k in state if k not in expected]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {what}, the first is {keys[0]!r}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise ValueError(f"{path}: the keys are not those of {type(model).__name__}: {'; '.join(parts)}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise ValueError(f"{path}: {key} has shape {tuple(value.shape)}, the model needs {tuple(expected[key].shape)}")
    model.load_state_dict(state)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
