"""One update: precision, optimizer, average and teacher, and what cannot be trained."""

import copy
import dataclasses
import functools

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import batvit
from batvit.backbones.patch import during_training
from batvit.data.digits import digits
from batvit.measure.accuracy import evaluate
from batvit.training import TrainConfig, fit

GREY = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
SHORT = TrainConfig(epochs=2, batch_size=16, lr=3e-3, min_lr=0.0)


def vit(depth=4):
    torch.manual_seed(0)
    shape = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "num_heads": 2, "num_classes": 10}
    return VisionTransformer(**shape, depth=depth, weight_init="jax")


@pytest.fixture(scope="module")
def data():
    train, val = digits((16, 16), **GREY)
    return Subset(train, range(96)), DataLoader(Subset(val, range(40)), 20)


def timeless(epoch):
    return dataclasses.replace(epoch, seconds=0.0, samples_per_sec=0.0)


def test_mixed_precision_leaves_weights_and_forward_as_they_are(data):
    model = vit()
    found = fit(model, *data, dataclasses.replace(SHORT, precision="bf16"))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert "forward" not in vars(model)
    assert found[0].train_loss != fit(vit(), *data, SHORT)[0].train_loss


def test_a_model_is_trained_in_mixed_precision_every_time(data):
    config, model = dataclasses.replace(SHORT, precision="bf16"), vit()
    first = fit(model, *data, config)
    model.load_state_dict(vit().state_dict())
    assert [timeless(epoch) for epoch in fit(model, *data, config)] == [
        timeless(epoch) for epoch in first
    ]


def test_stochastic_depth_of_a_model_made_without_it_is_refused(data):
    model = vit()
    with pytest.raises(
        ValueError,
        match=r"drop_path=0.1 is given, but .* without .*; make it with drop_path_rate=0.1, or",
    ):
        fit(model, *data, dataclasses.replace(SHORT, drop_path=0.1))
    # it is as it came: another run has the precision that it asks for
    found = fit(model, *data, dataclasses.replace(SHORT, precision="bf16"))
    assert [timeless(epoch) for epoch in found] == [
        timeless(epoch) for epoch in fit(vit(), *data, dataclasses.replace(SHORT, precision="bf16"))
    ]


def test_labels_that_do_not_fit_are_refused(data):
    strange = TensorDataset(torch.zeros(16, 3, 16, 16), torch.full((16,), 10))
    with pytest.raises(ValueError, match="label 10 does not fit a model of 10 classes"):
        fit(vit(), strange, data[1], SHORT)
    unknown = TensorDataset(torch.zeros(16, 3, 16, 16), torch.full((16,), -1))
    with pytest.raises(
        ValueError, match="label -1 does not fit a model of 10 classes; labels count from 0"
    ):
        fit(vit(), unknown, data[1], SHORT)


@pytest.mark.parametrize(
    ("module", "found"), [(nn.Identity(), r"\(1, 3, 16, 16\)"), (nn.Flatten(0), r"\(768,\)")]
)
def test_what_is_no_classifier_is_refused(data, module, found):
    with pytest.raises(ValueError, match=f"expected logits .*, got {found}; give a classifier"):
        fit(module, *data, SHORT)


def test_checkpointed_activations_change_nothing(data):
    model, seen = vit(), []
    kept = fit(vit(), *data, SHORT)
    config = dataclasses.replace(SHORT, grad_checkpointing=True)
    again = fit(model, *data, config, progress=lambda step: seen.append(model.grad_checkpointing))
    assert [timeless(epoch) for epoch in kept] == [timeless(epoch) for epoch in again]
    assert seen == [True] * 12
    assert not model.grad_checkpointing


def test_a_model_that_offers_no_checkpointing_is_refused(data):
    with pytest.raises(
        ValueError,
        match="a Sequential offers no gradient checkpointing; leave out grad_checkpointing",
    ):
        fit(
            nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
            *data,
            dataclasses.replace(SHORT, grad_checkpointing=True),
        )


