"""Whether an autograd function of anybody's is running: it sees no gradient in tokens."""

import sys
from types import FrameType
from typing import Any

import torch
from torch.autograd.function import FunctionCtx

LOST = (
    "re-entrant gradient checkpointing around reduced blocks, or another autograd function, loses "
    "their gradients; use use_reentrant=False, or put it around all blocks from the first reduced "
    "one on"
)


def running_function() -> Any:
    """Return the innermost autograd function whose ``forward`` runs now, by its context.

    None where gradients are on: then it does not run, or computes its own gradients. Torch does not
    tell, so the callers are asked: ``forward(ctx, …)`` of re-entrant checkpointing, whoever wrote
    it, looks just like ``torch.no_grad`` otherwise.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and code.co_argcount and code.co_varnames[0] != "self":
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, FunctionCtx):
                return first
        frame = frame.f_back
    return None


def refuse_lost_gradients(made_in: Any, requires_grad: bool) -> None:
    """Refuse tokens that came into an autograd function, or out of one, and lost their gradients.

    Args:
        made_in: the function in which they were made without gradients, or None.
        requires_grad: whether their features ask for gradients.

    Raises:
        ValueError: naming the remedy.
    """
    came_out = made_in is not None and running_function() is not made_in
    came_in = made_in is None and requires_grad and running_function() is not None
    if came_out or came_in:
        raise ValueError(LOST)
