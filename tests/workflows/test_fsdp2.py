"""Models of every library under FSDP2, patched before it and after it, on two processes."""

import pytest
import torch
import transformers
from small_models import LAYERS, MODELS, SIZE
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from two_processes import failures

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.testing.run_contract import randomised

ALL = MODELS | {
    "transformers ViT": lambda: transformers.ViTModel(transformers.ViTConfig(**SIZE, **LAYERS)),
    "transformers DINOv2": lambda: transformers.Dinov2Model(
        transformers.Dinov2Config(**SIZE, num_hidden_layers=3, mlp_ratio=2)
    ),
    "transformers CLIP": lambda: transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(**SIZE, **LAYERS)
    ),
}
# every attention by itself, too: its weights are whole only while it runs
CASES = [*((name, "blocks") for name in ALL)]
CASES += [(name, "attentions") for name in ("timm", "torchvision", "open_clip")]
SITES = {"keep_rate": 0.5, "blocks": (0, 1)}


def made(name):
    return randomised(ALL[name]())


def run(model):
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    output = model(images)
    return getattr(output, "last_hidden_state", output)


def sharded(model, mesh, parts="blocks"):
    """As FSDP2 is used: every block, then the model; or every attention, too."""
    for block in anatomy_of(model).blocks:
        if parts == "attentions":
            attention = getattr(block, "self_attention", None) or block.attn
            fully_shard(attention, mesh=mesh)
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def gradients(model):
    run(model).square().mean().backward()
    return {
        name: getattr(parameter.grad, "full_tensor", lambda grad=parameter.grad: grad)()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def check(name, parts):
    """What has to hold of one model, in each process."""
    mesh = init_device_mesh("cpu", (2,))
    dense = run(made(name)).detach()
    reduced = batvit.patch(made(name), **SITES)
    expected = run(reduced).detach()
    expected_gradients = gradients(reduced)
    orders = {
        "patched before": lambda: sharded(batvit.patch(made(name), **SITES), mesh, parts),
        "patched after": lambda: batvit.patch(sharded(made(name), mesh, parts), **SITES),
    }
    for order in orders.values():
        model = order()
        close(run(model).detach(), expected)
        found = gradients(model)
        assert found.keys() == expected_gradients.keys()
        close(found, expected_gradients)
        assert batvit.info(model).macs == batvit.info(reduced).macs
        batvit.unpatch(model)
        assert batvit.config_of(model) is None
        assert isinstance(anatomy_of(model).blocks[0], FSDPModule)
        close(run(model).detach(), dense)
        batvit.patch(model, **SITES)
        close(run(model).detach(), expected)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return failures(__file__, CASES, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_sharded_model_is_patched_before_or_after_and_unpatched(told, case):
    assert told[case] == ""
