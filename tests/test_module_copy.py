"""Copies that fire no hook of the user's, and what they share with the original."""

import torch
from torch import nn

from batvit.module_copy import light_copy, of_the_model, on_meta, quiet_copy


class Normed(nn.Module):
    """A module with weights and a buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.linear(x))


@of_the_model
def doubled(module, args, output):
    return 2 * output


def weights(module):
    return [*module.parameters(), *module.buffers()]


def test_hooks_of_the_user_are_left_out_and_those_of_the_model_kept():
    module = Normed().eval()
    fired = []
    module.linear.register_forward_hook(lambda *a: fired.append("hook"))
    module.linear.register_forward_pre_hook(lambda *a: fired.append("pre-hook"))
    x = torch.randn(2, 4)
    expected = 2 * module(x)
    fired.clear()
    module.register_forward_hook(doubled)
    assert torch.equal(quiet_copy(module)(x), expected)
    assert fired == []
    module(x)
    assert fired == ["pre-hook", "hook"]


def test_hooks_that_transformers_put_on_its_own_model_are_kept():
    def hook(module, args, output):
        return output + 1

    hook.__module__ = "transformers.models.vit.modeling_vit"
    module = nn.Linear(2, 2)
    module.register_forward_hook(hook)
    assert list(quiet_copy(module)._forward_hooks.values()) == [hook]


def test_a_quiet_copy_is_in_eval_mode_and_has_weights_of_its_own():
    module = Normed().train()
    twin = quiet_copy(module)
    assert not any(part.training for part in twin.modules())
    assert all(part.training for part in module.modules())
    for weight, other in zip(weights(module), weights(twin), strict=True):
        assert torch.equal(weight, other)
        assert weight is not other


def test_a_light_copy_shares_every_weight_and_no_module():
    module = Normed()
    twin = light_copy(module)
    for weight, other in zip(weights(module), weights(twin), strict=True):
        assert weight is other
    twin.linear = nn.Identity()
    assert isinstance(module.linear, nn.Linear)


def test_a_copy_on_the_meta_device_has_shapes_alone():
    module = Normed()
    twin = on_meta(module)
    assert [weight.shape for weight in weights(twin)] == [w.shape for w in weights(module)]
    assert all(weight.is_meta for weight in weights(twin))
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not any(weight.is_meta for weight in weights(module))
