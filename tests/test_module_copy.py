"""Copies that fire no hook of the user's, and what they share with the original."""

import functools
import threading

import pytest
import timm
import torch
import transformers
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import batvit
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


pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
COPIES = [quiet_copy, light_copy, on_meta]


class Logger:
    """What cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()
        self.heard = []

    def hear(self, module, args, output):
        with self.lock:
            self.heard.append(type(module))


def pruned(linear):
    prune.l1_unstructured(linear, "weight", 0.3)


def under_a_logger(linear):
    linear.register_forward_hook(Logger().hear)


def with_a_logger(linear):
    linear.logger = Logger()


# what each does to a linear layer
CHANGES = {
    "pruned": pruned,
    "weight-normed": weight_norm,
    "spectral-normed": spectral_norm,
    "parametrized": parametrizations.weight_norm,
    "under a logger's hook": under_a_logger,
    "with a logger": with_a_logger,
    "with an activation": lambda linear: setattr(linear, "seen", linear(torch.ones(1, 192)) + 1),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def small(**settings):
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224", depth=3, img_size=64, **settings).eval()


@every_change
def test_a_model_that_runs_is_patched_counted_and_unpatched(change):
    model, x = small(), torch.randn(1, 3, 64, 64)
    for block in model.blocks:
        change(block.attn.proj)
    change(model.head)
    expected = model(x)
    batvit.patch(model, keep_rate=1.0, blocks=(1,))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    batvit.patch(model, keep_rate=0.5, blocks=(1,))
    found = batvit.info(model)
    assert found.macs < found.dense_macs == batvit.info(small()).macs
    assert torch.equal(batvit.unpatch(model)(x), expected)


@every_change
def test_copies_compute_the_same_and_follow_weights_that_they_share(change):
    linear = nn.Linear(192, 4).eval()
    change(linear)
    x = torch.randn(2, 192)
    assert torch.equal(quiet_copy(linear)(x), linear(x))
    assert on_meta(linear)(x.to("meta")).shape == (2, 4)
    twin = light_copy(linear)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.mul_(1.5)
    assert torch.equal(twin(x), linear(x))


def test_what_a_copy_is_changed_in_does_not_reach_the_original():
    for change in (pruned, weight_norm, parametrizations.weight_norm):
        linear = nn.Linear(192, 4).eval()
        change(linear)
        x = torch.randn(2, 192)
        expected = linear(x)
        quiet_copy(linear).to(torch.float64).requires_grad_(False)
        with torch.no_grad():
            for weight in weights(quiet_copy(linear)):
                weight.zero_()
        assert torch.equal(linear(x), expected)
        assert all(parameter.requires_grad for parameter in linear.parameters())


def test_modules_outside_the_tree_of_modules_are_copied_once():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.listed = [self.linear]
            self.named = {"linear": (self.linear, 3)}
            self.bound = self.linear.forward
            self.part = functools.partial(nn.functional.linear, weight=self.linear.weight)

    for copied in COPIES:
        model = Model()
        twin = copied(model)
        assert twin.linear is not model.linear
        assert twin.linear is twin.listed[0] is twin.named["linear"][0] is twin.bound.__self__
        assert twin.part.keywords["weight"] is twin.linear.weight


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    for copied in COPIES:
        twin = copied(model)
        assert twin[1].weight is twin[0].weight


def test_a_copy_of_transformers_has_its_own_configuration():
    config = transformers.ViTConfig(
        image_size=32, patch_size=16, hidden_size=24, num_attention_heads=3, num_hidden_layers=2
    )
    model = transformers.ViTModel(config)
    twin = batvit.patch(light_copy(model), keep_rate=0.5, blocks=(0,))
    assert hasattr(twin.config, "batvit")
    assert not hasattr(model.config, "batvit")
    assert twin.layers[0].attention.config is twin.config


@pytest.mark.unchecked
def test_a_compiled_module_is_copied_uncompiled():
    module = nn.Linear(4, 4).eval()
    module.compile(backend="eager")
    x = torch.randn(2, 4)
    twin = quiet_copy(module)
    with torch.no_grad():
        module.weight.zero_()
    assert twin(x).abs().sum() > (module(x) + 0).abs().sum()
