"""Checkpointing by an autograd function, whoever wrote it: right gradients, or a refusal."""

from functools import partial

import pytest
import torch
from families import family, pictures
from torch import nn
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as wrapping
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import batvit
from batvit.backbones.registry import anatomy_of

# torch warns of such inputs, and 2.10 of this way to make checkpoints; nobody reads it
pytestmark = [
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
    pytest.mark.filterwarnings("ignore:Please specify CheckpointImpl.NO_REENTRANT"),
]

LOST = r"loses their gradients; use use_reentrant=False"
FAMILIES = ["deit", "eva02", "hf_vit", "torchvision", "open_clip_tower"]


class OwnCheckpoint(torch.autograd.Function):
    """As DeepSpeed, fairscale and Megatron write it: a function of their own, and no torch name."""

    @staticmethod
    def forward(context, function, *args):
        context.function = function
        context.args = args
        return function(*args)

    @staticmethod
    def backward(context, *slopes):
        args = [arg.detach().requires_grad_(arg.requires_grad) for arg in context.args]
        with torch.enable_grad():
            torch.autograd.backward(context.function(*args), *slopes)
        return None, *[arg.grad for arg in args]


def reduced(name, **settings):
    return batvit.patch(family(name, 4).train(), keep_rate=0.5, blocks=(1, 2), **settings)


def wrap_blocks(model):
    blocks = set(anatomy_of(model).blocks)
    wrap = partial(wrapping.checkpoint_wrapper, checkpoint_impl=wrapping.CheckpointImpl.REENTRANT)
    wrapping.apply_activation_checkpointing(
        model, checkpoint_wrapper_fn=wrap, check_fn=lambda part: part in blocks
    )


@pytest.mark.parametrize("name", ["deit", "eva02", "torchvision", "open_clip_tower"])
def test_blocks_wrapped_by_torch_are_refused(name):
    model = reduced(name)
    x = pictures(model)
    wrap_blocks(model)
    with pytest.raises(ValueError, match=LOST):
        model(x)


def test_the_switches_of_the_libraries_are_refused(monkeypatch):
    monkeypatch.setattr("timm.layers.config._USE_REENTRANT_CKPT", True)
    model = reduced("deit")
    model.set_grad_checkpointing()
    with pytest.raises(ValueError, match=LOST):
        model(pictures(model))
    model = reduced("hf_vit")
    # 5.23 has a new name for it
    new = getattr(model, "activation_checkpointing_enable", None)
    (new or model.gradient_checkpointing_enable)({"use_reentrant": True})
    with pytest.raises(ValueError, match=LOST):
        model(pictures(model).requires_grad_())


@pytest.mark.parametrize("apply", [partial(checkpoint, use_reentrant=True), OwnCheckpoint.apply])
def test_a_block_alone_does_not_hand_out_what_has_no_gradient(apply):
    model = reduced("deit")
    x = torch.randn(2, 37, 48, requires_grad=True)
    for use in (torch.mean, lambda tokens: tokens.mean(), lambda tokens: tokens.grid()):
        tokens = apply(model.blocks[1], x)
        with pytest.raises(ValueError, match=LOST):
            use(tokens)
    # tokens that came from without
    with pytest.raises(ValueError, match=LOST):
        apply(model.blocks[2], model.blocks[1](x))


@pytest.mark.parametrize("name", ["deit", "open_clip_tower"])
def test_segments_that_cut_the_reduced_blocks_are_refused(name):
    model = reduced(name)
    blocks = nn.Sequential(*anatomy_of(model).blocks)
    x = torch.randn(2, 37, 48, requires_grad=True)
    with pytest.raises(ValueError, match=LOST):
        checkpoint_sequential(blocks, 2, x, use_reentrant=True)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("apply", [partial(checkpoint, use_reentrant=True), OwnCheckpoint.apply])
def test_around_all_reduced_blocks_gradients_are_right(apply):
    model = reduced("deit")
    x = torch.randn(2, 37, 48, requires_grad=True)
    expected = gradients(model.blocks, model.blocks(x).square().mean())
    found = gradients(model.blocks, apply(model.blocks, x).square().mean())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_gradients_a_model_runs_whatever_its_input_asks_for(name):
    model = reduced(name).eval()
    x = pictures(model).requires_grad_()
    blocks = anatomy_of(model).blocks
    with torch.no_grad():
        assert anatomy_of(model).tower(x) is not None
    if name == "deit":
        inner = torch.randn(2, 37, 48, requires_grad=True)
        tokens = blocks[1](inner)
        with torch.no_grad():
            assert torch.equal(blocks[2](tokens).x, blocks[2](blocks[1](inner)).x)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_checkpointing_has_the_gradients_of_none(name):
    model = reduced(name)
    tower = anatomy_of(model).tower
    x = pictures(model)

    def loss():
        found = tower(x)
        return (found if isinstance(found, torch.Tensor) else found[0]).square().mean()

    expected = gradients(tower, loss())
    blocks = set(anatomy_of(model).blocks)
    wrapping.apply_activation_checkpointing(tower, check_fn=lambda part: part in blocks)
    found = gradients(tower, loss())
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
