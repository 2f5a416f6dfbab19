"""Classes that wrappers derive, and modules that they put around others."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize

from batvit.reduction.wrapped import is_made_from, remade, unwrapped


class Own(nn.Linear):
    """A library's module."""

    def helper(self):
        return 1


class Reduced(Own):
    """What it becomes."""

    def helper(self):
        return 2


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return weight + weight.T


class Mixin:
    """What FSDP2 derives from, too."""


def parametrized():
    module = Own(3, 3)
    parametrize.register_parametrization(module, "weight", Symmetric())
    return module


def test_what_was_made_from_a_class_is_known_by_it():
    mixed = type("FSDPOwn", (Mixin, Own), {"__deepcopy__": None})
    for kind in (Own, type(parametrized()), mixed, type("Twice", (mixed,), {})):
        assert is_made_from(kind, Own)
    assert not is_made_from(nn.Linear, Own)


def test_a_class_that_replaces_a_method_or_calls_super_is_not():
    class Forward(Own):
        def forward(self, x):
            return x

    class Constructor(Own):
        def __init__(self):
            super().__init__(3, 3)

    for kind in (Reduced, Forward, Constructor):
        assert not is_made_from(kind, Own)


def test_a_class_is_made_anew_from_another_base_and_back():
    mixed = type("FSDPOwn", (Mixin, Own), {"extra": 3})
    other = remade(mixed, Own, Reduced)
    assert (other.__name__, other.__bases__, other.extra) == ("FSDPReduced", (Mixin, Reduced), 3)
    assert remade(mixed, Own, Reduced) is other
    assert remade(other, Reduced, Own) is mixed
    assert remade(Own, Own, Reduced) is Reduced


def test_a_parametrization_that_was_there_before_is_taken_away_after():
    module = parametrized()
    x = torch.randn(2, 3)
    expected = module(x)
    module.__class__ = remade(type(module), Own, Reduced)
    assert torch.equal(module(x), expected)
    parametrize.remove_parametrizations(module, "weight")
    assert type(module) is Reduced
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize(
    "wrapper", [checkpoint_wrapper, torch.compile, lambda m: torch.compile(checkpoint_wrapper(m))]
)
def test_wrappers_are_looked_into(wrapper):
    module = Own(3, 3)
    assert unwrapped(wrapper(module)) is module


def test_what_holds_one_part_is_no_wrapper():
    for module in (nn.Sequential(Own(3, 3)), nn.ModuleList([Own(3, 3)]), Own(3, 3)):
        assert unwrapped(module) is module
