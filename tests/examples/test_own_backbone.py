"""A third party's adapter in one file passes the contract; each way to get it wrong is found."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import batvit
from batvit.backbones import patch as patching
from batvit.backbones import registry
from batvit.reduction.block import Parts
from batvit.testing.contract import CHECKS
from batvit.testing.run_contract import check_backbone, randomised


@pytest.fixture
def own(monkeypatch, imported):
    """The example, freshly imported, its adapter registered until the test ends."""
    monkeypatch.setattr(registry, "REGISTERED", [])
    module = imported("examples/own_backbone.py")
    monkeypatch.setitem(sys.modules, "own_backbone", module)
    return module


def check(own):
    return check_backbone(
        own.MyViT, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    )


def test_the_example_passes(own):
    assert check(own) == [name for name in CHECKS if name != "gradient_checkpointing"]
    assert batvit.supported()["own_backbone"] == {"my ViT": "MyViT"}


def test_what_is_not_registered_is_refused(own, monkeypatch):
    monkeypatch.setattr(registry, "REGISTERED", [])
    with pytest.raises(
        TypeError, match=r"own_backbone\.MyViT: no adapter knows this class.*batvit\.register"
    ):
        batvit.patch(own.MyViT())


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [None, "timm", batvit.Adapter])
def test_what_is_no_adapter_is_refused(wrong):
    with pytest.raises(TypeError, match=r"instance of batvit\.Adapter"):
        batvit.register(wrong)


def test_the_later_adapter_wins(own):
    class Other(own.MyAdapter):
        pass

    other = Other()
    batvit.register(other)
    assert registry.adapter_of(own.MyViT()) is other


@pytest.mark.parametrize(
    "parts",
    [
        Parts("norm_a", "attention", (), "norm_a", "mlp", ()),
        Parts("norm_a", "attention", ("mlp",), "norm_b", "mlp", ()),
        Parts("norm_a", "attention", (), "norm_b", "head", ()),
    ],
)
def test_parts_in_a_wrong_order_are_refused(own, monkeypatch, parts):
    monkeypatch.setattr(own.ReducedMyBlock, "parts", parts)
    what = "MyBlock of own_backbone of unknown version does not compute what batvit was written for"
    with pytest.raises(AssertionError, match=what):
        check(own)
    with pytest.raises(TypeError, match=what):
        batvit.patch(randomised(own.MyViT()))


def wrong_anatomy(own, monkeypatch, **changes):
    right = own.MyAdapter.anatomy
    monkeypatch.setattr(
        own.MyAdapter, "anatomy", lambda self, *args: replace(right(self, *args), **changes)
    )


def test_a_wrong_prefix_is_found(own, monkeypatch):
    wrong_anatomy(own, monkeypatch, prefix=0, reads_prefix_only=False)
    with pytest.raises(AssertionError, match="counts: tokens after the blocks"):
        check(own)


def test_a_head_that_reads_more_than_the_class_token_is_found(own, monkeypatch):
    def pooled(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))

    monkeypatch.setattr(own.MyViT, "forward", pooled)
    with pytest.raises(AssertionError, match="gradual, keep rate 1: differs by"):
        check(own)


def test_sizes_that_are_not_heard_are_found(own, monkeypatch):
    attend = own.ReducedMyBlock.attend
    monkeypatch.setattr(
        own.ReducedMyBlock,
        "attend",
        lambda self, x, bias, arguments: attend(self, x, None, arguments),
    )
    with pytest.raises(AssertionError, match="size_awareness: with sites"):
        check(own)


def test_a_forgotten_part_is_found(own, monkeypatch):
    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], dim=1)
        # the position is lost as soon as a block is reduced
        x = x if batvit.config_of(self) else x + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])

    monkeypatch.setattr(own.MyViT, "forward", forward)
    with pytest.raises(AssertionError, match="keeping_everything: paper, keep rate 1: differs by"):
        check(own)


def test_state_between_passes_is_found(own, monkeypatch):
    attend = own.ReducedMyBlock.attend

    def remembers(self, x, bias, arguments):
        out, captured = attend(self, x, bias, arguments)
        self.count = getattr(self, "count", 0) + 1
        return out + 1e-3 * self.count, captured

    monkeypatch.setattr(own.ReducedMyBlock, "attend", remembers)
    monkeypatch.setattr(patching, "prove", lambda *args: None)
    with pytest.raises(AssertionError, match="unpatching left attributes behind"):
        check(own)


def test_a_head_that_keys_of_the_state_dict_move_with_is_found(own, monkeypatch):
    def patched(self, model, config):
        model.extra = nn.Linear(2, 2)

    monkeypatch.setattr(own.MyAdapter, "patched", patched)
    with pytest.raises(
        AssertionError, match="unpatching: patching changed the keys of the state dict"
    ):
        check(own)
