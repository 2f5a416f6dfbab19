"""A run: what it writes on the way, and what is left when it goes wrong."""

import copy
import dataclasses
import itertools
import json
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader, Subset

import batvit
from batvit.backbones.during_training import DuringTraining
from batvit.backbones.patch import during_training, schedule_of
from batvit.data.digits import digits
from batvit.measure.accuracy import evaluate
from batvit.training import DivergedError, TrainConfig, fit

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


def test_a_share_that_does_not_fit_is_found_before_the_first_update(data):
    class Misfit(DuringTraining):
        def set_share(self, model, share):
            if share == 0.5:
                raise ValueError("does not fit")

    config, steps = dataclasses.replace(SHORT, keep_warmup_epochs=1, keep_warmup_steps=1), []
    reduce = Misfit(batvit.BATConfig(), batvit.patch, batvit.unpatch)
    with pytest.raises(ValueError, match="does not fit"):
        fit(vit(), *data, config, reduce=reduce, progress=steps.append)
    assert not steps


def test_a_run_leaves_what_its_log_says(data, tmp_path):
    found = fit(model := vit(), *data, SHORT, output=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").glob("[!.]*")) == [
        "best.safetensors",
        "checkpoints",
        "last.safetensors",
        "log.jsonl",
        "run.json",
        "summary.csv",
    ]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log == [dataclasses.asdict(epoch) | {"update": 6 * epoch.epoch} for epoch in found]
    metadata = json.loads((tmp_path / "run" / "run.json").read_text())
    assert TrainConfig(**metadata["train"]) == SHORT
    assert (metadata["pictures"], metadata["processes"], metadata["config"]) == (96, 1, None)
    assert metadata["param_count"] == sum(parameter.numel() for parameter in model.parameters())
    assert metadata["versions"]["torch"] == version("torch")
    images, _ = next(iter(data[1]))
    again = vit().eval()
    again.load_state_dict(load_file(tmp_path / "run" / "last.safetensors"))
    assert torch.equal(again(images), model(images))


def test_best_is_the_earliest_of_the_most_accurate(data, tmp_path):
    weights = []
    model = vit()
    found = fit(
        model,
        *data,
        dataclasses.replace(SHORT, epochs=5),
        output=tmp_path,
        on_epoch=lambda epoch: weights.append(copy.deepcopy(model.state_dict())),
    )
    best = max(range(5), key=lambda i: found[i].top1)
    saved = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(saved[key], weights[best][key]) for key in saved)


class Fragile(nn.Module):
    """Fine for some updates, then its loss, or its gradient alone, is no number."""

    def __init__(self, fine, spoil):
        super().__init__()
        self.inner, self.left, self.spoil = nn.Linear(3 * 16 * 16, 10), fine, spoil

    def forward(self, images):
        logits = self.inner(images.flatten(1))
        self.left -= self.training
        return logits if self.left >= 0 else self.spoil(logits)


def nan_loss(logits):
    return logits * float("nan")


def nan_gradient(logits):
    # 0 in the forward pass, 0 / 0 in the backward pass
    return logits + (logits - logits.detach()).abs().sqrt()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(nan_loss, "loss became nan in update 8"), (nan_gradient, "not finite|nan")],
)
def test_a_run_that_diverges_stops_with_the_last_good_weights(data, tmp_path, spoil, message):
    model = Fragile(7, spoil)
    weights = []

    def keep(epoch):
        weights.append(copy.deepcopy(model.state_dict()))

    with pytest.raises(
        DivergedError,
        match=f"epoch 2: .*({message}).*lower lr.*after epoch 1 are in .*last.safetensors",
    ):
        fit(model, *data, SHORT, output=tmp_path, on_epoch=keep)
    assert len(weights) == len((tmp_path / "log.jsonl").read_text().splitlines()) == 1
    for name in ("last", "best"):
        saved = load_file(tmp_path / f"{name}.safetensors")
        assert all(torch.equal(saved[key], weights[0][key]) for key in saved)


def test_weights_spoiled_by_the_last_update_are_not_saved(data, tmp_path):
    with pytest.raises(
        DivergedError,
        match=r"epoch 1: inner.weight is not finite after update 6; lower lr \(0.003\)$",
    ):
        fit(Fragile(5, nan_gradient), *data, SHORT, output=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["log.jsonl", "run.json"]


def test_tokens_fall_step_by_step_and_accuracy_is_that_of_the_whole_reduction(data):
    reduction = batvit.BATConfig.preset("paper", tokens=(4,), blocks=(1,))
    model, counts, evaluated, accuracy = batvit.patch(vit(), reduction), [], [], []

    def sites():
        return [site.tokens_out for site in schedule_of(model)]

    config = dataclasses.replace(
        SHORT, epochs=4, keep_warmup_start=1, keep_warmup_epochs=2, keep_warmup_steps=2
    )

    def on_epoch(epoch):
        evaluated.append(sites())
        own = evaluate({"model": model}, data[1])["model"]
        accuracy.append(
            (epoch.top1, epoch.eval_loss) == pytest.approx((own.top1, own.loss), rel=1e-5)
        )

    fit(
        model,
        *data,
        config,
        reduce=during_training(reduction),
        progress=lambda step: counts.append(sites()),
        on_epoch=on_epoch,
    )
    # of 16 tokens 4 are to stay: two steps on the way, 12 and 8, a third and two thirds of a cosine
    assert [list(key) for key, _ in itertools.groupby(counts)] == [[], [12], [8], [4]]
    assert counts[:6] == [[]] * 6
    assert counts[18:] == [[4]] * 6
    assert evaluated == [[4]] * 4
    assert accuracy == [True] * 4


def test_tensorboard_gets_losses_and_accuracy(data, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    found = fit(
        vit(),
        *data,
        dataclasses.replace(SHORT, log_every=2),
        output=tmp_path,
        log_with=("tensorboard",),
    )
    events = accumulator.EventAccumulator(str(tmp_path / "batvit"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [2, 4, 6, 8, 10, 12]
    assert [event.value for event in events.Scalars("top1")] == pytest.approx(
        [epoch.top1 for epoch in found]
    )
