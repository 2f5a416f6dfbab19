"""How different tokens are from one another."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batvit.core import Assignment, diversity, merge

SEEDS = st.integers(0, 2**32)


def random_tokens(seed):
    return torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(seed))


def test_diversity_by_hand():
    # the mean is (1, 1); residuals (-1, -1), (1, -1), (0, 2); squares 2 + 2 + 4
    x = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]]])
    torch.testing.assert_close(diversity(x), torch.tensor([8**0.5]))
    # counting the last twice, the mean is (1, 1.5); squares 3.25 + 3.25 + 2 * 2.25
    torch.testing.assert_close(
        diversity(x, torch.tensor([[1.0, 1.0, 2.0]])), torch.tensor([11**0.5])
    )


@given(SEEDS)
def test_size_counts_a_token_several_times(seed):
    x = random_tokens(seed)
    repeated = torch.cat([x, x[:, :2], x[:, :1]], dim=1)
    size = torch.tensor([3.0, 2, 1, 1, 1, 1]).expand(2, 6)
    torch.testing.assert_close(diversity(x, size), diversity(repeated))


@given(SEEDS, st.permutations(range(6)))
def test_only_differences_count(seed, order):
    x = random_tokens(seed)
    torch.testing.assert_close(diversity(x + 5), diversity(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(diversity(x[:, order]), diversity(x))
    torch.testing.assert_close(diversity(-2 * x), 2 * diversity(x))


def test_tokens_that_are_all_alike_have_none():
    assert diversity(torch.full((2, 5, 3), 0.5)).tolist() == [0.0, 0.0]


@given(SEEDS)
def test_merging_by_size_never_adds_any(seed):
    x = random_tokens(seed)
    a = Assignment.from_index(torch.tensor([[0, 0, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2]]))
    assert (diversity(merge(x, a), a.sizes.float()) <= diversity(x) + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_summed_in_float32(dtype):
    # the squares alone would overflow in float16
    x = 1000 * torch.eye(5).unsqueeze(0).to(dtype)
    torch.testing.assert_close(diversity(x), diversity(x.float()))
