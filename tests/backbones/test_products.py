"""Whole models whose sums are matrix products, as they are on a GPU and in a graph."""

import sys

import pytest
import torch
from families import family, pictures
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import reductions
from batvit.reduction.tokens import Tokens

SITES = (1, 2)


@torch.no_grad()
def run(model, x):
    """The outputs, and the tokens after each site."""
    after = []
    hooks = [
        site.register_forward_hook(lambda module, args, out: after.append(Tokens.of(out)))
        for site in reductions(model).values()
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [leaf for leaf in tree_leaves(model(x)) if isinstance(leaf, torch.Tensor)]
    for hook in hooks:
        hook.remove()
    return found, after


@pytest.mark.parametrize("mode", ["training-free", "paper"])
@pytest.mark.parametrize(
    "name",
    [
        "deit",
        "dinov2_registers",
        "gap",
        "eva02",
        "hf_dinov3",
        "hf_vit",
        "torchvision",
        "open_clip_tower",
    ],
)
def test_autocast_shortens_no_sum(name, mode, monkeypatch):
    model = anatomy_of(
        batvit.patch(family(name, depth=4), mode=mode, keep_rate=0.6, blocks=SITES)
    ).tower
    x = pictures(model)
    expected, added = run(model, x)
    monkeypatch.setattr(sys.modules["batvit.core.merge"], "by_product", lambda x: True)
    found, multiplied = run(model, x)
    # up to the first site all was the same, so what differs there is the sum alone
    one, other = multiplied[0], added[0]
    assert one.x.dtype == other.x.dtype
    assert torch.equal(one.origin.index, other.origin.index)
    assert torch.equal(one.sizes, other.sizes)
    exact = 1e-5 if one.x.dtype == torch.float32 else 1e-2
    torch.testing.assert_close(one.x, other.x, rtol=exact, atol=exact)
    for row, expected_row in zip(one.merged_rope, other.merged_rope, strict=True):
        torch.testing.assert_close(row, expected_row, rtol=1e-5, atol=1e-5)
    assert all(y.isfinite().all() for y in found)
    assert [y.dtype for y in found] == [y.dtype for y in expected]
    assert [y.shape for y in found] == [y.shape for y in expected]
