"""What reduced tokens are to those who listen: a tensor, wherever that is the truth."""

import copy
import io

import numpy as np
import pytest
import torch
from families import family, pictures
from torch import nn

import batvit
from batvit.reduction.features import ReducedFeatures
from batvit.reduction.tokens import Tokens

NO_GRID = r"groups of merged patches cannot be laid out.*forward_intermediates.*grid\(\).*unpatch"


def reduced(name="deit", **settings):
    return batvit.patch(family(name, 4), keep_rate=0.5, blocks=(1,), align=1, **settings)


def heard(model, x, listen=lambda output: None, block=2):
    """What a hook on a block gets, and what the model gives."""
    outputs = []

    def hook(module, args, output):
        outputs.append(output)
        return listen(output)

    handle = model.blocks[block].register_forward_hook(hook)
    try:
        result = model(x)
    finally:
        handle.remove()
    return outputs[0], result


def by_hand(model):
    """The same by hand: what a block gives where nobody listens."""
    return model.blocks[2](model.blocks[1](torch.randn(2, 37, 48)))


BOTH = pytest.mark.parametrize("listening", [True, False])


def given(listening):
    model = reduced()
    tokens = heard(model, pictures(model))[0] if listening else by_hand(model)
    assert isinstance(tokens, ReducedFeatures if listening else Tokens)
    return tokens


@BOTH
def test_it_has_the_attributes_of_its_features(listening):
    tokens = given(listening)
    x = tokens.x
    assert type(x) is torch.Tensor
    assert tokens.shape == x.shape == tokens.size() == (2, 19, 48)
    assert tokens.size(1) == 19
    assert (tokens.dtype, tokens.device, tokens.ndim, tokens.numel(), len(tokens)) == (
        torch.float32,
        x.device,
        3,
        x.numel(),
        2,
    )
    assert tokens.requires_grad
    assert tokens.grad_fn is not None
    assert not hasattr(tokens, "tensors")


@BOTH
def test_it_computes_as_its_features(listening):
    tokens = given(listening)
    x = tokens.x
    norm = nn.LayerNorm(48)
    pairs = [
        (tokens.mean(), x.mean()),
        (tokens + 1, x + 1),
        (1 - tokens, 1 - x),
        (tokens * tokens, x * x),
        (tokens / 2, x / 2),
        (-tokens, -x),
        (tokens @ x.transpose(1, 2), x @ x.transpose(1, 2)),
        (tokens[:, 0], x[:, 0]),
        (tokens[:, 1:].mean(1), x[:, 1:].mean(1)),
        (torch.cat([tokens, tokens], dim=1), torch.cat([x, x], dim=1)),
        (torch.stack([x, tokens]), torch.stack([x, x])),
        (norm(tokens), norm(x)),
        (nn.functional.linear(tokens, torch.ones(2, 48)), x.sum(-1, keepdim=True).expand(2, 19, 2)),
        (tokens.detach().cpu().double(), x.detach().double()),
        (tokens.flatten(1), x.flatten(1)),
        (tokens.view(2, 19, 3, 16), x.view(2, 19, 3, 16)),
        (tokens.reshape(-1, 48), x.reshape(-1, 48)),
        (tokens.reshape(2, 1, 19, 48), x.reshape(2, 1, 19, 48)),
        (tokens.transpose(1, 2), x.transpose(1, 2)),
        (tokens > 0, x > 0),
        (tokens == x, torch.ones_like(x, dtype=torch.bool)),
    ]
    for found, expected in pairs:
        assert isinstance(found, torch.Tensor)
        torch.testing.assert_close(torch.Tensor.as_subclass(found, torch.Tensor), expected)
    assert np.array_equal(np.asarray(tokens.detach()), x.detach().numpy())
    assert np.array_equal(tokens.detach().numpy(), x.detach().numpy())
    assert type(tokens.mean()) is torch.Tensor
    assert torch.equal(torch.autograd.grad(tokens.sum(), tokens)[0], torch.ones_like(x))


LAID_OUT = {
    "a smaller picture": lambda tokens: tokens[:, 1:].reshape(2, 3, 6, 48),
    "one of the dense model": lambda tokens: tokens[:, 1:].reshape(2, 6, 6, 48),
    "channels torn apart": lambda tokens: tokens[:, 1:].reshape(2, 6, 6, -1),
    "channels first": lambda tokens: tokens[:, 1:].transpose(1, 2).reshape(2, 48, 6, 3),
    "with the class token": lambda tokens: tokens.view(2, 6, 6, 48),
    "unflatten": lambda tokens: tokens[:, 1:].unflatten(1, (3, 6)),
    "torch.reshape": lambda tokens: torch.reshape(tokens[:, 1:], (2, 3, 6, 48)),
    "of the first image": lambda tokens: tokens.detach().cpu()[0, 1:].view(3, 6, 48),
    "of lengths": lambda tokens: tokens.norm(dim=-1)[:, 1:].reshape(2, 3, 6),
}


