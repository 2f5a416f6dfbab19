"""Attention split between two processes: refused at a site, as each would choose other tokens."""

import pytest
import timm
import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from two_processes import failures

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.testing.run_contract import randomised

SIZE = {"image_size": 48, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 4}
LAYERS = {"num_hidden_layers": 3, "intermediate_size": 96}
IN, OUT = ColwiseParallel, RowwiseParallel
VIT = {"q_proj": IN, "k_proj": IN, "v_proj": IN, "o_proj": OUT}
# the model, its plan for an attention, and its plan for an MLP
MODELS = {
    "ViT": (
        lambda: transformers.ViTModel(transformers.ViTConfig(**SIZE, **LAYERS)),
        {f"attention.{name}": style for name, style in VIT.items()},
        {"mlp.fc1": IN, "mlp.fc2": OUT},
    ),
    "CLIP": (
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZE, **LAYERS)),
        {
            "self_attn.q_proj": IN,
            "self_attn.k_proj": IN,
            "self_attn.v_proj": IN,
            "self_attn.out_proj": OUT,
        },
        {"mlp.fc1": IN, "mlp.fc2": OUT},
    ),
    # how one matrix for queries, keys and values is split, timm leaves to others
    "timm": (
        lambda: timm.create_model("test_vit", img_size=48, patch_size=8, depth=3),
        {"attn.qkv": IN, "attn.proj": OUT},
        {"mlp.fc1": IN, "mlp.fc2": OUT},
    ),
}
SITES = {"keep_rate": 0.5, "blocks": (1,)}
CASES = [(name, part) for name in MODELS for part in ("attention", "before", "mlp")]
CASES += [("ViT", "unpatched"), ("CLIP", "unpatched")]


def run(model):
    side = anatomy_of(model).image_size[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = model(images)
    return getattr(output, "last_hidden_state", output)


def made(name):
    return randomised(MODELS[name][0]())


def split(model, name, part, blocks):
    plan = MODELS[name][2 if part == "mlp" else 1]
    for i in blocks:
        styles = {key: style() for key, style in plan.items()}
        parallelize_module(anatomy_of(model).blocks[i], init_device_mesh("cpu", (2,)), styles)
    return model


def check(name, part):
    """What has to hold of one model, in each process."""
    if part == "before":
        with pytest.raises(TypeError, match="parallelize_module"):
            batvit.patch(split(made(name), name, part, [1]), **SITES)
        return
    model = split(batvit.patch(made(name), **SITES), name, part, [1])
    if part == "mlp":
        # every process has all heads
        expected = run(batvit.patch(made(name), **SITES))
        torch.testing.assert_close(run(model), expected, rtol=1e-3, atol=1e-4)
    elif part == "unpatched":
        torch.testing.assert_close(
            run(batvit.unpatch(model)), run(made(name)), rtol=1e-3, atol=1e-4
        )
    else:
        with pytest.raises(TypeError, match="split between processes"):
            run(model)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return failures(__file__, CASES, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_split_attention_is_refused_and_a_split_mlp_runs(told, case):
    assert told[case] == ""
