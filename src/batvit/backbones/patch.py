"""The two verbs: patch and unpatch, for every library that has an adapter."""

from typing import Any, NoReturn, TypeVar

from torch import nn

from batvit.backbones.adapter import Adapter, Anatomy, last_output_form
from batvit.backbones.during_training import DuringTraining
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.config import BATConfig
from batvit.config.presets import DEFAULT_MODE
from batvit.module_copy import light_copy
from batvit.plans import PLANS
from batvit.plans.plan import Counts
from batvit.reduction.block import ReducedBlock, become_dense, become_reduced
from batvit.reduction.schedule import check_method, schedule
from batvit.reduction.self_check import prove
from batvit.reduction.site import Reduce, reductions
from batvit.reduction.wrapped import is_made_from, is_reducible, refuse_split_attention

Model = TypeVar("Model", bound=nn.Module)


def patch(
    model: Model, config: BATConfig | None = None, *, mode: str | None = None, **fields: Any
) -> Model:
    """Make a Vision Transformer run with fewer tokens, in place.

    Weights, state-dict keys and modules stay as they are; a second patch replaces the first. No
    other thread may run the model meanwhile: the pass that it is in would be reduced in part. To
    change a model that serves, patch a copy and swap the two.

    Args:
        model: a model of :func:`batvit.supported`. Patch it before ``torch.compile``, DDP and the
            like (LoRA, FSDP2 and checkpointed blocks may come first), and after its head is what
            you want (``reset_classifier``): how it pools decides what the last block gives.
        config: the whole configuration. Or leave it out and give:
        mode: a preset, ``training-free`` (default), ``gradual`` or ``paper``; and any
        fields: of :class:`BATConfig`, such as ``keep_rate=0.7`` or ``blocks=(3, 6, 9)``, counted
            from 0.

    Returns:
        The same model.

    Raises:
        TypeError: if the model is not supported, naming what was found and what is.
        ValueError: if the configuration does not fit the model. In both cases the model is
            untouched.

    Examples:
        >>> model = timm.create_model("deit_small_patch16_224").eval()
        >>> model = batvit.patch(model, keep_rate=0.7)
        >>> model(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 1000])
        >>> batvit.info(model).blocks[-1].tokens_out
        63
    """
    config = _chosen_config(config, mode, fields)
    check_method(config.method)
    adapter = adapter_of(model)
    _refuse_compiled(model)
    anatomy = adapter.anatomy(model)
    classes = [_reduced_class(adapter, anatomy, i) for i in range(anatomy.depth)]
    _check_steps(anatomy, config)
    adapter.check(model, config)
    _refuse_split(model, anatomy, classes, config)
    _prove_blocks(anatomy, classes, config)
    # nothing was refused: from here on the model changes
    unpatch(model)
    _reduce_blocks(anatomy, classes, config)
    adapter.patched(model, config)
    return model


def reduced_copy(model: Model, config: BATConfig) -> Model:
    """Return a patched copy that shares the weights; the model itself is left alone."""
    return patch(light_copy(model), config)


def unpatch(model: Model) -> Model:
    """Undo :func:`patch`, bit for bit. A model that is not patched is left alone.

    As for :func:`patch`, no other thread may run the model meanwhile.

    Raises:
        TypeError: if the model is not supported.

    Examples:
        >>> model = batvit.patch(timm.create_model("vit_tiny_patch16_224"), keep_rate=0.5)
        >>> batvit.config_of(batvit.unpatch(model)) is None
        True
    """
    adapter = adapter_of(model)
    for block in adapter.anatomy(model).blocks:
        if isinstance(block, ReducedBlock):
            become_dense(block)
    adapter.unpatched(model)
    return model


def during_training(config: BATConfig) -> DuringTraining:
    """Return a reduction as a training loop takes it, for a model that is not patched yet.

    ``fit(…, reduce=during_training(config))``.
    """
    return DuringTraining(config, patch, unpatch)


def schedule_of(model: nn.Module, image_size: tuple[int, int] | None = None) -> tuple[Counts, ...]:
    """Return the counts at each site of a patched model that is run; none if it is not patched.

    Args:
        model: a supported model.
        image_size: (height, width) in pixels; the model's own by default.
    """
    anatomy = anatomy_of(model, image_size)
    scheduled = []
    for i, site in reductions(model).items():
        block: Any = anatomy.blocks[i]
        # where prefix tokens alone go on, a site is not run
        if block.output_form != "prefix":
            scheduled.append(site.counts(anatomy.patches))
    return tuple(scheduled)


