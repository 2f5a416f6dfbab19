"""LoRA by peft: the adapted model chooses the tokens that the merged one chooses."""

import open_clip
import peft
import pytest
import timm
import torch
import torchvision
import transformers

import batvit
from batvit.testing.run_contract import randomised

TORCHVISION = {"image_size": 48, "patch_size": 8, "num_layers": 4, "hidden_dim": 48, "mlp_dim": 96}
TRANSFORMERS = {
    "image_size": 48,
    "patch_size": 8,
    "num_hidden_layers": 4,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 96,
}
MODELS = {
    "torchvision": lambda: torchvision.models.VisionTransformer(**TORCHVISION, num_heads=3),
    "torchvision_fast": lambda: torchvision.models.VisionTransformer(**TORCHVISION, num_heads=4),
    "open_clip": lambda: open_clip.transformer.VisionTransformer(
        48, 8, 48, 4, 4, 2.0, output_dim=7
    ),
    "timm": lambda: timm.create_model("test_vit", img_size=48, patch_size=8),
    "transformers": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**TRANSFORMERS)
    ),
}
TARGETS = {
    "torchvision": ["self_attention"],
    "torchvision_fast": ["self_attention"],
    "open_clip": ["attn"],
    "timm": ["qkv", "proj"],
    "transformers": ["q_proj", "k_proj"],
}
SITES = {"keep_rate": 0.5, "blocks": (1, 2)}
# peft asks transformers for what it is about to rename
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def dense(name):
    return randomised(MODELS[name]())


def adapted(model, config):
    """The model with adapters that change it."""
    model = peft.get_peft_model(model, config).eval()
    draw = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    return model


@torch.no_grad()
def run(model):
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    output = model(images)
    return getattr(output, "logits", output)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_adapted_model_gives_what_the_merged_one_gives(name):
    config = peft.LoraConfig(r=4, target_modules=TARGETS[name])
    merged = run(batvit.patch(adapted(dense(name), config).merge_and_unload(), **SITES))
    assert (merged - run(batvit.patch(dense(name), **SITES))).abs().max() > 0.01

    patched_first = adapted(batvit.patch(dense(name), **SITES), config)
    close(run(patched_first), merged)
    close(run(patched_first.merge_and_unload()), merged)

    adapted_first = adapted(dense(name), config)
    batvit.patch(adapted_first.base_model.model, **SITES)
    close(run(adapted_first), merged)
    close(run(adapted_first.merge_and_unload()), merged)


@pytest.mark.parametrize("name", ["torchvision", "open_clip"])
def test_one_parameter_is_adapted(name):
    attention = TARGETS[name][0]
    config = peft.LoraConfig(
        r=4, target_modules=[], target_parameters=[f"{attention}.in_proj_weight"]
    )
    merged = run(batvit.patch(adapted(dense(name), config).merge_and_unload(), **SITES))
    assert (merged - run(batvit.patch(dense(name), **SITES))).abs().max() > 0.01
    close(run(adapted(batvit.patch(dense(name), **SITES), config)), merged)


@pytest.mark.parametrize("name", ["torchvision", "open_clip"])
def test_adapters_learn_what_is_important(name):
    model = adapted(
        batvit.patch(dense(name), **SITES), peft.LoraConfig(r=4, target_modules=TARGETS[name])
    )
    model.train()(torch.randn(2, 3, 48, 48)).square().mean().backward()
    adapters = [parameter for key, parameter in model.named_parameters() if "lora_" in key]
    assert adapters
    assert all(adapter.grad.isfinite().all() and adapter.grad.any() for adapter in adapters)


@pytest.mark.parametrize("name", MODELS)
def test_unpatched_under_its_adapters_it_is_the_dense_model(name):
    config = peft.LoraConfig(r=4, target_modules=TARGETS[name])
    expected = run(adapted(dense(name), config))
    model = adapted(batvit.patch(dense(name), **SITES), config)
    batvit.unpatch(model.base_model.model)
    close(run(model), expected)
