"""The one place that runs a classifier."""

import math

import pytest
import torch
from torch import nn

from batvit.measure.logits import divergence, finite_logits, log_probabilities


class Answers(nn.Module):
    """Answers every batch with one thing, and notes how it is run."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.modes = []

    def forward(self, x):
        self.modes.append((self.training, torch.is_inference_mode_enabled(), x.dtype))
        return self.answer


def test_logits_are_float_and_on_the_cpu():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).bfloat16()
    logits = finite_logits(model, torch.ones(2, 3, 2, 2), name="a")
    assert (logits.shape, logits.dtype, logits.device.type) == ((2, 4), torch.float32, "cpu")
    expected = model(torch.ones(2, 3, 2, 2).bfloat16()).float()
    torch.testing.assert_close(logits, expected.detach())


def test_a_model_runs_in_eval_mode_without_gradients():
    model = Answers(torch.ones(2, 3)).train()
    finite_logits(model, torch.ones(2, 3, 2, 2), name="a")
    assert model.modes == [(False, True, torch.float32)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.ones(2, 3, 4), r"expected logits \(2, classes\), got \(2, 3, 4\)"),
        (torch.ones(3, 4), r"expected logits \(2, classes\), got \(3, 4\)"),
        (torch.ones(2, 0), r"got \(2, 0\)"),
        ((torch.ones(2, 3),), "got tuple"),
        (torch.tensor([[0.0, torch.nan], [0, 0]]), "not finite; run it in fp32 or bf16"),
    ],
)
def test_what_are_no_finite_logits_is_refused_by_name(answer, said):
    with pytest.raises(ValueError, match=f"^wrong: .*{said}"):
        finite_logits(Answers(answer), torch.ones(2, 3, 2, 2), name="wrong")


def test_the_divergence_of_equal_answers_is_nothing_and_grows_with_their_distance():
    dense = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]).log()
    own = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]).log()
    expected = 0.7 * math.log(7) - 0.1 * math.log(7)
    torch.testing.assert_close(divergence(own, dense), torch.tensor([0.0, expected]))


def test_log_probabilities_are_of_every_picture():
    model = Answers(torch.tensor([[0.0, 0.0], [0.0, math.log(3)]]))
    found = log_probabilities(model, torch.ones(2, 3, 2, 2), name="a").exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
