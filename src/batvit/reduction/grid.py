"""Feature maps of the full grid from a model whose blocks merge tokens."""

from functools import partial
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn

from batvit.module_copy import of_the_model
from batvit.reduction.block import ReducedBlock
from batvit.reduction.tokens import Tokens


class WithGrid(nn.Module):
    """A model whose ``forward_intermediates`` gives maps of the full grid, though its blocks merge tokens.

    A library's adapter derives ``class ReducedX(WithGrid, X)`` from the class X that has that method. The method itself
    runs as it is, on a stand-in for the model whose blocks take and return the grid.
    """

    blocks_name: ClassVar[str] = "blocks"

    def forward_intermediates(self, *args: Any, **arguments: Any) -> Any:
        """As the model's own: every patch has the feature of the group that it is in by then."""
        own: MethodType = super().forward_intermediates  # type: ignore[misc]
        return own.__func__(_Unmerging(self), *args, **arguments)

    def prune_intermediate_layers(self, *args: Any, **arguments: Any) -> Any:
        """As the model's own; the block that is then the last gives the grid."""
        own: MethodType = super().prune_intermediate_layers  # type: ignore[misc]
        found = own(*args, **arguments)
        last = getattr(self, self.blocks_name)[-1]
        if isinstance(last, ReducedBlock):
            last.output_form = "grid"
        return found


class _Unmerging:
    """Stands in for a model during one call: between its blocks, what is merged is given back."""

    def __init__(self, model: WithGrid) -> None:
        self._model = model
        carried: list[Tensor | Tokens | None] = [None] * (
            len(getattr(model, model.blocks_name)) + 1
        )
        blocks = [
            partial(_unmerged, block, i, carried)
            for i, block in enumerate(getattr(model, model.blocks_name))
        ]
        setattr(self, model.blocks_name, blocks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _unmerged(
    block: nn.Module,
    i: int,
    carried: list[Tensor | Tokens | None],
    x: Tensor,
    *args: Any,
    **arguments: Any,
) -> Tensor:
    """Run one block on what its predecessor left, and give its result as a grid."""
    before = x if carried[i] is None else carried[i]
    if not isinstance(block, ReducedBlock):
        first: Tensor = block(before, *args, **arguments)
        return first
    tokens: Tokens = block(before, *args, output_form="tokens", **arguments)
    carried[i + 1] = tokens
    return tokens.grid()


@of_the_model
def give_grids(module: nn.Module, args: Any, output: Any) -> Any:
    """A forward hook: wherever tokens are in an output, every patch gets its group's feature back."""
    if isinstance(output, Tokens):
        return output.grid()
    if isinstance(output, dict):
        for key, value in output.items():
            if isinstance(value, tuple):
                output[key] = give_grids(module, args, value)
    elif type(output) is tuple:
        return tuple(give_grids(module, args, value) for value in output)
    return output
