"""Which pictures skip which branches is a matter of the update, not of who runs it."""

import pytest
import torch
from timm.layers import DropPath
from timm.models import VisionTransformer
from torch.utils.data import TensorDataset

from batvit.training import TrainConfig
from batvit.training.batches import Batching, Part, split_batch
from batvit.training.stochastic_depth import StochasticDepth

CPU = torch.device("cpu")


def vit(drop_path=0.5):
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 3,
        "num_heads": 2,
        "num_classes": 10,
    }
    return VisionTransformer(**sizes, drop_path_rate=drop_path)


def batching(batch, part=None, **fields):
    pictures = TensorDataset(torch.zeros(batch, 3, 16, 16), torch.zeros(batch, dtype=torch.long))
    return Batching(
        pictures, TrainConfig(batch_size=batch, **fields), Part() if part is None else part
    )


def kept(batch, parts, part):
    depth = StochasticDepth(vit(), batching(batch, grad_accum_steps=parts))
    depth.draw(7, part, CPU)
    return torch.stack([path.kept for path in depth.paths])


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_keep_what_the_whole_keeps(parts):
    whole = kept(8, 1, 0)
    assert whole.shape == (4, 8)
    for part in range(parts):
        assert torch.equal(kept(8, parts, part), whole[:, split_batch(list(range(8)), part, parts)])


def test_a_branch_is_kept_as_often_as_timm_keeps_it_and_scaled_as_much():
    depth = StochasticDepth(vit(), batching(4000))
    depth.draw(0, 0, CPU)
    for path in depth.paths:
        # of the first block none is left out, of the others a quarter and a half
        assert set(path.kept.tolist()) == {0.0, torch.tensor(1 / (1 - path.drop_prob)).item()}
        assert path.kept.mean() == pytest.approx(1, abs=0.05)
        x = torch.randn(4000, 2, 3)
        assert torch.equal(path(x), x * path.kept[:, None, None])
        assert path.eval()(x) is x


def test_what_is_finished_is_timms_again():
    model = vit()
    depth = StochasticDepth(model, batching(8))
    depth.draw(0, 0, CPU)
    depth.finish()
    paths = [module for module in model.modules() if isinstance(module, DropPath)]
    assert len(paths) == 4
    assert all(type(path) is DropPath and not hasattr(path, "kept") for path in paths)


def test_a_model_without_stochastic_depth_needs_nothing():
    depth = StochasticDepth(vit(0.0), batching(8))
    depth.draw(0, 0, CPU)
    assert not depth.paths
