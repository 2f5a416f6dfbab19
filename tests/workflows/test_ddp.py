"""A patched model under DDP on two processes: the gradients of the whole batch, in both."""

import pytest
import timm
import torch
import torchvision
import transformers
from torch.nn.parallel import DistributedDataParallel
from two_processes import failures

import batvit
from batvit.testing.run_contract import randomised

SIZE = {"image_size": 48, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 4}
MODELS = {
    "timm": lambda: timm.create_model("test_vit", img_size=48, patch_size=8, depth=3),
    "torchvision": lambda: torchvision.models.VisionTransformer(48, 8, 3, 4, 48, 96),
    "transformers": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**SIZE, num_hidden_layers=3, intermediate_size=96)
    ),
}
CASES = [(name, mode) for name in MODELS for mode in ("training-free", "paper")]


def made(name, mode):
    model = batvit.patch(randomised(MODELS[name]()), mode=mode, keep_rate=0.5, blocks=(0, 1))
    return model.requires_grad_(True)


def loss(model, images):
    output = model(images)
    return getattr(output, "logits", output).square().mean()


def gradients(model):
    return {name: weight.grad for name, weight in model.named_parameters()}


def check(name, mode):
    """What has to hold of one model, in each process."""
    images = torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    whole = made(name, mode)
    loss(whole, images).backward()
    model = made(name, mode)
    parallel = DistributedDataParallel(model)
    mine = images.chunk(2)[torch.distributed.get_rank()]
    for _ in range(2):
        # the second pass is the one that DDP refuses where parameters were left out
        parallel.zero_grad()
        loss(parallel, mine).backward()
    found = gradients(model)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return failures(__file__, CASES, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_both_processes_have_the_gradients_of_the_whole_batch(told, case):
    assert told[case] == ""
