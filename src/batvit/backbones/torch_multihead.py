"""What blocks around ``torch.nn.MultiheadAttention`` have in common: torchvision's, open_clip's."""

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import QueriesKeys
from batvit.reduction.wrapped import is_made_from

OWN_FORWARD = "_old_forward"
"""the name by which accelerate keeps the forward that it puts its own around"""


class MultiheadBlock(ReducedBlock):
    """A block whose attention is ``nn.MultiheadAttention`` and whose forward takes no mask."""

    attentions = (nn.MultiheadAttention,)
    mask = None

    @classmethod
    def own_attention(cls, attention: nn.Module) -> nn.Module:
        """Return the attention inside wrappers such as those of peft; itself if there is none."""
        return next(iter(_inside(attention)), attention)

    def attend(
        self, x: Tensor, bias: Tensor | None, arguments: dict[str, Any]
    ) -> tuple[Tensor, QueriesKeys | Callable[[], QueriesKeys] | None]:
        """Run the attention module itself; its fast path shows neither queries nor keys.

        At a site they are projected once more, when the reduction asks for them.
        """
        attention = getattr(self, self.parts.attention)
        # a padding mask of numbers is the same for all heads and queries, as the bias is
        padding_mask = None if bias is None else bias[:, 0, 0]
        arguments = {"key_padding_mask": padding_mask, "need_weights": False}
        if self.reduce is None:
            return attention(x, x, x, **arguments)[0], None
        queries = 1 if self.reduce.class_token else x.shape[1]
        if _is_plain(attention):
            attended, _ = attention(x, x, x, **arguments)
            return attended, partial(project_again, Projection.of(attention), x, queries)
        with Listener(attention, queries) as listener:
            attended, _ = attention(x, x, x, **arguments)
        return attended, listener.heard


class Projection(NamedTuple):
    """By what an attention makes its queries and keys."""

    weight: Tensor
    """(3 C, C): of queries, keys and values"""
    bias: Tensor | None
    heads: int

    @classmethod
    def of(cls, attention: nn.MultiheadAttention) -> "Projection":
        """Return that of an attention as it is now."""
        return cls(attention.in_proj_weight, attention.in_proj_bias, attention.num_heads)


class Listener:
    """Hears what the attention inside a wrapper is given, and which weights it has while it runs.

    peft, FSDP2, accelerate and parametrizations lend it weights for the time of a call. A context
    manager.
    """

    heard: QueriesKeys | Callable[[], QueriesKeys]
    """the queries and keys, or what projects them when it is called"""

    def __init__(self, attention: nn.Module, queries: int) -> None:
        self.inside = _inside(attention)
        self.queries = queries
        self.thread = get_ident()

    def __enter__(self) -> "Listener":
        self.undo: list[Callable[[], Any]] = []
        for part in self.inside:
            own = vars(part).get(OWN_FORWARD)
            if own is None:
                hook = part.register_forward_pre_hook(self._hear, with_kwargs=True)
                self.undo.append(hook.remove)
            else:
                setattr(part, OWN_FORWARD, partial(self._hear_inside, part, own))
                self.undo.append(partial(setattr, part, OWN_FORWARD, own))
        return self

    def __exit__(self, *error: object) -> None:
        for undo in self.undo:
            undo()
        if error[0] is None and not hasattr(self, "heard"):
            raise TypeError(
                "the attention of a reduced block did not call its torch.nn.MultiheadAttention, "
                "whose queries and keys are needed; batvit.unpatch the model"
            )

    def _hear(self, module: Any, args: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        # another thread may run the same module
        if get_ident() != self.thread:
            return
        x = args[0] if args else arguments["query"]
        self.heard = partial(project_again, Projection.of(module), x, self.queries)
        # FSDP2 and accelerate take the weights away after the call
        if hasattr(module, "reshard") or OWN_FORWARD in vars(module):
            self.heard = self.heard()

    def _hear_inside(self, module: Any, own: Callable[..., Any], *args: Any, **given: Any) -> Any:
        """Do as the forward that accelerate put its own around, once the weights are there."""
        self._hear(module, args, given)
        return own(*args, **given)


def _is_plain(attention: nn.Module) -> bool:
    """Return whether an attention has its own weights, and is given what the block gives it."""
    # a hook for one call cannot be in a graph
    if torch.compiler.is_compiling():
        return isinstance(attention, nn.MultiheadAttention)
    # accelerate brings the weights in a forward of its own, and takes them away again
    is_own = type(attention) is nn.MultiheadAttention and "forward" not in vars(attention)
    return is_own and not attention._forward_pre_hooks


def _inside(attention: nn.Module) -> list[nn.Module]:
    return [part for part in attention.modules() if is_made_from(type(part), nn.MultiheadAttention)]


def project_again(projection: Projection, x: Tensor, queries: int) -> QueriesKeys:
    """Return queries and keys once more, as an attention makes them.

    Args:
        projection: of the attention.
        x: (B, N, C), normalised.
        queries: of how many tokens, from the first on; the keys are those of all.
    """
    query_weight, key_weight, _ = projection.weight.chunk(3)
    query_bias = None
    key_bias = None
    if projection.bias is not None:
        query_bias, key_bias, _ = projection.bias.chunk(3)
    heads = projection.heads
    queries_made = _project(x[:, :queries], query_weight, query_bias, heads)
    keys_made = _project(x, key_weight, key_bias, heads)
    return QueriesKeys(queries_made, keys_made, scale=keys_made.shape[-1] ** -0.5)


def _project(x: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """Take (B, N, C) to (B, heads, N, C / heads)."""
    projected: Tensor = nn.functional.linear(x, weight, bias).unflatten(-1, (heads, -1))
    return projected.transpose(1, 2)
