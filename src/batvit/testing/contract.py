"""The contract of every backbone: one function a promise, each given a model of random weights."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from batvit.backbones.patch import patch, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.config.config import BATConfig
from batvit.config.presets import PRESETS
from batvit.inspection.summary import info
from batvit.inspection.tracing import trace
from batvit.reduction.block import ReducedBlock, features_of
from batvit.reduction.site import config_of

TOLERANCE = 1e-5


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return every floating-point tensor that a model gives, whatever it wraps them in."""
    leaves = tree_leaves(anatomy_of(model).tower(images))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


# the checks


def keeping_everything(model: nn.Module, images: Tensor) -> None:
    """Keep rate 1 equals the untouched model, in every preset."""
    expected = _run(model, images)
    for mode in PRESETS:
        patch(model, mode=mode, keep_rate=1.0, blocks=(1, 2))
        block = anatomy_of(model).blocks[1]
        _require(isinstance(block, ReducedBlock), "the blocks were not replaced")
        _same(_run(model, images), expected, f"{mode}, keep rate 1", tolerance=TOLERANCE)


def unpatching(model: nn.Module, images: Tensor) -> None:
    """Unpatching restores every bit, every key, every attribute."""
    expected = _run(model, images)
    keys = list(model.state_dict())
    attributes = _attributes(model)
    classes = [type(module) for module in model.modules()]
    _reduced(model)
    _require(list(model.state_dict()) == keys, "patching changed the keys of the state dict")
    reduced = _run(model, images)
    _require(_differ(reduced, expected), "half of the tokens were merged, and nothing changed")
    _require(all(x.isfinite().all() for x in reduced), "not all values are finite")
    unpatch(model)
    _require(list(model.state_dict()) == keys, "unpatching changed the keys of the state dict")
    classes_left = [type(module) for module in model.modules()]
    _require(classes_left == classes, "unpatching left another class")
    _require(_attributes(model) == attributes, "unpatching left attributes behind")
    _require(config_of(model) is None, "unpatching left the configuration")
    _same(_run(model, images), expected, "unpatched")


def counts(model: nn.Module, images: Tensor) -> None:
    """The tokens are as many as the configuration says, no patch is lost, and ``info`` agrees."""
    anatomy = anatomy_of(model)
    half = anatomy.patches // 2
    quarter = anatomy.patches // 4
    patch(model, tokens=(half, quarter), blocks=(1, 2))
    seen: list[int] = []

    def count(module: nn.Module, args: Any, output: Any) -> None:
        seen.append(features_of(output).shape[1] - anatomy.prefix)

    hooks = [block.register_forward_hook(count) for block in anatomy.blocks[:-1]]
    with trace(model) as record:
        _run(model, images)
    for hook in hooks:
        hook.remove()
    expected = [anatomy.patches, half, *[quarter] * (anatomy.depth - 3)]
    _require(seen == expected, f"tokens after the blocks: {seen}, expected {expected}")
    groups = [site.origin.groups for site in record.sites]
    _require(groups == [half, quarter], f"groups: {record.sites}")
    for site in record.sites:
        _require(site.origin.is_total, "a patch was lost")
        _require(site.origin.is_onto, "a group is empty")
        _require(torch.equal(site.size, site.origin.sizes.float()), "sizes do not add up")
    cost = info(model, image_size=(images.shape[-2], images.shape[-1]))
    tokens_out = [cost.blocks[block].tokens_out for block in (1, 2)]
    _require(tokens_out == [half, quarter], f"info says {cost.blocks}")
    _require(cost.macs < cost.dense_macs, f"{cost.macs} MACs, dense {cost.dense_macs}")


def copying(model: nn.Module, images: Tensor) -> None:
    """A deep copy and a pickled copy compute the same and are independent."""
    can_be_pickled = _can_be_pickled(model)
    _reduced(model)
    twins = {"deepcopy": copy.deepcopy(model)}
    if can_be_pickled:
        twins["pickle"] = pickle.loads(pickle.dumps(model))  # noqa: S301
    expected = _run(model, images)
    for what, twin in twins.items():
        _same(_run(twin, images), expected, what)
        _require(config_of(twin) == config_of(model), f"{what}: the configuration is another one")
        unpatch(twin)
        _same(_run(model, images), expected, f"the original, after its {what} was unpatched")


def saving(model: nn.Module, images: Tensor) -> None:
    """Weights of a patched model go into an untouched one."""
    untouched = copy.deepcopy(model)
    _reduced(model)
    changed = {name: weight + 0.01 for name, weight in model.state_dict().items()}
    model.load_state_dict(changed)
    expected = _run(model, images)
    untouched.load_state_dict(changed)
    _same(_run(_reduced(untouched), images), expected, "loaded")


def gradient_checkpointing(model: nn.Module, images: Tensor) -> bool:
    """Recomputing the blocks gives the same gradients; False if the model offers none."""
    _reduced(model).train()
    plain = _gradients(model, images)
    if not _start_checkpointing(model):
        return False
    recomputed = _gradients(model, images)
    _require(len(plain) == len(recomputed), "some gradients are missing")
    _require(any(bool(gradient.any()) for gradient in plain), "there are no gradients")
    for one, other in zip(plain, recomputed, strict=True):
        _same([other], [one], "recomputed gradient", tolerance=TOLERANCE)
    return True


