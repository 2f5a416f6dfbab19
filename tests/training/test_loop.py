"""Fine-tuning: it learns, it repeats itself, it loses nothing, and it refuses what cannot work before it starts."""

import copy
import dataclasses
import functools
import itertools
import json
import os
import random
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import batvit
from batvit.backbones.during_training import DuringTraining
from batvit.backbones.patch import during_training, schedule_of
from batvit.data.digits import digits
from batvit.data.loading import data_config
from batvit.measure.accuracy import evaluate
from batvit.storage.weights import save_weights
from batvit.training import DivergedError, TrainConfig, fit
from batvit.training.inputs import augmentation
from batvit.training.record import check_output

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


# it learns


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


def test_stochastic_depth_of_a_model_made_without_it_is_refused(data):
    model = vit()
    with pytest.raises(
        ValueError,
        match=r"drop_path is 0.1, but .* without .*; make it with drop_path_rate=0.1, or leave",
    ):
        fit(model, *data, dataclasses.replace(SHORT, drop_path=0.1))
    # it is as it came: another run has the precision that it asks for
    found = fit(model, *data, dataclasses.replace(SHORT, precision="bf16"))
    assert [timeless(epoch) for epoch in found] == [
        timeless(epoch) for epoch in fit(vit(), *data, dataclasses.replace(SHORT, precision="bf16"))
    ]


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


def test_workers_prepare_the_same_pictures(data):
    config = dataclasses.replace(SHORT, epochs=1)
    alone, helped = (
        fit(vit(), *data, config),
        fit(vit(), *data, dataclasses.replace(config, workers=1)),
    )
    assert alone[0].train_loss == helped[0].train_loss


# it loses nothing


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
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert TrainConfig(**about["train"]) == SHORT
    assert (about["pictures"], about["processes"], about["config"]) == (96, 1, None)
    assert about["param_count"] == sum(parameter.numel() for parameter in model.parameters())
    assert about["versions"]["torch"] == version("torch")
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


def test_weights_that_share_memory_and_compiled_models_are_saved_with_their_own_keys(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    for wanted in (model, torch.compile(model)):
        saved = load_file(save_weights(wanted, tmp_path / "tied.safetensors"))
        assert set(saved) == set(model.state_dict())


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
    keep = lambda epoch: weights.append(copy.deepcopy(model.state_dict()))
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
        match="batch_size 97 is more than the 96 training pictures; lower it to 96 or less",
    ):
        fit(Untouched(), *data, TrainConfig(batch_size=97))


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


def test_fp16_without_a_gpu_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"fp16 needs a GPU, .* give bf16 or fp32, or move the model"
    ):
        fit(vit(), *data, dataclasses.replace(SHORT, precision="fp16"), output=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_run_is_refused_and_stays_as_it_is(data, tmp_path):
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(
        FileExistsError,
        match=r"already holds a run \(log.jsonl\); go on with it by --resume, or name another",
    ):
        fit(Untouched(), *data, SHORT, output=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("log.jsonl", "mine")]


def test_an_output_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="it is a file; name a folder"):
        check_output(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        check_output(tmp_path / "nowhere" / "run")
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match="not writable"):
        check_output(tmp_path)


# the configuration


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, r"epochs must lie in \[1, inf\), got 0; the default is 30"),
        ("epochs", 1.5, r"epochs must be an integer, got 1.5 \(float\); the default is 30"),
        ("batch_size", 0, "batch_size must lie in"),
        ("batch_size", True, "batch_size must be an integer, got True"),
        ("lr", 0, r"lr must lie in \(0, inf\), got 0"),
        ("lr", float("nan"), "lr must lie in .* got nan"),
        ("lr", float("inf"), "lr must lie in .* got inf"),
        ("lr", "fast", "lr must be a number, got 'fast'"),
        ("lr", 1e-6, r"min_lr must not be above lr \(1e-06\), got 2e-06; lower it"),
        ("min_lr", -1, "min_lr must lie in"),
        ("warmup_epochs", -1, "warmup_epochs must lie in"),
        ("warmup_epochs", 30, "warmup_epochs must be fewer than the 30 epochs, got 30; lower it"),
        ("weight_decay", -0.1, "weight_decay must lie in"),
        ("opt", "adamm", "opt must be one of timm's optimizers, got 'adamm'; the default is adamw"),
        ("smoothing", 1, r"smoothing must lie in \[0, 1\), got 1"),
        ("mixup", -1, "mixup must lie in"),
        ("cutmix", None, "cutmix must be a number, got None"),
        (
            "opt",
            "adahessian",
            "opt adahessian needs second derivatives, which are not computed; the default is adamw",
        ),
        (
            "auto_augment",
            "rnd",
            "auto_augment must be a policy of timm's, such as rand-m9-mstd0.5-inc1, got 'rnd'",
        ),
        ("auto_augment", "rand-q9", "auto_augment must be a policy of timm's"),
        ("reprob", 1.1, r"reprob must lie in \[0, 1\], got 1.1"),
        ("clip_grad", 0, "clip_grad must lie in .*; the default is None"),
        ("seed", -1, "seed must lie in"),
        ("precision", "fp8", "precision must be one of fp32, bf16, fp16, got 'fp8'"),
        ("workers", -1, "workers must lie in"),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TrainConfig(**{field: value})


