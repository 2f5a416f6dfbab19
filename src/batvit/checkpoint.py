"""Weights from a file, and never code."""

import difflib
import importlib
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from batvit.files import first_line, write_atomic


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
        raise ValueError(f"num_classes must be 1 or more, or 0 for a model without a head, got {num_classes}")
    state = None if checkpoint is None else read_weights(checkpoint)
    options = {"num_classes": num_classes, "drop_path_rate": drop_path or None}
    model = _build(name, pretrained and state is None, {key: value for key, value in options.items() if value is not None})
    # weights fine-tuned at that size need it before, others are resampled to it after
    fits = state is None or not _misshapen(model, state)
    if image_size is not None and not fits:
        _resize(model, name, image_size)
    if checkpoint is not None and state is not None:
        _load(model, state, Path(checkpoint))
    if image_size is not None and fits:
        _resize(model, name, image_size)
    return model


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a ``.safetensors`` or ``.pth`` file into a model, every key or none.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_weights`; also if its keys or shapes are not the model's, naming the
            first of each.
    """
    _load(model, read_weights(checkpoint), Path(checkpoint))


def save_weights(model: nn.Module, path: str | Path) -> Path:
    """Write the state dict of a model, compiled or not, as safetensors: whole or not at all."""
    return save_state(getattr(model, "_orig_mod", model).state_dict(), path)


def save_state(state: Mapping[str, Tensor], path: str | Path) -> Path:
    """Write a state dict as safetensors: whole or not at all."""
    # a copy of each: safetensors refuses weights that share their memory
    apart = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    return write_atomic(path, safetensors.torch.save(apart))


def read_weights(checkpoint: str | Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` or ``.pth`` file; of a training checkpoint the averaged weights, if it has them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or holds more than tensors, whose loading could run code.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            # torch warns of an odd file before it refuses it
            warnings.simplefilter("ignore")
            state = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        # whatever a parser stumbles over, the file is no good
        raise ValueError(f"{path}: {_refusal(error)}") from error
    strange = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise ValueError(f"{path}: {strange!r} is no tensor; give a file that holds a state dict")
    # such as cannot be copied into a parameter, or lose what they hold
    odd = next((key for key, w in state.items() if w.is_meta or w.layout != torch.strided or w.is_complex()), None)
    if odd is not None:
        raise ValueError(f"{path}: {odd!r} is sparse, complex or without values; give a file that holds plain tensors")
    return state


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
        likeness = {m: difflib.SequenceMatcher(None, architecture, m[: len(architecture)]).ratio() for m in known}
        near = [m for m in sorted(known, key=lambda m: -likeness[m])[:3] if architecture and likeness[m] > 0.6]
        raise ValueError(
            f"unknown model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "; see timm.list_models()")
        )
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise ValueError(f"unknown weights {name!r}; there are {', '.join(tagged) or 'none of this model'}")


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if pretrained:
            message = f"no pretrained weights of {name} could be had ({_first_line(error)}); give --checkpoint FILE"
        elif "/" in name:
            message = f"{name} could not be had ({_first_line(error)}); give the name of a timm model"
        else:
            raise
        raise OSError(message) from error


def _resize(model: Any, name: str, image_size: tuple[int, int]) -> None:
    wanted = f"{image_size[0]} x {image_size[1]} pixels"
    if not hasattr(model, "set_input_size"):
        raise ValueError(f"{name} cannot change its image size to {wanted}")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if any(pixels % side for pixels, side in zip(image_size, patch, strict=True)):
        raise ValueError(f"{wanted} cannot be cut into the {patch[0]} x {patch[1]} patches of {name}; give multiples of them")
    model.set_input_size(image_size)


def _misshapen(model: nn.Module, state: dict[str, Tensor]) -> str | None:
    """The first key that is in both and has another shape in each."""
    expected = model.state_dict()
    return next((key for key, value in expected.items() if key in state and state[key].shape != value.shape), None)


def _load(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, unexpected = [k for k in expected if k not in state], [k for k in state if k not in expected]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {what}, the first is {keys[0]!r}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise ValueError(
            f"{path}: the keys are not those of this {type(model).__name__}: {'; '.join(parts)}; "
            "give the model that the weights are of"
        )
    key = _misshapen(model, state)
    if key is not None:
        raise ValueError(
            f"{path}: {key} has shape {tuple(state[key].shape)}, the model needs {tuple(expected[key].shape)}; "
            "give the model, number of classes and image size that the weights are of"
        )
    model.load_state_dict(state)


def _refusal(error: Exception) -> str:
    # timm wraps what torch's safe loader raises
    cause = error if isinstance(error, pickle.UnpicklingError) else error.__cause__
    if not isinstance(cause, pickle.UnpicklingError):
        return f"not a readable checkpoint ({_first_line(error)}); give a .safetensors or .pth file"
    named = re.search(r"GLOBAL (\S+)", str(cause))
    found = named[1] if named else "what torch's safe loader does not know"
    return f"refused, because it holds more than tensors ({found}) and could run code; save the state dict alone"


def _first_line(error: BaseException) -> str:
    return textwrap.shorten(first_line(error), 300, placeholder="…")
