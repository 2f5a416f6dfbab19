"""The contract, run: an adapter is right when :func:`check_backbone` passes."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from batvit.backbones.patch import unpatch
from batvit.testing.contract import CHECKS


def check_backbone(
    model_factory: Callable[[], nn.Module], images: Tensor, *, only: str | None = None
) -> list[str]:
    """Run the contract on a model that :func:`batvit.patch` should support.

    Every parameter is made random first, so that a part that is dropped on the way (LayerScale,
    registers, a norm) shows.

    Args:
        model_factory: makes a small model on the CPU, of 3 blocks or more; called once.
        images: (B, 3, H, W) in float32, of the size that the model takes, B of 2 or more.
        only: the name of one check; all of them by default.

    Returns:
        The names of the checks that passed. A check of something that the model does not offer,
        such as gradient checkpointing, is left out.

    Raises:
        AssertionError: naming the check and what was found.
        ValueError: if there is no check of that name.

    Examples:
        >>> from batvit.testing import check_backbone
        >>> make = lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3)
        >>> check_backbone(make, torch.randn(2, 3, 64, 64), only="unpatching")
        ['unpatching']
    """
    if only is not None and only not in CHECKS:
        raise ValueError(f"no check is called {only!r}; there are {', '.join(CHECKS)}")
    names = list(CHECKS) if only is None else [only]
    model = unpatch(randomised(model_factory()))
    passed = []
    for name in names:
        try:
            offered = CHECKS[name](copy.deepcopy(model), images)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except Exception as error:
            # whatever it is, say which check it broke
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        if offered is not False:
            passed.append(name)
    return passed


def randomised(model: nn.Module) -> nn.Module:
    """Return the model in eval mode with random parameters, the same each time.

    They are normally distributed with a standard deviation of 0.2, those of norms around 1.

    Examples:
        >>> from batvit.testing import randomised
        >>> model = randomised(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> round(model.head.weight.std().item(), 2)
        0.2
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            around_one = parameter.dim() == 1 and float(parameter.detach().mean()) > 0.5
            parameter.normal_(0, 0.2, generator=generator)
            if around_one:
                parameter.add_(1.0)
    return model.eval()
