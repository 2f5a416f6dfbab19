"""torchvision and open_clip: blocks around nn.MultiheadAttention."""

import copy
import pickle

import pytest
import torch
from accelerate import cpu_offload
from families import pictures
from multihead_models import MODELS, clip, open_clip_vit, run, small, torchvision_vit
from torch import nn
from torch.nn.utils import parametrize, prune

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.core import unmerge
from batvit.measure.macs import count_macs
from batvit.reduction.block import ReducedBlock

every_model = pytest.mark.parametrize("name", MODELS)
every_mode = pytest.mark.parametrize("mode", ["paper", "training-free"])


@every_model
@every_mode
def test_keeping_everything_equals_the_untouched_model(name, mode):
    model = small(name)
    x = pictures(model)
    expected = run(model, x)
    batvit.patch(model, mode=mode, keep_rate=1.0)
    assert any(isinstance(block, ReducedBlock) for block in anatomy_of(model).blocks)
    assert expected.std() > 1e-3
    assert (run(model, x) - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max())


@every_model
@every_mode
def test_unpatch_restores_bit_for_bit(name, mode):
    model = small(name)
    x = pictures(model)
    expected, keys = run(model, x), list(model.state_dict())
    attributes = [(type(module), sorted(vars(module))) for module in model.modules()]
    batvit.patch(model, mode=mode, keep_rate=0.5)
    assert list(model.state_dict()) == keys
    assert not torch.equal(run(model, x), expected)
    batvit.unpatch(model)
    assert list(model.state_dict()) == keys
    assert [(type(module), sorted(vars(module))) for module in model.modules()] == attributes
    assert torch.equal(run(model, x), expected)
    assert batvit.config_of(model) is None


@every_model
def test_counts_are_those_of_the_configuration(name):
    model = batvit.patch(small(name), tokens=(20, 11, 5), blocks=(0, 1, 3))
    blocks, patches, seen = anatomy_of(model).blocks, anatomy_of(model).patches, []
    for block in blocks[:-1]:
        block.register_forward_hook(lambda m, a, out: seen.append(out.x.shape[1] - 1))
    with batvit.trace(model) as trace:
        assert run(model, pictures(model)).isfinite().all()
    assert seen == [20, 11, 11]
    assert [site.origin.groups for site in trace.sites] == [20, 11, 5]
    assert all(site.origin.is_total and site.origin.is_onto for site in trace.sites)
    assert all(torch.equal(site.size, site.origin.sizes.float()) for site in trace.sites)
    assert trace.grid[0] * trace.grid[1] == patches


@every_model
def test_info_agrees_with_what_runs(name):
    model = batvit.patch(small(name), keep_rate=0.5)
    with batvit.trace(model) as trace:
        run(model, pictures(model))
    found = batvit.info(model)
    assert [found.blocks[s.counts.block].tokens_out for s in trace.sites] == [
        s.origin.groups for s in trace.sites
    ]
    assert found.model == "VisionTransformer"
    assert found.macs < found.dense_macs
    assert found.dense_macs == batvit.info(batvit.unpatch(model)).macs


@every_model
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_compute_the_same_and_are_independent(name, copied):
    model = batvit.patch(small(name), keep_rate=0.6)
    x = pictures(model)
    expected = run(model, x)
    twin = copied(model)
    assert torch.equal(run(twin, x), expected)
    assert batvit.config_of(twin) == batvit.config_of(model)
    batvit.unpatch(twin)
    assert torch.equal(run(model, x), expected)


@every_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision(name, dtype):
    model = batvit.patch(small(name), keep_rate=0.6)
    x = pictures(model)
    with torch.autocast("cpu", dtype=dtype):
        assert run(model, x).isfinite().all()
    assert run(model.to(dtype), x.to(dtype)).dtype == dtype


