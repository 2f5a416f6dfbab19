"""Feature maps of the full grid from a model whose blocks merge tokens."""

from functools import partial
from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn

from batvit.module_copy import of_the_model
from batvit.reduction.block import ReducedBlock
from batvit.reduction.features import ReducedFeatures
from batvit.reduction.tokens import Tokens
from batvit.reduction.wrapped import own_class, reduced_class, remade, unwrapped


class WithGrid(nn.Module):
    """A model whose ``forward_intermediates`` gives full feature maps, though its blocks merge.

    A library's adapter derives ``class ReducedX(WithGrid, X)`` from the class X that has that
    method. The method itself runs as it is, on a stand-in for the model whose blocks take and
    return the grid.
    """

    blocks_name: ClassVar[str] = "blocks"
    """the attribute of the model that holds its blocks"""

    @classmethod
    def own_class(cls) -> type[nn.Module]:
        """Return the library's own class of the model, whatever was made from its reduced class."""
        return own_class(cls, WithGrid)

    @classmethod
    def reduced_class(cls) -> type["WithGrid"]:
        """Return the reduced class as an adapter wrote it, whatever was made from it."""
        reduced: type[WithGrid] = reduced_class(cls, WithGrid)
        return reduced

    def forward_intermediates(self, *args: Any, **arguments: Any) -> Any:
        """Do as the model's own: every patch has the feature of the group that it is in by then."""
        own: MethodType = super().forward_intermediates  # type: ignore[misc]
        return own.__func__(_GridBetweenBlocks(self), *args, **arguments)

    def prune_intermediate_layers(self, *args: Any, **arguments: Any) -> Any:
        """Do as the model's own; the block that is then the last gives the grid."""
        own: MethodType = super().prune_intermediate_layers  # type: ignore[misc]
        result = own(*args, **arguments)
        last: Any = unwrapped(getattr(self, self.blocks_name)[-1])
        if isinstance(last, ReducedBlock):
            last.output_form = "grid"
        return result


def become_with_grid(model: nn.Module, reduced: type[WithGrid]) -> None:
    """Turn a model into its class with full feature maps, in place, if it is not that yet."""
    changed: Any = model
    if not isinstance(model, reduced):
        changed.__class__ = remade(type(model), reduced.own_class(), reduced)


def become_without_grid(model: nn.Module) -> None:
    """Undo :func:`become_with_grid`."""
    changed: Any = model
    if isinstance(model, WithGrid):
        changed.__class__ = remade(type(changed), changed.reduced_class(), changed.own_class())


class _GridBetweenBlocks:
    """Stands in for a model during one call: between its blocks, merged tokens are unmerged."""

    def __init__(self, model: WithGrid) -> None:
        self._model = model
        blocks = getattr(model, model.blocks_name)
        # what each block is to go on with: the tokens that the grid of its predecessor was made of
        carried: list[Tokens | None] = [None] * (len(blocks) + 1)
        with_grid = [partial(_with_grid, block, i, carried) for i, block in enumerate(blocks)]
        setattr(self, model.blocks_name, with_grid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _with_grid(
    block: nn.Module,
    i: int,
    carried: list[Tokens | None],
    x: Tensor,
    *args: Any,
    **arguments: Any,
) -> Tensor:
    """Run one block on what its predecessor left, and return its result as a grid."""
    before = x if carried[i] is None else carried[i]
    if not isinstance(unwrapped(block), ReducedBlock):
        output: Tensor = block(before, *args, **arguments)
        return output
    tokens: Tokens = Tokens.of(block(before, *args, output_form="tokens", **arguments))
    carried[i + 1] = tokens
    return tokens.grid()


@of_the_model
def give_grids(module: nn.Module, args: Any, output: Any) -> Any:
    """Unmerge tokens wherever they are in an output, as a forward hook."""
    if isinstance(output, Tokens | ReducedFeatures):
        return output.grid()
    if isinstance(output, dict):
        for key, value in output.items():
            if isinstance(value, tuple):
                output[key] = give_grids(module, args, value)
    elif type(output) is tuple:
        return tuple(give_grids(module, args, value) for value in output)
    return output