@BOTH
@pytest.mark.parametrize("name", LAID_OUT)
def test_it_is_not_laid_out_as_a_picture(name, listening):
    tokens = given(listening)
    with pytest.raises(ValueError, match=NO_GRID):
        LAID_OUT[name](tokens)
    grid = tokens.grid()
    assert type(grid) is torch.Tensor
    assert grid[:, 1:].reshape(2, 6, 6, 48).shape == (2, 6, 6, 48)


@pytest.mark.parametrize("name", ["deit", "eva02", "dinov3"])
def test_who_only_listens_changes_nothing(name):
    model = reduced(name)
    x = pictures(model)
    expected = model(x)
    slopes = torch.autograd.grad(expected.sum(), list(model.parameters()), allow_unused=True)
    for block in range(4):
        output, found = heard(model, x, block=block)
        assert torch.equal(found, expected)
        assert isinstance(output, torch.Tensor)
        # what is heard is on the way to the loss
        assert torch.autograd.grad(found.sum(), output, retain_graph=True)[0].any()
        others = torch.autograd.grad(found.sum(), list(model.parameters()), allow_unused=True)
        for one, other in zip(slopes, others, strict=True):
            assert one is other is None or torch.equal(one, other)


CHANGES = {
    "a copy": lambda output: output.clone(),
    "a sum": lambda output: output + 0.5,
    "without a channel": lambda output: output * (torch.arange(48) > 0),
    "another type": lambda output: output.bfloat16().float(),
    "of torch": lambda output: torch.where(output > 0, output, 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_hook_may_change_the_features(name):
    model = reduced(size_aware=True)
    x = pictures(model)
    output, found = heard(model, x, CHANGES[name])
    changed = torch.Tensor.as_subclass(CHANGES[name](output), torch.Tensor)
    # sizes, origin and bias are still those of the tokens
    tokens = output.tokens.with_features(changed)
    expected = model.forward_head(model.norm(model.blocks[3](tokens)))
    torch.testing.assert_close(torch.Tensor.as_subclass(found, torch.Tensor), expected)


def test_a_hook_may_change_them_in_place():
    model = reduced()
    x = pictures(model)

    def halve(output):
        output *= 0.5

    def silence(output):
        output[:, 1:] = 0

    with torch.no_grad():
        for change, other in ((halve, lambda output: output * 0.5), (silence, None)):
            found = heard(model, x, change)[1]
            assert not torch.equal(found, model(x))
            if other is not None:
                assert torch.equal(found, heard(model, x, other)[1])


def test_features_of_another_shape_are_refused_by_the_next_block():
    model = reduced()
    x = pictures(model)
    with pytest.raises(
        ValueError, match=r"takes what the block before it gave, got a tensor \(2, 9, 48\)"
    ):
        heard(model, x, lambda output: torch.cat([output[:, :1], output[:, 11:]], dim=1))
    with pytest.raises(ValueError, match=r"takes the \(2, 19, 48\) features.*got \(2, 18, 48\)"):
        heard(model, x, lambda output: output[:, 1:])


@pytest.mark.parametrize("name", ["deit", "eva02", "dinov3"])
def test_a_tensor_that_lost_its_sizes_is_refused(name):
    model = reduced(name)
    for block in (1, 2):
        with pytest.raises(ValueError, match="without the sizes of its tokens"):
            heard(model, pictures(model), lambda output: output.x * 2, block)


def test_a_stack_cut_after_patching_gives_its_class_token():
    model = reduced()
    x = pictures(model)
    expected = model.forward_head(model.norm(heard(model, x)[0].x))
    model.blocks = model.blocks[:3]
    assert torch.equal(model(x), expected)


def test_a_norm_after_every_block():
    model = reduced()
    x = model._pos_embed(model.patch_embed(pictures(model)))
    shapes = [model.norm(x := block(x)).shape[1] for block in model.blocks]
    assert shapes == [37, 19, 19, 19]


def test_what_was_heard_is_saved_and_copied_as_a_tensor():
    model = reduced()
    kept = heard(model, pictures(model))[0].detach()
    file = io.BytesIO()
    torch.save(kept, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded) is torch.Tensor
    assert torch.equal(loaded, kept)
    assert torch.equal(copy.deepcopy(kept), kept)
    assert copy.copy(by_hand(model)).shape == (2, 19, 48)


def test_a_cast_of_everything_leaves_the_sizes():
    model = reduced()
    tokens = heard(model, pictures(model))[0]
    spread = torch.utils._pytree.tree_map(
        lambda leaf: (
            leaf.bfloat16() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
        ),
        Tokens(tokens.x, torch.tensor([[257, *[1] * 18]] * 2), tokens.origin),
    )
    assert spread.x.dtype == torch.bfloat16
    assert spread.sizes[0, 0] == 257
