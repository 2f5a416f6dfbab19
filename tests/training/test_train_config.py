"""Fields that do not go together."""

import pytest

from batvit.training import TrainConfig


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"distill": "warm"},
            "distill must be one of none, soft, hard, got 'warm'; the default is none",
        ),
        ({"distill_alpha": 1.5}, r"distill_alpha must lie in \[0, 1\], got 1.5"),
        ({"distill_tau": 0}, r"distill_tau must lie in \(0, inf\), got 0"),
        ({"layer_decay": 1.1}, r"layer_decay must lie in \(0, 1\], got 1.1"),
        ({"ema": 1}, r"ema must lie in \[0, 1\), got 1"),
        ({"compile": 1}, "compile must be True or False, got 1"),
        ({"grad_accum_steps": 0}, r"grad_accum_steps must lie in \[1, inf\), got 0"),
        (
            {"batch_size": 10, "grad_accum_steps": 4},
            "batch_size 10 cannot be cut into 4 parts; see grad_accum_steps",
        ),
        ({"keep": 0}, r"keep must lie in \[1, inf\), got 0"),
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
