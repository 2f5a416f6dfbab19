"""Multiply-accumulates of any module, counted by torch's own FLOP counter."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from batvit.module_copy import on_meta


def count_macs(model: nn.Module, input_size: tuple[int, ...], **arguments: Any) -> dict[str, int]:
    """Count the MACs of one forward pass, for the whole model and for every module that has any.

    Matrix products, convolutions and attention count; softmax, norms, sorting, gathering and adding
    do not. Runs on the meta device: no weight is read, nothing is computed, and attention counts
    whatever kernel the machine would pick.

    Args:
        model: any module whose forward takes one tensor.
        input_size: shape of that tensor without the batch, (channels, height, width) for images.
        arguments: what else its forward needs, by name.

    Returns:
        Module name to MACs for one input; the name of the whole model is "".
    """
    shadow = on_meta(model)
    dtype = next(
        (p.dtype for p in shadow.parameters() if p.is_floating_point()), torch.get_default_dtype()
    )
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, _NothingIsPadding():  # type: ignore[no-untyped-call]
        shadow(torch.empty(1, *input_size, dtype=dtype, device="meta"), **arguments)
    # the counter names each module after the class of the whole model
    root = type(model).__name__
    macs = {"": 0}
    for name, operations in counter.get_flop_counts().items():
        if name != "Global":
            name_in_model = name.removeprefix(root).removeprefix(".")
            macs[name_in_model] = sum(operations.values()) // 2
    return macs


class _NothingIsPadding(TorchDispatchMode):
    """Says yes where a model asks whether all of a mask is true, which on meta has no values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = func is torch.ops.aten._local_scalar_dense.default
        if asked and args[0].is_meta and args[0].dtype == torch.bool:
            return True
        return func(*args, **(kwargs or {}))


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
