"""Feature maps of a reduced model: of the full grid, wherever a dense model gives them."""

import copy
import itertools
import threading

import pytest
import torch
from families import family, pictures
from timm.models._features import FeatureGetterNet
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves

import batvit
from batvit.backbones.registry import anatomy_of

TIMM = ["vit", "siglip", "deit_distilled", "dinov2_registers", "eva02"]
TOWERS = [*TIMM, "open_clip_tower"]
TRANSFORMERS = ["hf_vit", "hf_dinov2", "hf_dinov3", "hf_clip_vision"]
DEPTH, SITES = 5, (1, 3)


def reduced(name):
    return batvit.patch(family(name, DEPTH), keep_rate=0.5, blocks=SITES)


def both(name, keep_rate=0.5):
    """A model, a reduced one of the same weights, and pictures."""
    dense = family(name, DEPTH)
    return (
        dense,
        batvit.patch(copy.deepcopy(dense), keep_rate=keep_rate, blocks=SITES),
        pictures(dense),
    )


def layers(model, x):
    """What each block leaves, as (B, prefix + N, C)."""
    if hasattr(model, "config"):
        return model(x, output_hidden_states=True).hidden_states[1:]
    if hasattr(model, "transformer"):
        found = model.forward_intermediates(
            x, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
        )
        pairs = zip(found["image_intermediates_prefix"], found["image_intermediates"], strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]
    found = model.forward_intermediates(
        x, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    return [y if isinstance(y, torch.Tensor) else torch.cat(y[::-1], dim=1) for y in found]


def shapes(result):
    leaves, structure = tree_flatten(result)
    return [leaf.shape for leaf in leaves], structure


def options(**choices):
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_every_option_of_timm_gives_the_dense_shapes(name):
    dense, model, x = both(name)
    prefix = [False, True] if dense.num_prefix_tokens else [False]
    flags = {"norm": [False, True], "return_prefix_tokens": prefix, "stop_early": [False, True]}
    for settings in options(
        output_fmt=["NCHW", "NLC"],
        intermediates_only=[False, True],
        indices=[None, [0, 3], 1],
        **flags,
    ):
        found, expected = (shapes(m.forward_intermediates(x, **settings)) for m in (model, dense))
        assert found == expected, settings


@pytest.mark.parametrize("name", [name for name in TIMM if name != "eva02"])
@torch.no_grad()
def test_the_older_way_of_timm_gives_the_dense_shapes(name):
    dense, model, x = both(name)
    for settings in options(
        n=[1, 3, [0, 2, 4]],
        reshape=[False, True],
        return_prefix_tokens=[False, True],
        norm=[False, True],
    ):
        found, expected = (shapes(m.get_intermediate_layers(x, **settings)) for m in (model, dense))
        assert found == expected, settings


@torch.no_grad()
def test_every_option_of_open_clip_gives_the_dense_shapes():
    dense, model, x = both("open_clip_tower")
    flags = {
        key: [False, True]
        for key in ("stop_early", "normalize_intermediates", "output_extra_tokens")
    }
    for settings in options(
        output_fmt=["NCHW", "NLC"],
        intermediates_only=[False, True],
        indices=[None, [0, 3], 1],
        **flags,
    ):
        found, expected = (shapes(m.forward_intermediates(x, **settings)) for m in (model, dense))
        assert found == expected, settings


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.no_grad()
def test_every_output_of_transformers_has_the_dense_shape(name):
    dense, model, x = both(name)
    found, expected = (m(x, output_hidden_states=True) for m in (model, dense))
    assert len(found.hidden_states) == DEPTH + 1
    assert [y.shape for y in found.hidden_states] == [y.shape for y in expected.hidden_states]
    plain, expected = (m(x, output_hidden_states=True, return_dict=False) for m in (model, dense))
    assert [y.shape for y in tree_leaves(plain)] == [y.shape for y in tree_leaves(expected)]
    for y, z in zip(tree_leaves(plain), tree_leaves(found.to_tuple()), strict=True):
        assert torch.equal(y, z)


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
@torch.no_grad()
def test_keeping_everything_gives_the_dense_maps(name):
    dense, model, x = both(name, keep_rate=1.0)
    for found, expected in zip(layers(model, x), layers(dense, x), strict=True):
        torch.testing.assert_close(
            found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
@torch.no_grad()
def test_before_the_first_site_the_maps_are_the_dense_ones(name):
    dense, model, x = both(name)
    found, expected = layers(model, x), layers(dense, x)
    assert torch.equal(found[SITES[0] - 1], expected[SITES[0] - 1])
    assert not torch.allclose(found[SITES[0]], expected[SITES[0]], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
@torch.no_grad()
def test_patches_have_the_same_feature_if_and_only_if_they_are_in_one_group(name):
    model = reduced(name)
    x, prefix = pictures(model), anatomy_of(model).prefix
    with batvit.trace(model) as trace:
        found = layers(model, x)
    assert [site.counts.block for site in trace.sites] == list(SITES)
    after = {block: trace.sites[block >= SITES[1]].origin.index for block in range(SITES[0], DEPTH)}
    for block, group in after.items():
        y = found[block][:, prefix:]
        same = (y[:, :, None] == y[:, None]).all(dim=-1)
        assert torch.equal(same, group[:, :, None] == group[:, None]), f"block {block}"


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_the_last_map_is_what_the_plain_forward_computes(name):
    model = reduced(name)
    x, prefix = pictures(model), model.num_prefix_tokens
    with batvit.trace(model) as trace:
        plain = model.forward_features(x)
    final, _ = model.forward_intermediates(x)
    patches = plain[:, prefix:]
    if not anatomy_of(model).reads_patches:
        patches = trace.sites[-1].unmerge(patches)
    torch.testing.assert_close(
        final, torch.cat([plain[:, :prefix], patches], dim=1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.no_grad()
def test_hidden_states_are_what_the_plain_forward_computes(name):
    model = reduced(name)
    x = pictures(model)
    plain, found = model(x).to_tuple(), model(x, output_hidden_states=True)
    assert torch.equal(plain[0], found[0])
    base = model if "last_hidden_state" in found else model.base_model
    last = base(x, output_hidden_states=True)
    assert last.last_hidden_state.shape == last.hidden_states[-1].shape
    norm = next(
        (getattr(base, key) for key in ("layernorm", "norm") if hasattr(base, key)), nn.Identity()
    )
    torch.testing.assert_close(
        last.last_hidden_state, norm(last.hidden_states[-1]), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_open_clip_gives_the_same_features_with_and_without_maps():
    model = reduced("open_clip_tower")
    x = pictures(model)
    torch.testing.assert_close(
        model.forward_intermediates(x)["image_features"], model(x), rtol=1e-5, atol=1e-5
    )


def checkpointing_of(model):
    """What switches it on in transformers: 5.23 has a new name for it."""
    return (
        getattr(model, "activation_checkpointing_enable", None)
        or model.gradient_checkpointing_enable
    )


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
def test_gradients_flow_and_recomputing_gives_the_same(name):
    model = reduced(name)
    x, found = pictures(model), []
    for checkpointing in (False, True):
        if checkpointing:
            model.train()
            (getattr(model, "set_grad_checkpointing", None) or checkpointing_of(model))()
        model.zero_grad()
        maps = layers(model, x)
        sum(y.square().mean() for y in maps).backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        found.append(([y.detach() for y in maps], gradients))
    (maps, gradients), (maps_again, gradients_again) = found
    blocks = {id(p) for block in anatomy_of(model).blocks for p in block.parameters()}
    reached = {key for key, p in model.named_parameters() if id(p) in blocks}
    assert reached <= gradients.keys()
    assert all(
        gradients[key].abs().max() > 0
        for key in reached
        if not key.endswith(("k_proj.bias", "key.bias"))
    )
    torch.testing.assert_close(maps_again, maps, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == gradients_again.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            gradients_again[key], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max() + 1)
        )


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
@torch.no_grad()
def test_two_threads_at_once(name):
    model = reduced(name)
    batches = [pictures(model, batch=1, seed=2), pictures(model, batch=3, seed=3)]
    expected, wrong = [layers(model, x) for x in batches], []

    def work(x, y):
        with torch.no_grad():
            for _ in range(5):
                found = layers(model, x)
                if not all(
                    torch.allclose(a, b, rtol=1e-5, atol=1e-5)
                    for a, b in zip(found, y, strict=True)
                ):
                    wrong.append(len(x))

    workers = [
        threading.Thread(target=work, args=pair) for pair in zip(batches, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("patch_first", [True, False])
@torch.no_grad()
def test_the_feature_wrapper_of_timm(name, patch_first):
    dense, model, x = both(name)
    expected = model.forward_intermediates(x, indices=[0, 2, 4], intermediates_only=True)
    wrapper = FeatureGetterNet(model if patch_first else dense, out_indices=[0, 2, 4])
    if not patch_first:
        batvit.patch(wrapper.model, keep_rate=0.5, blocks=SITES)
    assert wrapper.feature_info.channels() == [y.shape[1] for y in expected]
    torch.testing.assert_close(wrapper(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_the_feature_wrapper_of_timm_cuts_the_blocks_off(name):
    model = reduced(name)
    expected = model.forward_intermediates(
        pictures(model), indices=[1, 2], norm=True, intermediates_only=True
    )
    wrapper = FeatureGetterNet(model, out_indices=[1, 2], norm=True)
    assert len(wrapper.model.blocks) == 3
    torch.testing.assert_close(wrapper(pictures(model)), expected, rtol=0, atol=0)


def test_a_convolutional_head_learns_on_the_maps_of_a_backbone():
    dense = family("hf_dinov2_backbone", DEPTH)
    model, x = batvit.patch(copy.deepcopy(dense), keep_rate=0.5, blocks=(0, 1)), pictures(dense)
    found, expected = (m(x).feature_maps for m in (model, dense))
    assert [y.shape for y in found] == [y.shape for y in expected] == [(2, 48, 6, 6)] * 2
    assert not torch.allclose(found[-1], expected[-1], rtol=1e-2, atol=1e-2)
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.Conv2d(96, 16, 3, padding=1),
        nn.GELU(),
        nn.Upsample(size=96, mode="bilinear"),
        nn.Conv2d(16, 5, 1),
    )
    logits = head(torch.cat(found, dim=1))
    assert logits.shape == (2, 5, 96, 96)
    nn.functional.cross_entropy(logits, torch.zeros(2, 96, 96, dtype=torch.long)).backward()
    assert all(p.grad.abs().max() > 0 for p in head.parameters())
    assert model.embeddings.patch_embeddings.projection.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", [*TOWERS, *TRANSFORMERS])
@torch.no_grad()
def test_unpatched_the_maps_are_the_dense_ones(name):
    dense, model, x = both(name)
    assert not torch.equal(layers(model, x)[-1], layers(dense, x)[-1])
    batvit.unpatch(model)
    for found, expected in zip(layers(model, x), layers(dense, x), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_maps_of_another_image_size():
    model = batvit.patch(family("dynamic", DEPTH), keep_rate=0.5, blocks=SITES)
    for size in ((64, 128), (128, 96)):
        maps = model.forward_intermediates(pictures(model, size=size), intermediates_only=True)
        assert [y.shape for y in maps] == [(2, 48, size[0] // 16, size[1] // 16)] * DEPTH


@pytest.mark.parametrize("name", ["vit", "siglip", "eva02"])
def test_blocks_that_are_cut_off_leave_a_model_that_runs(name):
    model = batvit.patch(family(name, 5), keep_rate=0.5, blocks=(1, 3))
    x = pictures(model)
    expected = model.forward_intermediates(x, indices=[0, 2], intermediates_only=True)
    model.prune_intermediate_layers([0, 2])
    for map_, other in zip(
        model.forward_intermediates(x, indices=[0, 2], intermediates_only=True),
        expected,
        strict=True,
    ):
        assert torch.equal(map_, other)
    assert (
        model.forward_features(x).shape[1] == anatomy_of(model).patches + anatomy_of(model).prefix
    )
    assert batvit.info(model).blocks[1].tokens_out == batvit.info(model).blocks[2].tokens_out
    with batvit.trace(model) as trace:
        model(x)
    assert str(trace)


def test_a_model_whose_sites_are_all_cut_off_is_unpatched_whole():
    model = family("vit", DEPTH)
    kind = type(model)
    batvit.patch(model, keep_rate=0.5, blocks=(3,)).prune_intermediate_layers([0, 1])
    assert type(batvit.unpatch(model)) is kind
