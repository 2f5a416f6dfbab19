"""Stochastic depth (Huang et al., ECCV 2016) that is the same for a picture, however many processes share an update."""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from batvit.training.batches import Batching, deal


class SplitDropPath(DropPath):
    """timm's, of which the pictures that are left out are told, not drawn."""

    kept: Tensor
    """(B,), 0 for a picture that is left out, for the others what makes up for it"""

    def forward(self, x: Tensor) -> Tensor:
        """A branch, of the pictures that keep it."""
        return x * self.kept.to(x).view(-1, *(1,) * (x.ndim - 1)) if self.training else x


def paths_of(model: nn.Module) -> list[DropPath]:
    """The branches that are left out at times."""
    return [
        module for module in model.modules() if isinstance(module, DropPath) and module.drop_prob
    ]


class Depth:
    """Says for every update which pictures skip which branches of a model."""

    def __init__(self, model: nn.Module, batching: Batching) -> None:
        self.paths = paths_of(model)
        self.batching = batching
        for path in self.paths:
            path.__class__ = SplitDropPath

    def deal(self, seed: int, part: int, device: torch.device) -> None:
        """Draw for a whole update, and tell the paths about one of its parts."""
        if not self.paths:
            return
        batch = self.batching.config.batch_size
        drawn = torch.rand(len(self.paths), batch, generator=torch.Generator().manual_seed(seed))
        dropped = torch.tensor([path.drop_prob for path in self.paths]).unsqueeze(1)
        scale = torch.tensor(
            [1 / (1 - path.drop_prob) if path.scale_by_keep else 1.0 for path in self.paths]
        ).unsqueeze(1)
        kept = ((drawn >= dropped) * scale)[
            :, deal(list(range(batch)), part, self.batching.parts)
        ].to(device)
        for path, mine in zip(self.paths, kept, strict=True):
            path.kept = mine

    def finish(self) -> None:
        """Make the paths timm's again."""
        for path in self.paths:
            path.__class__ = DropPath
            vars(path).pop("kept", None)
