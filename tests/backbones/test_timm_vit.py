"""What is particular to timm's models, and what is refused."""

import pytest
import timm
import torch
from families import family, pictures

import batvit
from batvit.backbones.registry import anatomy_of


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (96, 176)])
def test_other_image_sizes(size):
    model = batvit.patch(family("dynamic"), keep_rate=0.5)
    with batvit.trace(model) as trace, torch.no_grad():
        model(pictures(model, size=size))
    assert trace.grid == (size[0] // 16, size[1] // 16)
    assert trace.sites[0].origin.tokens == trace.grid[0] * trace.grid[1]
    model.set_input_size(size)
    assert anatomy_of(model).grid == trace.grid


@pytest.mark.parametrize("size", [224, 256, 384])
def test_paper_counts_scale_with_the_image(size):
    model = batvit.patch(
        small("deit_tiny_patch16_224", img_size=size), mode="paper", keep_rate=0.7, blocks=(1, 2, 3)
    )
    patches = (size // 16) ** 2
    found = [block.tokens_out for block in batvit.info(model).blocks][1:]
    assert all(
        abs(tokens - patches * share / 196) < 3
        for tokens, share in zip(found, (138, 97, 68), strict=True)
    )


def test_training_mode_runs_with_dropped_paths_and_patches():
    model = family("deit")
    model = timm.create_model(
        "deit_tiny_patch16_224",
        depth=4,
        embed_dim=48,
        num_heads=3,
        drop_path_rate=0.2,
        patch_drop_rate=0.25,
    )
    batvit.patch(model, keep_rate=0.5)
    model.train()(pictures(model)).sum().backward()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_one_field_of_a_configuration_takes_the_place_of_its_rival():
    config = batvit.BATConfig.preset("paper", keep_rate=0.5)
    assert config.with_fields(keep_rate=0.6).keep_rate == 0.6
    assert config.with_fields(tokens=(9,)).keep_rate is None
    assert config.with_fields(tokens=(9, 8)).with_fields(keep_rate=0.6).tokens is None
