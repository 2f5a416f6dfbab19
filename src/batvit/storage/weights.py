"""State dicts read from files and written to them: every key or none, and never code."""

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from batvit.storage.files import first_line, write_atomic
from batvit.storage.reading import check_file


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a ``.safetensors`` or ``.pth`` file into a model, every key or none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or its keys or shapes are not the model's, naming the
            first of each.
    """
    load_state(model, read_weights(checkpoint), Path(checkpoint))


def save_weights(model: nn.Module, path: str | Path) -> Path:
    """Write the state dict of a model, compiled or not, as safetensors: whole or not at all."""
    # torch.compile wraps the model, and its keys
    plain = getattr(model, "_orig_mod", model)
    return save_state(plain.state_dict(), path)


def weights_digest(model: nn.Module) -> str:
    """Return a text that is another one for all other weights (SHA-256, hexadecimal)."""
    hashed = hashlib.sha256()
    for name, value in model.state_dict().items():
        hashed.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hashed.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()


def save_state(state: Mapping[str, Tensor], path: str | Path) -> Path:
    """Write a state dict as safetensors: whole or not at all."""
    copies = {}
    for key, value in state.items():
        # a copy of each, because safetensors refuses weights that share their memory
        copies[key] = value.detach().cpu().clone().contiguous()
    return write_atomic(path, safetensors.torch.save(copies))


def read_weights(checkpoint: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a ``.safetensors`` or ``.pth`` file.

    Of a training checkpoint these are the averaged weights, if it has them.

    Raises:
        FileNotFoundError, OSError: if there is no such file, or it is no regular one.
        ValueError: if it cannot be read, would unpack to more than it is, or holds more than
            tensors, whose loading could run code.
    """
    path = check_file(checkpoint)
    check_archive(path)
    try:
        with warnings.catch_warnings():
            # torch warns of an odd file before it refuses it
            warnings.simplefilter("ignore")
            state = load_state_dict(str(path), device="cpu", weights_only=True)
    except Exception as error:
        # whatever a parser stumbles over, the file is no good
        raise ValueError(f"{path}: {_refusal(error)}") from error
    _check_tensors(state, path)
    return state


def misshapen_key(model: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """Return the first key that is in both and has another shape in each; None if there is none."""
    for key, value in model.state_dict().items():
        if key in state and state[key].shape != value.shape:
            return key
    return None


def load_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a model, every key or none.

    Args:
        model: it is not touched if anything does not fit.
        state: the weights.
        path: the file that they come from, for the message.

    Raises:
        ValueError: if the keys or shapes are not the model's, naming the first of each.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing, the first is {missing[0]!r}")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected, the first is {unexpected[0]!r}")
    if parts:
        raise ValueError(
            f"{path}: the keys are not those of this {type(model).__name__}: {'; '.join(parts)}; "
            "give the model that the weights are of"
        )
    key = misshapen_key(model, state)
    if key is not None:
        raise ValueError(
            f"{path}: {key} has shape {tuple(state[key].shape)}, the model needs "
            f"{tuple(expected[key].shape)}; give the model, number of classes and image size that "
            "the weights are of"
        )
    for key, value in state.items():
        _check_kind(key, value, expected[key], path)
    model.load_state_dict(state)


def _check_kind(key: str, value: Tensor, expected: Tensor, path: Path) -> None:
    """Refuse numbers of another kind than the model's, which a copy would cast in silence.

    Floating-point numbers of 16 bits and more stand for one another, and so do integers. Those of 8
    bits are quantised, and mean nothing without their scales.
    """
    is_quantised = value.dtype.is_floating_point and value.dtype.itemsize == 1
    if is_quantised or _kind(value.dtype) != _kind(expected.dtype):
        raise ValueError(
            f"{path}: {key!r} is {_name(value.dtype)}, the model needs {_name(expected.dtype)}; "
            "give weights that are not quantised"
        )


def _kind(dtype: torch.dtype) -> str:
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "integer"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to more than it is: torch packs weights as they are.

    Raises:
        ValueError: naming both sizes.
    """
    if path.suffix == ".safetensors":
        return
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        # the loader says what is wrong with it
        return
    size = path.stat().st_size
    if unpacked > size:
        raise ValueError(
            f"{path}: refused, because its {size:,} bytes would unpack to {unpacked:,}; "
            "save the weights with torch.save, which does not compress them"
        )


def _check_tensors(state: Mapping[str, Any], path: Path) -> None:
    """Refuse values that are no tensors, and tensors that cannot be copied into a parameter."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {key!r} is no tensor; give a file that holds a state dict")
    for key, value in state.items():
        if value.is_meta or value.layout != torch.strided or value.is_complex():
            raise ValueError(
                f"{path}: {key!r} is sparse, complex or without values; "
                "give a file that holds plain tensors"
            )


def _refusal(error: Exception) -> str:
    """Say why a file cannot be read: for its format, or because it would run code."""
    # timm wraps what torch's safe loader raises
    cause = error if isinstance(error, pickle.UnpicklingError) else error.__cause__
    if not isinstance(cause, pickle.UnpicklingError):
        return f"not a readable checkpoint ({first_line(error)}); give a .safetensors or .pth file"
    named = re.search(r"GLOBAL (\S+)", str(cause))
    content = named[1] if named else "what torch's safe loader does not know"
    return (
        f"refused, because it holds more than tensors ({content}) and could run code; "
        "save the state dict alone"
    )