def test_layer_decay_moves_the_first_blocks_less(data):
    def moved(layer_decay):
        before, model = vit(), vit()
        fit(model, *data, dataclasses.replace(SHORT, epochs=1, opt="sgd", layer_decay=layer_decay))
        block = "blocks.0.mlp.fc1.weight"
        return (model.state_dict()[block] - before.state_dict()[block]).norm()

    # five layers stand behind the first block: four blocks, of which it is one, and the head
    assert moved(0.5) < 0.1 * moved(None)


def test_weights_decay_but_biases_and_norms_do_not(data):
    def lengths(weight_decay):
        model = vit()
        fit(
            model, *data, dataclasses.replace(SHORT, epochs=1, opt="sgd", weight_decay=weight_decay)
        )
        return model.blocks[0].mlp.fc1.weight.norm(), model.norm.weight

    (pulled, norm), (free, same) = lengths(5.0), lengths(0.0)
    assert pulled < 0.98 * free
    torch.testing.assert_close(norm, same, rtol=1e-3, atol=0)


def test_the_rate_ends_at_the_lowest_and_the_optimizer_is_the_one_asked_for(data):
    config = dataclasses.replace(SHORT, epochs=1)
    rates = []
    falls = fit(
        vit(),
        *data,
        dataclasses.replace(config, min_lr=1e-3),
        progress=lambda step: rates.append(step.lr),
    )
    assert rates[0] == 3e-3
    assert 1e-3 < rates[-1] < 1.2e-3
    level = fit(vit(), *data, dataclasses.replace(config, min_lr=3e-3))
    other = fit(vit(), *data, dataclasses.replace(config, min_lr=1e-3, opt="sgd"))
    assert level[0].lr == 3e-3
    assert len({epoch.train_loss for (epoch,) in (falls, level, other)}) == 3


def test_averaged_weights_are_what_is_evaluated_and_kept(data, tmp_path):
    config = dataclasses.replace(SHORT, ema=0.99)
    found = fit(model := vit(), *data, config, output=tmp_path)
    plain = fit(other := vit(), *data, SHORT)
    assert [epoch.train_loss for epoch in found] == [epoch.train_loss for epoch in plain]
    saved = load_file(tmp_path / "last.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())
    assert not torch.equal(model.head.weight, other.head.weight)
    assert evaluate({"model": model}, data[1])["model"].top1 == found[-1].top1


def test_teacher_and_caller_keep_their_weights(data):
    teacher = vit().train()
    before = copy.deepcopy(teacher.state_dict())
    found = fit(
        vit(), *data, dataclasses.replace(SHORT, distill="soft", distill_alpha=1.0), teacher=teacher
    )
    # a student that begins as its teacher has nothing to learn but the views
    assert found[0].train_loss < 0.1
    assert all(torch.equal(teacher.state_dict()[key], value) for key, value in before.items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_of_other_classes_is_refused(data):
    teacher = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=4, num_heads=2, num_classes=7
    )
    with pytest.raises(
        ValueError,
        match="the teacher knows 7 classes, the model 10; give a teacher of the same classes",
    ):
        fit(vit(), *data, dataclasses.replace(SHORT, distill="hard"), teacher=teacher)


@pytest.mark.unchecked
def test_a_compiled_model_learns_the_same_and_is_compiled_once_a_count(data, monkeypatch):
    # differentiates each graph, as the default backend, but writes no code, which takes a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    reduction = batvit.BATConfig.preset("paper", tokens=(4,), blocks=(0,))
    config = dataclasses.replace(SHORT, epochs=3, keep_warmup_epochs=1, keep_warmup_steps=1)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    eager, compiled = (
        fit(
            batvit.patch(vit(2), reduction),
            *data,
            dataclasses.replace(config, compile=wanted),
            reduce=during_training(reduction),
        )
        for wanted in (False, True)
    )
    for first, second in zip(eager, compiled, strict=True):
        assert second.train_loss == pytest.approx(first.train_loss, rel=1e-3)
    # all tokens, ten of them, four
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
