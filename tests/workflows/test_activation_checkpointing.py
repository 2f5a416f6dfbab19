"""torch's apply_activation_checkpointing and torch.compile around single blocks."""

import copy

import open_clip
import pytest
import timm
import torch
import torchvision
import transformers
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointWrapper,
    apply_activation_checkpointing,
)

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.testing.run_contract import randomised

SIZE = {"image_size": 48, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 4}
MODELS = {
    "timm": lambda: timm.create_model("test_vit", img_size=48, patch_size=8, depth=3),
    "torchvision": lambda: torchvision.models.VisionTransformer(48, 8, 3, 4, 48, 96),
    "open_clip": lambda: open_clip.transformer.VisionTransformer(
        48, 8, 48, 3, 4, 2.0, output_dim=7
    ),
    "transformers": lambda: transformers.ViTModel(
        transformers.ViTConfig(**SIZE, num_hidden_layers=3, intermediate_size=96)
    ),
    "transformers DINOv2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**SIZE, num_hidden_layers=3, mlp_ratio=2)
    ),
}
SITES = {"keep_rate": 0.5, "blocks": (0, 1)}
every_model = pytest.mark.parametrize("name", MODELS)


def made(name):
    return randomised(MODELS[name]())


def run(model):
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    output = model(images)
    return getattr(output, "last_hidden_state", output)


def gradients(model):
    run(model).square().mean().backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def checkpointed(model):
    blocks = set(anatomy_of(model).blocks)
    apply_activation_checkpointing(model, check_fn=lambda part: part in blocks)
    assert sum(isinstance(part, CheckpointWrapper) for part in model.modules()) == 3
    return model


@every_model
def test_checkpointed_blocks_are_patched_before_or_after_and_unpatched(name):
    dense = run(made(name))
    reduced = batvit.patch(made(name), **SITES)
    expected, expected_gradients = run(reduced), gradients(reduced)
    assert expected.shape != dense.shape or not torch.allclose(expected, dense)
    for model in (
        checkpointed(batvit.patch(made(name), **SITES)),
        batvit.patch(checkpointed(made(name)), **SITES),
    ):
        assert torch.equal(run(model), expected)
        torch.testing.assert_close(gradients(model), expected_gradients, rtol=1e-4, atol=1e-6)
        assert str(batvit.info(model)).split() == str(batvit.info(reduced)).split()
        assert torch.equal(run(batvit.unpatch(model)), dense)


def test_feature_maps_of_checkpointed_blocks_are_whole():
    model = batvit.patch(made("timm"), **SITES)
    images = torch.randn(1, 3, 48, 48)
    expected = model.forward_intermediates(images, intermediates_only=True)
    found = checkpointed(model).forward_intermediates(images, intermediates_only=True)
    assert all(map(torch.equal, found, expected))


@every_model
@pytest.mark.unchecked
@torch.no_grad()
def test_compiled_blocks_are_refused_before_and_unpatched_after(name):
    model = made(name)
    dense = run(model)
    blocks = set(anatomy_of(model).blocks)
    names = [name for name, part in model.named_modules() if part in blocks]

    def compile_blocks(model):
        for key in names:
            parent, _, own = key.rpartition(".")
            compiled = torch.compile(model.get_submodule(key), backend="eager")
            model.get_submodule(parent).register_module(own, compiled)
        return model

    with pytest.raises(TypeError, match=r"compiled; call batvit.patch first"):
        batvit.patch(compile_blocks(copy.deepcopy(model)), **SITES)
    reduced = compile_blocks(batvit.patch(model, **SITES))
    assert not torch.equal(run(reduced), dense)
    torch.testing.assert_close(run(batvit.unpatch(reduced)), dense, rtol=1e-4, atol=1e-5)
