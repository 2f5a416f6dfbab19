"""Listening to a model: what became of each patch, and how diverse the tokens stay."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import batvit
from batvit.inspection.tracing import diversity_by_block, trace
from batvit.reduction.site import reductions

TOKENS, SITES = (10, 6), (1, 3)


def vit(**settings):
    torch.manual_seed(0)
    sizes = {
        "img_size": (64, 96),
        "patch_size": 16,
        "embed_dim": 24,
        "depth": 5,
        "num_heads": 3,
        "num_classes": 5,
    }
    return VisionTransformer(**(sizes | settings)).eval()


def reduced(**settings):
    return batvit.patch(vit(), **({"tokens": TOKENS, "blocks": SITES} | settings))


def images(batch=2, seed=0):
    return torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def traced(model, x):
    with torch.no_grad(), trace(model) as found:
        model(x)
    return found


def hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


# the trace


def test_sites_are_those_of_the_configuration():
    found = traced(reduced(centres=3, pairs=2), images())
    assert [
        (site.counts.block, site.counts.tokens_in, site.counts.tokens_out) for site in found.sites
    ] == [
        (1, 24, 10),
        (3, 10, 6),
    ]
    assert (found.grid, found.image_size) == ((4, 6), (64, 96))
    for site, tokens in zip(found.sites, TOKENS, strict=True):
        assert (site.origin.tokens, site.origin.groups) == (24, tokens)
        assert torch.equal(site.size, site.origin.sizes.float())
        assert site.size.sum(dim=1).tolist() == [24, 24]


def test_where_nothing_goes_the_groups_are_those_that_they_were():
    first, second = traced(reduced(tokens=(10, 10), centres=(3), pairs=2), images()).sites
    assert second.counts == first.counts._replace(block=3, tokens_in=10)
    assert torch.equal(second.attentive, first.attentive)


def test_attentive_are_the_groups_before_the_clusters():
    site = traced(reduced(centres=3, pairs=2), images()).sites[0]
    # 9 tokens are attentive, in 7 groups
    assert site.attentive.sum(dim=1).tolist() == [9, 9]
    assert site.origin.index[site.attentive].max() == 6
    assert site.origin.index[~site.attentive].min() == 7


def test_what_is_pruned_is_not_attentive():
    found = traced(reduced(method="topk"), images())
    for site, tokens in zip(found.sites, TOKENS, strict=True):
        assert site.attentive.sum(dim=1).tolist() == [tokens, tokens]
        assert torch.equal(site.attentive, site.origin.kept)


def test_unmerge_gives_the_grid_back():
    model = reduced()
    outputs = []
    handle = model.blocks[1].register_forward_hook(
        lambda module, args, tokens: outputs.append(tokens.x[:, 1:])
    )
    site = traced(model, images()).sites[0]
    handle.remove()
    grid = site.unmerge(outputs[0])
    assert grid.shape == (2, 24, 24)
    for image in range(2):
        for patch in range(24):
            assert torch.equal(
                grid[image, patch], outputs[0][image, site.origin.index[image, patch]]
            )


def test_unmerge_gives_zeros_where_a_patch_was_pruned():
    site = traced(reduced(method="topk"), images()).sites[-1]
    grid = site.unmerge(torch.ones(2, 6, 3))
    assert torch.equal(grid.sum(dim=2) == 3, site.origin.kept)
    assert (~site.origin.kept).sum(dim=1).tolist() == [18, 18]


def test_tracing_changes_no_output_and_leaves_no_hook():
    model = reduced()
    with torch.no_grad():
        expected = model(images())
    with torch.no_grad(), trace(model):
        assert torch.equal(model(images()), expected)
        assert hooks(model) == 3
    assert hooks(model) == 0
    with pytest.raises(AssertionError, match="height"), trace(model):
        model(torch.randn(1, 3, 8, 8))
    assert hooks(model) == 0


def test_the_last_of_several_passes_is_kept():
    model = reduced()
    with torch.no_grad(), trace(model) as found:
        model(images(3))
        model(images(2, seed=1))
        model(images(1, seed=2))
    expected = traced(model, images(1, seed=2))
    assert len(found.sites) == 2
    for site, again in zip(found.sites, expected.sites, strict=True):
        assert torch.equal(site.origin.index, again.origin.index)


def test_a_trace_holds_no_graph_for_gradients():
    model = reduced()
    with trace(model) as found:
        model(images())
    assert not any(site.size.requires_grad for site in found.sites)


@pytest.mark.parametrize("inside", [True, False])
def test_a_trace_prints_the_table_and_the_groups(inside):
    model = reduced(centres=3, pairs=2)
    with torch.no_grad(), trace(model) as found:
        model(images())
        text = str(found)
        assert len(found.sites) == 2
    lines = (text if inside else str(found)).splitlines()
    assert lines[0].split() == [
        "block",
        "tokens",
        "in",
        "attentive",
        "pairs",
        "clusters",
        "tokens",
        "out",
        "M",
        "MACs",
    ]
    assert lines[2].split()[:6] == ["1", "24", "9", "2", "3", "10"]
    assert lines[6].startswith("VisionTransformer at 64 x 96: ")
    assert lines[7].startswith(
        "after block 1: Assignment(24 tokens -> 10 groups, batch 2, largest group "
    )
    assert lines[8].startswith(
        "after block 3: Assignment(24 tokens -> 6 groups, batch 2, largest group "
    )


def test_a_trace_of_a_part_of_the_patches_says_so():
    found = traced(
        batvit.patch(vit(patch_drop_rate=0.5), keep_rate=0.5, blocks=SITES).train(), images()
    )
    first, *sites = str(found).splitlines()
    assert first == "12 of 24 patches were seen"
    assert [site.partition(" ->")[0] for site in sites] == [
        f"after block {block}: Assignment(12 tokens" for block in SITES
    ]


def test_an_empty_trace_says_what_to_do():
    with trace(reduced()) as found:
        pass
    assert str(found) == "Trace(empty: run the model inside the with block)"


def test_a_trace_of_another_image_size_has_its_grid():
    model = batvit.patch(vit(dynamic_img_size=True), keep_rate=0.5, blocks=(1,))
    found = traced(model, torch.randn(1, 3, 32, 48))
    assert (found.grid, found.sites[0].origin.tokens) == ((2, 3), 6)
    assert "at 32 x 48: " in str(found)


def test_what_cannot_be_traced_is_refused():
    with pytest.raises(
        ValueError,
        match=r"not patched, so there is nothing to trace; call batvit\.patch\(model\) first",
    ):
        trace(vit()).__enter__()
    with pytest.raises(TypeError, match="cannot reduce the tokens of torch"):
        trace(nn.Linear(1, 1)).__enter__()
    with pytest.raises(TypeError, match="this is a compiled model"):
        trace(torch.compile(reduced())).__enter__()


# diversity


def residual(x, size=None):
    """r(X) = || X - 1 x^T || with every token written out as often as it counts."""
    total = 0.0
    for i, tokens in enumerate(x):
        copies = tokens if size is None else tokens.repeat_interleave(size[i].long(), dim=0)
        total += float((copies - copies.mean(dim=0)).norm())
    return total / len(x)


@pytest.mark.parametrize("patched", [False, True])
def test_diversity_is_what_hooks_and_arithmetic_give(patched):
    model = reduced() if patched else vit()
    outputs, sizes = [], {}
    for block in model.blocks:
        block.register_forward_hook(
            lambda module, args, output: outputs.append(getattr(output, "x", output)[:, 1:])
        )
    for i, site in reductions(model).items():
        site.register_forward_hook(
            lambda module, args, tokens, i=i: sizes.update({i: tokens.sizes.float()})
        )
    with torch.no_grad():
        model(images())
    seen = list(outputs)
    held = [None, sizes.get(1), sizes.get(1), sizes.get(3), sizes.get(3)]
    expected = [residual(x, size) for x, size in zip(seen, held, strict=True)]
    assert diversity_by_block(model, images()) == pytest.approx(expected, rel=1e-5)


def test_diversity_of_dropped_tokens_does_not_count():
    model = reduced(method="topk")
    outputs = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda module, args, output: outputs.append(getattr(output, "x", output)[:, 1:])
        )
    found = diversity_by_block(model, images())
    assert [x.shape[1] for x in outputs] == [24, 10, 10, 6, 6]
    assert found == pytest.approx([residual(x) for x in outputs], rel=1e-5)


def test_diversity_of_a_model_that_pools_patches_is_of_the_whole_grid():
    model = batvit.patch(vit(global_pool="avg", class_token=False), tokens=(10,), blocks=(1,))
    outputs = []
    model.blocks[-1].register_forward_hook(lambda module, args, output: outputs.append(output))
    found = diversity_by_block(model, images())
    assert outputs[0].shape[1] == 24
    assert found[-1] == pytest.approx(residual(outputs[0]), rel=1e-5)


def test_measuring_diversity_leaves_no_hook_and_builds_no_graph():
    model = reduced()
    assert len(diversity_by_block(model, images())) == 5
    assert hooks(model) == 0
    with pytest.raises(TypeError, match="cannot reduce"):
        diversity_by_block(nn.Linear(1, 1), images())


def test_images_may_be_given_by_name():
    model = vit()
    batvit.patch(model, tokens=TOKENS, blocks=SITES)
    with batvit.trace(model) as trace, torch.no_grad():
        model(x=torch.randn(1, 3, *model.patch_embed.img_size))
    assert [site.origin.groups for site in trace.sites] == list(TOKENS)


def test_a_pass_through_the_features_alone_is_traced():
    model = vit()
    batvit.patch(model, tokens=TOKENS, blocks=SITES)
    with batvit.trace(model) as trace, torch.no_grad():
        for _ in range(2):
            model.forward_features(torch.randn(1, 3, *model.patch_embed.img_size))
    assert [site.origin.groups for site in trace.sites] == list(TOKENS)
    assert trace.image_size == tuple(model.patch_embed.img_size)


def test_a_block_run_again_by_checkpointing_is_recorded_once():
    model = vit()
    batvit.patch(model, tokens=TOKENS, blocks=SITES)
    model.set_grad_checkpointing()
    with batvit.trace(model) as trace:
        model.train()(torch.randn(1, 3, *model.patch_embed.img_size)).sum().backward()
    assert trace.sites
    assert [site.origin.groups for site in trace.sites] == list(TOKENS)[: len(trace.sites)]
    assert len({site.counts.block for site in trace.sites}) == len(trace.sites)


@pytest.mark.parametrize("together", [trace, None], ids=["trace", "diversity"])
def test_passes_of_other_threads_are_not_recorded(together):
    model = reduced()
    x = images()
    other = images(batch=3, seed=1)
    expected = traced(model, x).sites[-1].origin.index if together else diversity_by_block(model, x)
    start = Barrier(2, timeout=60)

    def work():
        start.wait()
        with torch.no_grad():
            for _ in range(4):
                model(other)
        start.wait()

    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        running = pool.submit(work)
        if together is None:
            start.wait()
            for _ in range(4):
                assert diversity_by_block(model, x) == pytest.approx(expected, rel=1e-5)
            start.wait()
        else:
            with trace(model) as found:
                model(x)
                # all of the other's passes come last
                start.wait()
                start.wait()
            assert torch.equal(found.sites[-1].origin.index, expected)
        running.result()


def test_two_threads_trace_one_model_each_its_own_pass():
    model = reduced()
    batches = [images(batch=n, seed=n) for n in (1, 2, 3, 4)]
    expected = [traced(model, x).sites[-1].origin.index for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            found = list(pool.map(lambda x: traced(model, x), batches))
            for one, index in zip(found, expected, strict=True):
                assert torch.equal(one.sites[-1].origin.index, index)


def test_the_modules_of_a_model_may_be_gone_through_while_it_is_patched():
    model = vit()
    for change in (
        lambda: batvit.patch(model, tokens=TOKENS, blocks=SITES),
        lambda: batvit.unpatch(model),
    ):
        block = model.blocks[SITES[0]]
        parts = iter(block._modules.items())
        next(parts)
        change()
        # a dictionary that was changed would say so
        assert list(parts)
