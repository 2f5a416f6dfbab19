"""How to train: what a field may be, and what goes together."""

import pytest

from batvit.training import TrainConfig


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, r"epochs must lie in \[1, 100000\], got 0; the default is 30"),
        ("epochs", 1.5, r"epochs must be an integer, got 1.5 \(float\); the default is 30"),
        ("batch_size", 0, "batch_size must lie in"),
        ("batch_size", True, "batch_size must be an integer, got True"),
        ("lr", 0, r"lr must lie in \(0, 1000\], got 0"),
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


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"distill": "warm"},
            "distill must be one of none, soft, hard, got 'warm'; the default is none",
        ),
        ({"distill_alpha": 1.5}, r"distill_alpha must lie in \[0, 1\], got 1.5"),
        ({"distill_tau": 0}, r"distill_tau must lie in \(0, .*\], got 0"),
        ({"layer_decay": 1.1}, r"layer_decay must lie in \(0, 1\], got 1.1"),
        ({"ema": 1}, r"ema must lie in \[0, 1\), got 1"),
        ({"compile": 1}, "compile must be True or False, got 1"),
        ({"grad_accum_steps": 0}, r"grad_accum_steps must lie in \[1, 1000000\], got 0"),
        (
            {"batch_size": 10, "grad_accum_steps": 4},
            "batch_size=10 cannot be cut into the parts of grad_accum_steps=4; give a multiple",
        ),
        ({"keep": 0}, r"keep must lie in \[1, 1000000000\], got 0"),
        (
            {"epochs": 10, "keep_warmup_start": 4, "keep_warmup_epochs": 6},
            r"still be falling at the end: .* must be fewer than the 10 epochs, got 4 \+ 6",
        ),
        ({"epochs": 10, "keep_warmup_start": 10}, r"must be fewer than the 10 epochs, got 10 \+ 0"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        TrainConfig(**fields)


def test_a_teacher_of_whom_nothing_is_learnt_is_refused():
    config = TrainConfig()
    config.check_teacher(None)
    with pytest.raises(ValueError, match="nothing is to be learnt from it; give distill=soft"):
        config.check_teacher("weights.safetensors")
    TrainConfig(distill="hard").check_teacher("weights.safetensors")
    TrainConfig(token_labels=0.5).check_teacher("weights.safetensors")