def test_mixing_needs_an_even_batch():
    with pytest.raises(
        ValueError, match="batch_size must be even for mixup and cutmix, got 63; add one"
    ):
        TrainConfig(batch_size=63, cutmix=1.0)


@pytest.mark.unchecked
def test_integers_will_do_for_numbers():
    config = TrainConfig(lr=1, smoothing=0, clip_grad=1, auto_augment="rand-m9-mstd0.5-inc1")
    assert [type(v) for v in (config.lr, config.smoothing, config.clip_grad)] == [
        float,
        float,
        float,
    ]


# the pictures


def test_augmentation_gives_random_views_of_the_size_of_the_model():
    from PIL import Image

    model = vit()
    view = augmentation(model, TrainConfig(auto_augment="rand-m9-mstd0.5-inc1", reprob=1.0))
    picture = Image.effect_noise((40, 30), 50).convert("RGB")
    first, second = view(picture), view(picture)
    assert first.shape == data_config(model)["input_size"] == (3, 16, 16)
    assert not torch.equal(first, second)


def test_colours_change_and_rectangles_go_as_often_as_they_are_asked_to():
    from PIL import Image

    grey = Image.new("RGB", (40, 30), (128, 128, 128))
    torch.manual_seed(0)
    random.seed(0)

    model = vit()
    mean, std = (torch.tensor(data_config(model)[name]).view(3, 1, 1) for name in ("mean", "std"))

    def kinds(**fields):
        """How many views of twenty are another grey, and how many are not of one colour."""
        view = augmentation(model, TrainConfig(**fields))
        views = [view(grey) * std + mean for _ in range(20)]
        plain = [found for found in views if float(found.max() - found.min()) < 0.01]
        return sum(abs(float(found.mean()) - 128 / 255) > 0.01 for found in plain), len(
            views
        ) - len(plain)

    assert kinds(color_jitter=0.0, reprob=0.0) == (0, 0)
    changed, erased = kinds(color_jitter=0.4)
    assert changed > 10
    assert erased == 0
    assert kinds(color_jitter=0.0, reprob=1.0) == (0, 20)
    assert 0 < kinds(color_jitter=0.0, reprob=0.5)[1] < 20


def test_digits_are_split_the_same_way_every_time():
    (train, val), (again, _) = digits((16, 24), **GREY), digits((8, 8), **GREY)
    assert (len(train), len(val)) == (1437, 360)
    assert torch.equal(train.labels, again.labels)
    assert set(torch.bincount(val.labels).tolist()) == {35, 36, 37}
    picture, label = train[0]
    assert picture.shape == (3, 16, 24)
    assert -1 <= picture.min() < picture.max() <= 1
    assert label == train.labels[0]
    # at its own size a scan is left as it is
    assert torch.equal(again[0][0][0] / 2 + 0.5, again.scans[0])


# what makes it faster, smaller, or watched


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


def test_warming_up_needs_a_reduction(data):
    with pytest.raises(
        ValueError, match=r"keep_warmup needs a reduction to warm up; call batvit.patch\(model\) first"
    ):
        fit(vit(), *data, dataclasses.replace(SHORT, keep_warmup_epochs=1))


def test_tokens_fall_step_by_step_and_accuracy_is_that_of_the_whole_reduction(data):
    reduction = batvit.BATConfig.preset("paper", tokens=(4,), blocks=(1,))
    model, counts, evaluated, accuracy = batvit.patch(vit(), reduction), [], [], []
    sites = lambda: [site.tokens_out for site in schedule_of(model)]
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
    # of 16 tokens 4 are to stay: in two steps on the way 12 and 8, after a third and two thirds of a cosine
    assert [list(key) for key, _ in itertools.groupby(counts)] == [[], [12], [8], [4]]
    assert counts[:6] == [[]] * 6
    assert counts[18:] == [[4]] * 6
    assert evaluated == [[4]] * 4
    assert accuracy == [True] * 4


@pytest.mark.unchecked
def test_a_compiled_model_learns_the_same_and_is_compiled_once_a_count(data, monkeypatch):
    # differentiates each graph, as the default backend does, but writes no code, which takes a minute
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


def test_a_tracker_that_is_not_installed_is_refused(data, tmp_path):
    with pytest.raises(
        ValueError, match="the tracker comet is not installed; install it with pip install comet"
    ):
        fit(Untouched(), *data, SHORT, output=tmp_path / "run", log_with=("comet",))
    assert not (tmp_path / "run").exists()
