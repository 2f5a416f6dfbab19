"""The contract of every backbone: one function a promise, each given a fresh model with random weights."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from batvit.backbones.patch import patch, unpatch
from batvit.backbones.registry import anatomy_of
from batvit.config.config import BATConfig
from batvit.config.presets import PRESETS
from batvit.inspection.summary import info
from batvit.inspection.tracing import trace
from batvit.reduction.block import ReducedBlock
from batvit.reduction.site import config_of
from batvit.reduction.tokens import Tokens

TOLERANCE = 1e-5
Images = Tensor


def outputs(model: nn.Module, images: Images) -> list[Tensor]:
    """Every floating-point tensor that a model gives for images, whatever it wraps them in."""
    found = tree_leaves(anatomy_of(model).tower(images))
    return [leaf for leaf in found if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _run(model: nn.Module, images: Images) -> list[Tensor]:
    # models that draw random numbers in the forward pass, such as masked autoencoders, draw the same ones
    torch.manual_seed(0)
    with torch.no_grad():
        return outputs(model, images)


def _require(holds: bool, otherwise: str) -> None:
    # not an assert statement: python -O leaves those out
    if not holds:
        raise AssertionError(otherwise)


def _same(
    found: list[Tensor], expected: list[Tensor], what: str, *, tolerance: float = 0.0
) -> None:
    shapes = [tuple(x.shape) for x in found], [tuple(x.shape) for x in expected]
    _require(shapes[0] == shapes[1], f"{what}: shapes are {shapes[0]}, expected {shapes[1]}")
    for x, y in zip(found, expected, strict=True):
        difference, largest = float((x - y).abs().max()), max(1.0, float(y.abs().max()))
        _require(
            difference <= tolerance * largest,
            f"{what}: differs by {difference:.3g}, the largest value is {largest:.3g}",
        )


def _reduced(model: nn.Module) -> nn.Module:
    return patch(model, keep_rate=0.5, blocks=(1, anatomy_of(model).depth - 1), prefix_only=True)


def keeping_everything(model: nn.Module, images: Images) -> None:
    """Keep rate 1 equals the untouched model, in every preset."""
    expected = _run(model, images)
    for mode in PRESETS:
        patch(model, mode=mode, keep_rate=1.0, blocks=(1, 2))
        _require(
            isinstance(anatomy_of(model).blocks[1], ReducedBlock), "the blocks were not replaced"
        )
        _same(_run(model, images), expected, f"{mode}, keep rate 1", tolerance=TOLERANCE)


def unpatching(model: nn.Module, images: Images) -> None:
    """Unpatching restores every bit, every key, every attribute."""
    expected, keys = _run(model, images), list(model.state_dict())
    attributes = [sorted(vars(module)) for module in model.modules()]
    classes = [type(module) for module in model.modules()]
    _reduced(model)
    _require(list(model.state_dict()) == keys, "patching changed the keys of the state dict")
    found = _run(model, images)
    changed = any(
        x.shape != y.shape or not torch.equal(x, y) for x, y in zip(found, expected, strict=True)
    )
    _require(changed, "half of the tokens were merged, and nothing changed")
    _require(all(x.isfinite().all() for x in found), "not all values are finite")
    unpatch(model)
    _require(list(model.state_dict()) == keys, "unpatching changed the keys of the state dict")
    _require(
        [type(module) for module in model.modules()] == classes, "unpatching left another class"
    )
    _require(
        [sorted(vars(module)) for module in model.modules()] == attributes,
        "unpatching left attributes behind",
    )
    _require(config_of(model) is None, "unpatching left the configuration")
    _same(_run(model, images), expected, "unpatched")


def counts(model: nn.Module, images: Images) -> None:
    """The tokens are as many as the configuration says, no patch is lost, and ``info`` agrees."""
    anatomy = anatomy_of(model)
    half, quarter = anatomy.patches // 2, anatomy.patches // 4
    patch(model, tokens=(half, quarter), blocks=(1, 2))
    seen: list[int] = []
    hooks = [
        block.register_forward_hook(
            lambda module, args, out: seen.append(
                out.x.shape[1] if isinstance(out, Tokens) else out.shape[1]
            )
        )
        for block in anatomy.blocks[:-1]
    ]
    with trace(model) as found:
        _run(model, images)
    for hook in hooks:
        hook.remove()
    expected = [anatomy.patches, half, *[quarter] * (anatomy.depth - 3)]
    _require(
        [n - anatomy.prefix for n in seen] == expected,
        f"tokens after the blocks: {seen}, expected {expected} and prefix",
    )
    _require(
        [site.origin.groups for site in found.sites] == [half, quarter], f"groups: {found.sites}"
    )
    for site in found.sites:
        _require(site.origin.is_total, "a patch was lost")
        _require(site.origin.is_onto, "a group is empty")
        _require(torch.equal(site.size, site.origin.sizes.float()), "sizes do not add up")
    cost = info(model, image_size=(images.shape[-2], images.shape[-1]))
    _require(
        [cost.blocks[b].tokens_out for b in (1, 2)] == [half, quarter], f"info says {cost.blocks}"
    )
    _require(cost.macs < cost.dense_macs, f"{cost.macs} MACs, dense {cost.dense_macs}")


def copying(model: nn.Module, images: Images) -> None:
    """A deep copy and a pickled copy compute the same and are independent."""
    pickles = _pickles(model)
    _reduced(model)
    twins = [copy.deepcopy(model)]
    if pickles:
        twins.append(pickle.loads(pickle.dumps(model)))
    expected = _run(model, images)
    for what, twin in zip(("deepcopy", "pickle"), twins, strict=False):
        _same(_run(twin, images), expected, what)
        _require(config_of(twin) == config_of(model), f"{what}: the configuration is another one")
        unpatch(twin)
        _same(_run(model, images), expected, f"the original, after its {what} was unpatched")


def saving(model: nn.Module, images: Images) -> None:
    """Weights of a patched model go into an untouched one."""
    untouched = copy.deepcopy(model)
    _reduced(model)
    changed = {name: weight + 0.01 for name, weight in model.state_dict().items()}
    model.load_state_dict(changed)
    expected = _run(model, images)
    untouched.load_state_dict(changed)
    _same(_run(_reduced(untouched), images), expected, "loaded")


def gradient_checkpointing(model: nn.Module, images: Images) -> bool:
    """Recomputing the blocks gives the same gradients."""
    _reduced(model).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing and not _start_checkpointing(model):
            return False
        model.zero_grad()
        torch.manual_seed(0)
        sum((x.square().mean() for x in outputs(model, images)), torch.zeros(())).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    _require(len(gradients[0]) == len(gradients[1]), "some gradients are missing")
    _require(sum(float(g.abs().sum()) for g in gradients[0]) > 0, "there are no gradients")
    for plain, recomputed in zip(*gradients, strict=True):
        _same([recomputed], [plain], "recomputed gradient", tolerance=TOLERANCE)
    return True


def low_precision(model: nn.Module, images: Images) -> None:
    """Autocast works, and so does a model that is bfloat16 or float16 throughout."""
    _reduced(model)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            _require(
                all(x.isfinite().all() for x in _run(model, images)),
                f"not finite under autocast to {dtype}",
            )
        low = copy.deepcopy(model).to(dtype)
        found = [x.dtype for x in _run(low, images.to(dtype))]
        expected = [x.dtype for x in _run(unpatch(low), images.to(dtype))]
        _require(found == expected, f"a model of {dtype} gives {found}, untouched {expected}")


def threads(model: nn.Module, images: Images) -> None:
    """Two threads call one model at once."""
    _reduced(model)
    batches = [images[:1], torch.cat([images, images.flip(0)])]
    torch.manual_seed(0)
    with torch.no_grad():
        expected = [outputs(model, x) for x in batches]

    def work(x: Tensor) -> list[list[Tensor]]:
        with torch.no_grad():
            return [outputs(model, x) for _ in range(5)]

    with ThreadPoolExecutor(len(batches)) as pool:
        results = list(pool.map(work, batches))
    for repeated, y in zip(results, expected, strict=True):
        for found in repeated:
            _same(found, y, "a thread's result")


def patching_again(model: nn.Module, images: Images) -> None:
    """A second patch replaces the first."""
    expected = _run(patch(copy.deepcopy(model), mode="paper", keep_rate=0.4, blocks=(1, 2)), images)
    patch(model, keep_rate=0.8, blocks=(0, 1))
    patch(model, mode="paper", keep_rate=0.4, blocks=(1, 2))
    _same(_run(model, images), expected, "patched twice")
    _require(
        config_of(model) == BATConfig.preset("paper", keep_rate=0.4, blocks=(1, 2)),
        "the configuration is another one",
    )


def size_awareness(model: nn.Module, images: Images) -> None:
    """The attention hears of the sizes, at a site and after it."""
    last = anatomy_of(model).depth - 1
    for blocks in ((last - 1, last), (last - 1,)):
        aware, unaware = (
            _run(
                patch(model, keep_rate=0.5, blocks=blocks, weight="size", size_aware=size_aware),
                images,
            )
            for size_aware in (True, False)
        )
        differ = any(not torch.equal(x, y) for x, y in zip(aware, unaware, strict=True))
        _require(differ, f"with sites {blocks}, the sizes of merged tokens make no difference")


def each_image(model: nn.Module, images: Images) -> None:
    """Every image of a batch is reduced on its own."""
    _reduced(model)
    together = _run(model, images)
    for i in range(len(images)):
        alone = _run(model, images[i : i + 1])
        _same(alone, [x[i : i + 1] for x in together], f"image {i} alone", tolerance=10 * TOLERANCE)


CHECKS: dict[str, Callable[[nn.Module, Images], bool | None]] = {
    check.__name__: check
    for check in (
        keeping_everything,
        unpatching,
        counts,
        copying,
        saving,
        gradient_checkpointing,
        low_precision,
        threads,
        patching_again,
        size_awareness,
        each_image,
    )
}


def _start_checkpointing(model: nn.Module) -> bool:
    """Switch gradient checkpointing on by timm's or by transformers' method; False if the model has none."""
    for name in (
        "set_grad_checkpointing",
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
    ):
        if hasattr(model, name):
            getattr(model, name)()
            return True
    return False


def _pickles(model: nn.Module) -> bool:
    """Whether the untouched model can be pickled: some libraries hang local functions on theirs."""
    try:
        pickle.dumps(model)
    except (AttributeError, TypeError, pickle.PicklingError):
        return False
    return True