@every_model
def test_a_training_step_reaches_every_block(name):
    model = batvit.patch(small(name), keep_rate=0.6).train()
    out = model(pictures(model))
    (out[0] if isinstance(out, tuple) else out).square().mean().backward()
    for block in anatomy_of(model).blocks:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def by_hand(block, x, size):
    """A block's attention half from its weights alone.

    The result with its residual, and the attention (B, H, N, N).
    """
    attention = getattr(block, block.parts.attention)
    heads, width = attention.num_heads, attention.embed_dim // attention.num_heads
    normed = block.ln_1(x)
    q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in (q, k, v))
    logs = torch.cat([torch.zeros(len(x), 1), size.log()], dim=1)[:, None, None]
    weights = (q @ k.transpose(-2, -1) / width**0.5 + logs).softmax(dim=-1)
    attended = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return x + (block.ls_1(attended) if hasattr(block, "ls_1") else attended), weights


@pytest.mark.parametrize("name", ["torchvision", "torchvision_fast", "open_clip", "open_clip_fast"])
@torch.no_grad()
def test_sizes_count_in_the_attention_and_in_the_importance(name):
    model = batvit.patch(small(name), tokens=(12, 6), blocks=(0, 2), size_aware=True)
    blocks, seen = anatomy_of(model).blocks, {}
    for i in (1, 2, 3):
        blocks[i].register_forward_hook(lambda m, args, out, i=i: seen.update({i: (args[0], out)}))
    blocks[2].reduce.register_forward_pre_hook(lambda m, args: seen.update(site=args))
    aware = run(model, pictures(model))

    def after(block, x):
        y = block.mlp(block.ln_2(x))
        return x + (block.ls_2(y) if hasattr(block, "ls_2") else y)

    tokens, out = seen[1]
    assert tokens.sizes.max() > 1
    half, _ = by_hand(blocks[1], tokens.x, tokens.sizes)
    torch.testing.assert_close(out.x, after(blocks[1], half), rtol=1e-4, atol=1e-4)
    tokens, captured, _ = seen["site"]
    half, weights = by_hand(blocks[2], seen[2][0].x, tokens.sizes)
    torch.testing.assert_close(tokens.x, half, rtol=1e-4, atol=1e-4)
    importance = blocks[2].reduce.importance(tokens, captured())
    torch.testing.assert_close(importance, weights[:, :, 0, 1:].mean(dim=1), rtol=1e-4, atol=1e-6)
    tokens, out = seen[3]
    half, _ = by_hand(blocks[3], tokens.x, tokens.sizes)
    expected = after(blocks[3], half)
    if blocks[3].output_form == "grid":
        expected = torch.cat([expected[:, :1], unmerge(expected[:, 1:], tokens.origin)], dim=1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)

    batvit.patch(model, tokens=(12, 6), blocks=(0, 2), size_aware=False)
    assert not torch.allclose(run(model, pictures(model)), aware, rtol=1e-3, atol=1e-3)


@every_model
@torch.no_grad()
def test_importance_is_the_attention_the_module_itself_reports(name):
    model = batvit.patch(small(name), keep_rate=0.5, blocks=(1,))
    block, seen = anatomy_of(model).blocks[1], {}
    attention = getattr(block, block.parts.attention)
    attention.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    block.reduce.register_forward_pre_hook(lambda m, args: seen.update(site=args))
    run(model, pictures(model))
    x = seen["x"]
    _, weights = type(attention).forward(
        attention, x, x, x, need_weights=True, average_attn_weights=False
    )
    tokens, captured, _ = seen["site"]
    importance = block.reduce.importance(tokens, captured())
    torch.testing.assert_close(importance, weights[:, :, 0, 1:].mean(dim=1), rtol=1e-4, atol=1e-6)


@every_model
def test_what_is_projected_once_more_is_a_part_of_the_reduction(name):
    model = batvit.patch(small(name), tokens=(12,), blocks=(1,))
    anatomy = anatomy_of(model)
    tokens, width = anatomy.prefix + anatomy.patches, anatomy.width
    macs = count_macs(anatomy.tower, (3, *anatomy.image_size))
    # the keys of all tokens and the query of the class token; the clustering comes on top
    assert macs[f"{anatomy.name_of(1)}.reduce"] > (tokens + 1) * width * width