def _chosen_config(config: BATConfig | None, mode: str | None, fields: dict[str, Any]) -> BATConfig:
    """Return the configuration that the arguments of :func:`patch` stand for."""
    if config is None:
        return BATConfig.preset(mode or DEFAULT_MODE, **fields)
    if not isinstance(config, BATConfig):
        raise TypeError(
            f"config must be a BATConfig, got {type(config).__name__}; "
            "use BATConfig.from_dict or .load"
        )
    if mode is not None:
        raise ValueError(f"give config or mode, not both; got mode={mode!r}")
    return config.with_fields(**fields)


def _refuse_compiled(model: nn.Module) -> None:
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise TypeError(
            "this model is compiled in place; call batvit.patch first, then its compile()"
        )
    if any("_orig_mod" in part._modules for part in model.modules()):
        raise TypeError(
            "a part of this model is compiled; call batvit.patch first, then torch.compile the part"
        )


def _refuse_split(
    model: nn.Module, anatomy: Anatomy, classes: list[type[ReducedBlock]], config: BATConfig
) -> None:
    # what FSDP2 has split is seen when it runs
    if any(hasattr(part, "reshard") for part in model.modules()):
        return
    for i in config.sites(anatomy.depth):
        refuse_split_attention(getattr(anatomy.blocks[i], classes[i].parts.attention))


def _reduced_class(adapter: Adapter, anatomy: Anatomy, i: int) -> type[ReducedBlock]:
    """Return the reduced class for one block, if the adapter was written for this block."""
    block = anatomy.blocks[i]
    if isinstance(block, ReducedBlock):
        reduced = block.reduced_class()
    else:
        fitting = [known for known in adapter.reduced_classes() if is_reducible(type(block), known)]
        if not fitting:
            known = tuple(reduced.own_class() for reduced in adapter.reduced_classes())
            _refuse_part(anatomy, i, "block", block, known)
        reduced = fitting[0]
    attention = getattr(block, reduced.parts.attention)
    if "forward" in vars(block) or "forward" in vars(attention):
        raise TypeError(
            f"another library has put a forward of its own on block {i} of this "
            f"{type(anatomy.tower).__name__}, as accelerate does where it dispatches a model; "
            "call batvit.patch first, then dispatch or wrap the model"
        )
    kind = type(reduced.own_attention(attention))
    if not any(is_made_from(kind, known) for known in reduced.attentions):
        _refuse_part(anatomy, i, "attention", attention, reduced.attentions)
    return reduced


def _refuse_part(
    anatomy: Anatomy, i: int, part: str, module: object, known: tuple[type, ...]
) -> NoReturn:
    raise TypeError(
        f"cannot reduce the tokens of this {type(anatomy.tower).__name__}: the {part} of block {i} "
        f"is {_full_name(type(module))}, and batvit knows {', '.join(map(_full_name, known))} "
        "(batvit.supported() lists the families)"
    )


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _check_steps(anatomy: Anatomy, config: BATConfig) -> None:
    """Refuse counts that do not fit, and steps that are too large for the plan."""
    most = PLANS[config.method].max_reduction
    for counts in schedule(
        config, depth=anatomy.depth, patches=anatomy.patches, prefix=anatomy.prefix
    ):
        if counts.tokens_in - counts.tokens_out > most * counts.tokens_in:
            raise ValueError(
                f"block {counts.block}: {config.method} cannot leave {counts.tokens_out} of "
                f"{counts.tokens_in} tokens in one step, at least {1 - most:.0%} must stay; "
                "raise keep_rate, or reduce in more blocks"
            )


def _prove_blocks(anatomy: Anatomy, classes: list[type[ReducedBlock]], config: BATConfig) -> None:
    """Prove of every block that is opened that it still computes what it did."""
    opened = set(config.sites(anatomy.depth))
    if config.prefix_only:
        opened.add(anatomy.depth - 1)
    for i in sorted(opened):
        prove(anatomy.blocks[i], classes[i], i, anatomy.width)


def _reduce_blocks(anatomy: Anatomy, classes: list[type[ReducedBlock]], config: BATConfig) -> None:
    """Turn the blocks from the first site on into reduced blocks."""
    depth = anatomy.depth
    sites = config.sites(depth)
    for i in range(sites[0], depth):
        reduce = None
        if i in sites:
            reduce = Reduce(
                config, i, depth=depth, prefix=anatomy.prefix, class_token=anatomy.class_token
            )
            # by this a training loop finds it
            reduce.during_training = during_training(config)
        output_form = "tokens"
        if i == depth - 1:
            output_form = last_output_form(anatomy, config)
        become_reduced(
            anatomy.blocks[i],
            classes[i],
            prefix=anatomy.prefix,
            suffix=anatomy.suffix,
            output_form=output_form,
            reduce=reduce,
            first=i == sites[0],
        )
