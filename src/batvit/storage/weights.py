"""Weights from a file, and never code."""

import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from batvit.storage.files import first_line, write_atomic


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a ``.safetensors`` or ``.pth`` file into a model, every key or none.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_weights`; also if its keys or shapes are not the model's, naming the
            first of each.
    """
    load_state(model, read_weights(checkpoint), Path(checkpoint))


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
    odd = next(
        (
            key
            for key, w in state.items()
            if w.is_meta or w.layout != torch.strided or w.is_complex()
        ),
        None,
    )
    if odd is not None:
        raise ValueError(
            f"{path}: {odd!r} is sparse, complex or without values; give a file that holds plain tensors"
        )
    return state


def misshapen_key(model: nn.Module, state: dict[str, Tensor]) -> str | None:
    """The first key that is in both and has another shape in each."""
    expected = model.state_dict()
    return next(
        (
            key
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ),
        None,
    )


def load_state(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, unexpected = (
        [k for k in expected if k not in state],
        [k for k in state if k not in expected],
    )
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
    key = misshapen_key(model, state)
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
        return f"not a readable checkpoint ({short_first_line(error)}); give a .safetensors or .pth file"
    named = re.search(r"GLOBAL (\S+)", str(cause))
    found = named[1] if named else "what torch's safe loader does not know"
    return f"refused, because it holds more than tensors ({found}) and could run code; save the state dict alone"


def short_first_line(error: BaseException) -> str:
    return textwrap.shorten(first_line(error), 300, placeholder="…")