@every_model
@torch.no_grad()
def test_nothing_is_projected_once_more_where_nothing_is_reduced(monkeypatch, name):
    model = batvit.patch(small(name), keep_rate=1.0, blocks=(1,))
    monkeypatch.setattr(
        "batvit.backbones.torch_multihead.project_again", lambda *a, **k: pytest.fail("projected")
    )
    run(model, pictures(model))


@every_model
def test_the_attention_modules_own_hooks_fire(name):
    model = batvit.patch(small(name), keep_rate=0.5)
    fired = []
    for block in anatomy_of(model).blocks:
        attention = next(m for m in block.modules() if isinstance(m, nn.MultiheadAttention))
        attention.register_forward_hook(lambda m, a, out: fired.append(m))
    run(model, pictures(model))
    assert len(fired) == 4


def test_another_image_size_is_refused():
    for model in (torchvision_vit(), open_clip_vit(), clip()):
        with pytest.raises(ValueError, match="images of 48 x 48, got 64 x 48"):
            batvit.info(model, image_size=(64, 48))


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return 2 * weight


def parametrized(attention):
    parametrize.register_parametrization(attention, "in_proj_weight", Doubled())


def weight_normed(attention):
    nn.utils.parametrizations.weight_norm(attention, "in_proj_weight")
    attention.parametrizations.in_proj_weight.original0.data.mul_(2)


def pruned(attention):
    prune.l1_unstructured(attention, "in_proj_weight", 0.3)


def given_something_else(attention):
    attention.register_forward_pre_hook(lambda module, args: tuple(x.flip(1) for x in args))


def with_a_forward_of_its_own(attention):
    own = attention.forward
    attention.forward = lambda x, *args, **arguments: own(x, *args, **arguments)


def lent_weights(attention):
    """Its weights are there during its own call alone, as accelerate offloads them."""
    cpu_offload(
        attention,
        execution_device=torch.device("cpu"),
        preload_module_classes=["MultiheadAttention"],
    )


CHANGES = [parametrized, weight_normed, pruned, given_something_else, with_a_forward_of_its_own]
# patch itself refuses what was replaced before
AFTER = [with_a_forward_of_its_own]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", ["torchvision", "torchvision_fast", "open_clip_fast"])
@torch.no_grad()
def test_what_the_attention_computes_is_what_is_heard(name, order, change):
    model = small(name)
    block, seen = anatomy_of(model).blocks[1], {}
    attention = multihead(block)
    if order == "before" and change not in AFTER:
        change(attention)
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    if order == "after" or change in AFTER:
        change(attention)
    attention.register_forward_pre_hook(lambda m, args: seen.update(x=args[0]))
    block.reduce.register_forward_pre_hook(lambda m, args: seen.update(site=args))
    run(model, pictures(model))
    x = seen["x"]
    _, weights = nn.MultiheadAttention.forward(
        attention, x, x, x, need_weights=True, average_attn_weights=False
    )
    tokens, captured, _ = seen["site"]
    importance = block.reduce.importance(tokens, captured())
    torch.testing.assert_close(importance, weights[:, :, 0, 1:].mean(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["torchvision", "torchvision_fast", "open_clip_fast"])
@torch.no_grad()
def test_weights_that_are_lent_for_a_call_are_heard(name):
    model = batvit.patch(small(name), keep_rate=0.5, blocks=(1,))
    x = pictures(model)
    expected = run(model, x)
    attention = multihead(anatomy_of(model).blocks[1])
    lent_weights(attention)
    assert attention.in_proj_weight.is_meta
    torch.testing.assert_close(run(model, x), expected)


def multihead(block):
    return next(m for m in block.modules() if isinstance(m, nn.MultiheadAttention))


def test_an_attention_that_does_not_run_is_refused():
    model = batvit.patch(small("torchvision"), keep_rate=0.5, blocks=(1,))
    attention = anatomy_of(model).blocks[1].self_attention
    anatomy_of(model).blocks[1].self_attention = Replaced(attention)
    with pytest.raises(TypeError, match=r"did not call its torch.nn.MultiheadAttention"):
        run(model, pictures(model))


class Replaced(nn.Module):
    """A wrapper that computes something else."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, query, key, value, **arguments):
        return query, None
