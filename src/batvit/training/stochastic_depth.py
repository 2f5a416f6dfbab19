"""Stochastic depth that is the same for a picture, however many processes share an update.

Huang et al., ECCV 2016.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from batvit.training.batches import Batching, split_batch


class SplitDropPath(DropPath):
    """A ``DropPath`` that does not draw which pictures skip its branch: it is told."""

    kept: Tensor
    """(B,), 0 for a picture that skips the branch, for the others what makes up for it"""

    def forward(self, x: Tensor) -> Tensor:
        """Scale the output of a branch (B, …) picture by picture; in eval mode leave it."""
        if not self.training:
            return x
        one_a_picture = (-1,) + (1,) * (x.ndim - 1)
        return x * self.kept.to(x).view(one_a_picture)


def paths_of(model: nn.Module) -> list[DropPath]:
    """Return the branches of a model that are skipped at times."""
    paths = []
    for module in model.modules():
        if isinstance(module, DropPath) and module.drop_prob:
            paths.append(module)
    return paths


class StochasticDepth:
    """Which pictures skip which branches of a model, drawn for a whole update.

    Args:
        model: its branches are changed in place, until :meth:`finish`.
        batching: how an update is split.
    """

    def __init__(self, model: nn.Module, batching: Batching) -> None:
        self.paths = paths_of(model)
        self.batching = batching
        for path in self.paths:
            path.__class__ = SplitDropPath

    def draw(self, seed: int, part: int, device: torch.device) -> None:
        """Draw for a whole update, and tell the branches about one of its parts."""
        if not self.paths:
            return
        size = self.batching.config.batch_size
        generator = torch.Generator().manual_seed(seed)
        # (branches, size)
        drawn = torch.rand(len(self.paths), size, generator=generator)
        own_pictures = split_batch(list(range(size)), part, self.batching.parts)
        for path, numbers in zip(self.paths, drawn, strict=True):
            scale = 1 / (1 - path.drop_prob) if path.scale_by_keep else 1.0
            kept = (numbers >= path.drop_prob) * torch.tensor(scale)
            path.kept = kept[own_pictures].to(device)

    def finish(self) -> None:
        """Make the branches timm's again."""
        for path in self.paths:
            path.__class__ = DropPath
            vars(path).pop("kept", None)
