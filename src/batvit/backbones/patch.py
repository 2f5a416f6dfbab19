"""The two verbs: patch and unpatch, for every library that has an adapter."""

from typing import Any, NoReturn, TypeVar

from torch import nn

from batvit.backbones.adapter import Adapter, Anatomy, last_output_form
from batvit.backbones.during_training import DuringTraining
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.config.config import BATConfig
from batvit.config.presets import DEFAULT_MODE
from batvit.module_copy import light_copy
from batvit.plans import PLANS
from batvit.plans.plan import Counts
from batvit.reduction.block import ReducedBlock, become_dense, become_reduced
from batvit.reduction.schedule import schedule
from batvit.reduction.self_check import prove
from batvit.reduction.site import Reduce, reductions

Model = TypeVar("Model", bound=nn.Module)


def patch(
    model: Model, config: BATConfig | None = None, *, mode: str | None = None, **fields: Any
) -> Model:
    """Make a Vision Transformer run with fewer tokens, in place.

    Weights, state-dict keys and modules stay as they are; a second patch replaces the first.

    Args:
        model: a model of :func:`supported`; patch it before ``torch.compile`` or a parallel wrapper, and after its head
            is what you want (``reset_classifier``): how it pools decides what the last block gives.
        config: the whole configuration. Or leave it out and give:
        mode: a preset, ``training-free`` (default), ``gradual`` or ``paper``; and any
        fields: of :class:`BATConfig`, such as ``keep_rate=0.7`` or ``blocks=(3, 6, 9)``, counted from 0.

    Returns:
        The same model.

    Raises:
        TypeError: if the model is not supported, naming what was found and what is.
        ValueError: if the configuration does not fit the model. In both cases the model is untouched.
    """
    if config is None:
        config = BATConfig.preset(mode or DEFAULT_MODE, **fields)
    elif not isinstance(config, BATConfig):
        raise TypeError(
            f"config must be a BATConfig, got {type(config).__name__}; use BATConfig.from_dict or .load"
        )
    elif mode is not None:
        raise ValueError(f"give config or mode, not both; got mode={mode!r}")
    else:
        config = config.with_fields(**fields)
    adapter = adapter_of(model)
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise TypeError(
            "this model is compiled in place; call batvit.patch first, then its compile()"
        )
    anatomy = adapter.anatomy(model)
    classes = [_reduced_class(adapter, anatomy, i) for i in range(anatomy.depth)]
    for counts in schedule(
        config, depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix
    ):
        if (
            counts.tokens_in - counts.tokens_out
            > PLANS[config.method].max_reduction * counts.tokens_in
        ):
            raise ValueError(
                f"block {counts.block}: {config.method} cannot leave {counts.tokens_out} of {counts.tokens_in} tokens in one "
                f"step, at least {1 - PLANS[config.method].max_reduction:.0%} must stay; raise keep_rate, or reduce in more blocks"
            )
    adapter.check(model, config)
    for i in sorted(
        {*config.sites(anatomy.depth), *range(anatomy.depth - config.prefix_only, anatomy.depth)}
    ):
        prove(anatomy.blocks[i], classes[i], i, anatomy.width)
    unpatch(model)
    _reduce(anatomy, classes, config)
    adapter.patched(model, config)
    return model


def reduced_copy(model: Model, config: BATConfig) -> Model:
    """A patched copy that shares the weights; the model itself is left alone."""
    return patch(light_copy(model), config)


def unpatch(model: Model) -> Model:
    """Undo :func:`patch`, bit for bit. A model that is not patched is left alone."""
    adapter = adapter_of(model)
    for block in adapter.anatomy(model).blocks:
        if isinstance(block, ReducedBlock):
            become_dense(block)
    adapter.unpatched(model)
    return model


def during_training(config: BATConfig) -> DuringTraining:
    """Return a reduction as a training loop takes it, ``fit(…, reduce=…)``, for a model that is not patched yet."""
    return DuringTraining(config, patch, unpatch)


def schedule_of(model: nn.Module, image_size: tuple[int, int] | None = None) -> tuple[Counts, ...]:
    """Return the counts at each site of a patched model that is run; none if it is not patched.

    Args:
        model: a supported model.
        image_size: (height, width) in pixels; the model's own by default.
    """
    anatomy = anatomy_of(model, image_size)
    sites = reductions(model)
    return tuple(
        sites[i].counts(anatomy.patches) for i in sites if anatomy.blocks[i].output_form != "prefix"
    )


def _reduced_class(adapter: Adapter, anatomy: Anatomy, i: int) -> type[ReducedBlock]:
    """The reduced class for one block, if it is one of those the adapter was written for."""
    block = anatomy.blocks[i]
    known = {reduced.__bases__[-1]: reduced for reduced in adapter.blocks}
    reduced = known.get(type(block)) or (type(block) if isinstance(block, ReducedBlock) else None)
    if reduced is None:
        _refuse(anatomy, i, "block", block, tuple(known))
    attention = getattr(block, reduced.parts.attention)
    if "forward" in vars(block) or "forward" in vars(attention):
        raise TypeError(
            f"another library has put a forward of its own on block {i} of this {type(anatomy.tower).__name__}, as accelerate "
            "does where it dispatches a model; call batvit.patch first, then dispatch or wrap the model"
        )
    if type(attention) not in reduced.attentions:
        _refuse(anatomy, i, "attention", attention, reduced.attentions)
    return reduced


def _refuse(
    anatomy: Anatomy, i: int, part: str, found: object, known: tuple[type, ...]
) -> NoReturn:
    raise TypeError(
        f"cannot reduce the tokens of this {type(anatomy.tower).__name__}: the {part} of block {i} is "
        f"{type(found).__module__}.{type(found).__qualname__}, and batvit knows "
        f"{', '.join(f'{kind.__module__}.{kind.__qualname__}' for kind in known)} (batvit.supported() lists the families)"
    )


def _reduce(anatomy: Anatomy, classes: list[type[ReducedBlock]], config: BATConfig) -> None:
    """Turn the blocks from the first site on into reduced blocks."""
    depth, sites, last = (
        anatomy.depth,
        config.sites(anatomy.depth),
        last_output_form(anatomy, config),
    )
    for i in range(sites[0], depth):
        reduce = None
        if i in sites:
            reduce = Reduce(
                config, i, depth=depth, prefix=anatomy.prefix, class_token=anatomy.class_token
            )
            # by this a training loop finds it
            reduce.during_training = during_training(config)
        become_reduced(
            anatomy.blocks[i],
            classes[i],
            prefix=anatomy.prefix,
            output_form=last if i == depth - 1 else "tokens",
            reduce=reduce,
        )