def low_precision(model: nn.Module, images: Tensor) -> None:
    """Autocast works, and so does a model that is bfloat16 or float16 throughout."""
    _reduced(model)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            finite = all(x.isfinite().all() for x in _run(model, images))
        _require(finite, f"not finite under autocast to {dtype}")
        low = copy.deepcopy(model).to(dtype)
        reduced_types = [x.dtype for x in _run(low, images.to(dtype))]
        types = [x.dtype for x in _run(unpatch(low), images.to(dtype))]
        otherwise = f"a model of {dtype} gives {reduced_types}, untouched {types}"
        _require(reduced_types == types, otherwise)


def threads(model: nn.Module, images: Tensor) -> None:
    """Two threads call one model at once."""
    _reduced(model)
    batches = [images[:1], torch.cat([images, images.flip(0)])]
    torch.manual_seed(0)
    with torch.no_grad():
        expected = [outputs(model, batch) for batch in batches]

    def work(batch: Tensor) -> list[list[Tensor]]:
        with torch.no_grad():
            return [outputs(model, batch) for _ in range(5)]

    with ThreadPoolExecutor(len(batches)) as pool:
        results = list(pool.map(work, batches))
    for repeated, once in zip(results, expected, strict=True):
        for result in repeated:
            _same(result, once, "a thread's result")


def patching_again(model: nn.Module, images: Tensor) -> None:
    """A second patch replaces the first."""
    config = BATConfig.preset("paper", keep_rate=0.4, blocks=(1, 2))
    expected = _run(patch(copy.deepcopy(model), config), images)
    patch(model, keep_rate=0.8, blocks=(0, 1))
    patch(model, config)
    _same(_run(model, images), expected, "patched twice")
    _require(config_of(model) == config, "the configuration is another one")


def size_awareness(model: nn.Module, images: Tensor) -> None:
    """The attention knows of the sizes, at a site and after it."""
    last = anatomy_of(model).depth - 1
    for blocks in ((last - 1, last), (last - 1,)):
        fields: dict[str, Any] = {"keep_rate": 0.5, "blocks": blocks, "weight": "size"}
        aware = _run(patch(model, size_aware=True, **fields), images)
        unaware = _run(patch(model, size_aware=False, **fields), images)
        otherwise = f"with sites {blocks}, the sizes of merged tokens make no difference"
        _require(_differ(aware, unaware), otherwise)


def each_image(model: nn.Module, images: Tensor) -> None:
    """Every image of a batch is reduced on its own."""
    _reduced(model)
    together = _run(model, images)
    for i in range(len(images)):
        alone = _run(model, images[i : i + 1])
        expected = [x[i : i + 1] for x in together]
        _same(alone, expected, f"image {i} alone", tolerance=10 * TOLERANCE)


CHECKS: dict[str, Callable[[nn.Module, Tensor], bool | None]] = {
    "keeping_everything": keeping_everything,
    "unpatching": unpatching,
    "counts": counts,
    "copying": copying,
    "saving": saving,
    "gradient_checkpointing": gradient_checkpointing,
    "low_precision": low_precision,
    "threads": threads,
    "patching_again": patching_again,
    "size_awareness": size_awareness,
    "each_image": each_image,
}
"""name to check; one that returns False found nothing to check"""


# what the checks are made of


def _require(holds: bool, otherwise: str) -> None:
    # not an assert statement: python -O leaves those out
    if not holds:
        raise AssertionError(otherwise)


def _run(model: nn.Module, images: Tensor) -> list[Tensor]:
    # models that draw random numbers on the way, such as masked autoencoders, draw the same ones
    torch.manual_seed(0)
    with torch.no_grad():
        return outputs(model, images)


def _same(
    found: list[Tensor], expected: list[Tensor], what: str, *, tolerance: float = 0.0
) -> None:
    """Require equal tensors, up to a share of the largest value."""
    shapes = [tuple(x.shape) for x in found]
    shapes_expected = [tuple(x.shape) for x in expected]
    _require(shapes == shapes_expected, f"{what}: shapes are {shapes}, expected {shapes_expected}")
    for x, y in zip(found, expected, strict=True):
        difference = float((x - y).abs().max())
        largest = max(1.0, float(y.abs().max()))
        _require(
            difference <= tolerance * largest,
            f"{what}: differs by {difference:.3g}, the largest value is {largest:.3g}",
        )


def _differ(found: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether any tensor has another shape or another value."""
    return any(not torch.equal(x, y) for x, y in zip(found, other, strict=True))


def _reduced(model: nn.Module) -> nn.Module:
    last = anatomy_of(model).depth - 1
    return patch(model, keep_rate=0.5, blocks=(1, last), prefix_only=True)


def _attributes(model: nn.Module) -> list[list[str]]:
    """Return the names of what every module holds."""
    return [sorted(vars(module)) for module in model.modules()]


def _gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the gradients of every parameter that has one, of a sum of squares."""
    model.zero_grad()
    torch.manual_seed(0)
    loss = torch.zeros(())
    for x in outputs(model, images):
        loss = loss + x.square().mean()
    loss.backward()
    return [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]


def _start_checkpointing(model: nn.Module) -> bool:
    """Switch gradient checkpointing on by any library's method; False if the model has none."""
    for name in (
        "set_grad_checkpointing",
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
    ):
        if hasattr(model, name):
            try:
                getattr(model, name)()
            except ValueError:
                # transformers has the method for models that cannot, too
                return False
            return True
    return False


def _can_be_pickled(model: nn.Module) -> bool:
    """Return whether the untouched model can: some libraries hang local functions on theirs."""
    try:
        pickle.dumps(model)
    except (AttributeError, TypeError, pickle.PicklingError):
        return False
    return True
