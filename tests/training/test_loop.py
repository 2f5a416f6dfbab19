"""Fine-tuning: it learns, it repeats itself, and what cannot work is refused before it starts."""

import dataclasses
import math
import threading

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.data import DataLoader, Subset

import batvit
from batvit.backbones.patch import during_training
from batvit.data.digits import digits
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


def test_the_loss_falls_and_every_epoch_is_told(data):
    heard, steps = [], []
    config = dataclasses.replace(
        SHORT, epochs=12, lr=2e-2, opt="muon", warmup_epochs=1, clip_grad=1.0
    )
    found = fit(
        model := vit(),
        *data,
        config,
        on_epoch=heard.append,
        progress=lambda step: steps.append(step),
    )
    assert found[-1].train_loss < found[0].train_loss - 0.5
    assert [epoch.epoch for epoch in found] == list(range(1, 13))
    assert heard == found
    assert [step[:2] for step in steps] == [(i, 72) for i in range(1, 73)]
    assert all(step.loss > 0 and step.lr >= 0 and step.samples_per_sec > 0 for step in steps)
    assert 0 < found[0].lr < found[1].lr > found[2].lr > found[-1].lr > 0
    assert all(0 <= epoch.top1 <= epoch.top5 <= 100 for epoch in found)
    assert found[0].samples_per_sec == pytest.approx(96 / found[0].seconds)
    assert not model.training


def test_the_same_seed_gives_the_same_losses_and_another_does_not(data):
    config = dataclasses.replace(SHORT, mixup=0.8, cutmix=1.0)
    first, again = (fit(vit(), *data, config) for _ in range(2))
    other = fit(vit(), *data, dataclasses.replace(config, seed=1))
    assert [timeless(epoch) for epoch in first] == [timeless(epoch) for epoch in again]
    assert [epoch.train_loss for epoch in first] != [epoch.train_loss for epoch in other]


def test_a_reduced_model_and_a_dense_one_go_through_the_same_lines(data, tmp_path):
    dense, reduced = vit(), batvit.patch(vit(), mode="paper", keep_rate=0.5)
    for name, model in (("dense", dense), ("reduced", reduced)):
        fit(model, *data, SHORT, output=tmp_path / name)
    states = [load_file(tmp_path / name / "last.safetensors") for name in ("dense", "reduced")]
    assert list(states[0]) == list(states[1])
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert batvit.config_of(reduced).keep_rate is not None


def test_the_teacher_is_dense_whoever_reduces(data):
    config, reduction = (
        dataclasses.replace(SHORT, distill="soft"),
        batvit.BATConfig.preset("paper", keep_rate=0.5),
    )
    models = [batvit.patch(vit(), reduction) for _ in range(3)]
    own = fit(models[0], *data, config)
    assert [timeless(epoch) for epoch in fit(models[1], *data, config, teacher=vit())] == [
        timeless(epoch) for epoch in own
    ]
    known = fit(models[2], *data, config, reduce=during_training(reduction))
    assert [timeless(epoch) for epoch in known] == [timeless(epoch) for epoch in own]
    assert all(batvit.config_of(model) == reduction for model in models)


class Listener:
    """A hook that holds what cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, module, args, output):
        with self.lock:
            assert isinstance(output.shape, torch.Size)


def locked(model):
    model.blocks[0].register_forward_hook(Listener())


def pruned(model):
    prune.l1_unstructured(model.blocks[0].mlp.fc1, "weight", amount=0.3)


def weight_normed(model):
    parametrizations.weight_norm(model.blocks[0].mlp.fc1)


@pytest.mark.parametrize("change", [locked, pruned, weight_normed])
@pytest.mark.parametrize("given", [False, True])
def test_a_teacher_need_not_be_copied_by_python(data, change, given):
    config = dataclasses.replace(SHORT, epochs=1, distill="soft")
    model = vit()
    change(model)
    batvit.patch(model, mode="paper", keep_rate=0.5)
    teacher = vit() if given else None
    if given:
        change(teacher)
        before = [weight.detach().clone() for weight in teacher.parameters()]
    (found,) = fit(model, *data, config, teacher=teacher)
    assert math.isfinite(found.train_loss)
    if given:
        assert all(map(torch.equal, before, teacher.parameters()))


def test_workers_prepare_the_same_pictures(data):
    config = dataclasses.replace(SHORT, epochs=1)
    alone, helped = (
        fit(vit(), *data, config),
        fit(vit(), *data, dataclasses.replace(config, workers=1)),
    )
    assert alone[0].train_loss == helped[0].train_loss


# it refuses


class Untouched(nn.Module):
    """A model that must not be run."""

    def forward(self, images):
        raise AssertionError


def test_an_empty_training_set_is_refused(data):
    with pytest.raises(ValueError, match="the training set is empty; give"):
        fit(Untouched(), Subset(data[0], []), data[1], SHORT)


def test_a_batch_larger_than_the_training_set_is_refused(data):
    with pytest.raises(
        ValueError,
        match="batch_size=97 is more than the 96 training pictures; lower it to 96 or less",
    ):
        fit(Untouched(), *data, TrainConfig(batch_size=97))


def test_fp16_without_a_gpu_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"fp16 needs a GPU, .* give precision=bf16 or precision=fp32, or move the model",
    ):
        fit(vit(), *data, dataclasses.replace(SHORT, precision="fp16"), output=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_warming_up_needs_a_reduction(data):
    with pytest.raises(
        ValueError,
        match=r"keep_warmup_epochs=\d+ need a reduction to warm up; call batvit.patch\(model\)",
    ):
        fit(vit(), *data, dataclasses.replace(SHORT, keep_warmup_epochs=1))


def test_a_tracker_that_is_not_installed_is_refused(data, tmp_path):
    with pytest.raises(
        ValueError, match="the tracker comet is not installed; install it with pip install comet"
    ):
        fit(Untouched(), *data, SHORT, output=tmp_path / "run", log_with=("comet",))
    assert not (tmp_path / "run").exists()
