"""Importance of the tokens, and who is attentive."""

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batvit.core import class_importance, decouple, received_importance
from batvit.core.decouple import ranks, take


def column(*rows):
    """One value a token, for one image: a head per row, width 1."""
    return torch.tensor(rows).unsqueeze(0).unsqueeze(-1)


def random_heads(seed, dtype=torch.float32):
    """Queries and keys of 2 images, 3 heads, 2 prefix tokens and 5 image tokens, width 4."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 7, 4, generator=draw).to(dtype) for _ in "qk"]


def test_class_importance_by_hand():
    # scale * query is 1. Head one: exp of the logits is 1, 2, 3, of 6; head two: 1, 3, 1, of 5.
    queries = column([2.0, 7.0, 7.0], [2.0, 7.0, 7.0])
    keys = column([0, log(2), log(3)], [0, log(3), 0])
    found = class_importance(queries, keys, prefix=1, scale=0.5)
    # the mean of 2/6 and 3/5, and of 3/6 and 1/5
    torch.testing.assert_close(found, torch.tensor([[7 / 15, 7 / 20]]))


def test_a_token_of_size_five_gets_the_attention_of_five():
    zeros = column([0.0, 0.0, 0.0])
    bias = torch.tensor([0.0, log(5), 0.0]).view(1, 1, 1, 3)
    # 1 + 5 + 1 = 7
    found = class_importance(zeros, zeros, prefix=1, scale=1.0, bias=bias)
    torch.testing.assert_close(found, torch.tensor([[5 / 7, 1 / 7]]))


def test_received_importance_by_hand():
    # the class token pays 2/6 and 3/6; the two image tokens, whose queries are 0, pay a third to
    # each
    found = received_importance(
        column([1.0, 0, 0]), column([0, log(2), log(3)]), prefix=1, scale=1.0
    )
    torch.testing.assert_close(
        found, torch.tensor([[(1 / 3 + 1 / 3 + 1 / 3) / 3, (1 / 2 + 1 / 3 + 1 / 3) / 3]])
    )


@given(st.integers(0, 2**32), st.integers(0, 4))
def test_importance_is_what_the_whole_attention_says(seed, prefix):
    queries, keys = random_heads(seed)
    attention = (queries @ keys.transpose(-2, -1) * 0.5).softmax(dim=-1)
    of_class = class_importance(queries, keys, prefix=prefix, scale=0.5)
    of_all = received_importance(queries, keys, prefix=prefix, scale=0.5)
    torch.testing.assert_close(of_class, attention[:, :, 0, prefix:].mean(dim=1))
    torch.testing.assert_close(of_all, attention.mean(dim=(1, 2))[:, prefix:])
    for found in (of_class, of_all):
        assert (found >= 0).all()
        assert (found.sum(dim=1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("measure", [class_importance, received_importance])
def test_importance_of_half_precision_is_float32(measure, dtype):
    queries, keys = random_heads(0, dtype)
    found = measure(queries, keys, prefix=2, scale=0.5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, measure(queries.float(), keys.float(), prefix=2, scale=0.5), rtol=0.02, atol=0.002
    )


def test_decouple_by_hand():
    # 0.4 stands twice: the earlier position goes first
    assert decouple(torch.tensor([[0.1, 0.4, 0.2, 0.4]])).tolist() == [[1, 3, 2, 0]]


@given(st.data())
def test_decouple_sorts_by_importance_then_position(data):
    tokens = data.draw(st.integers(1, 12))
    row = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=tokens, max_size=tokens)
    importance = data.draw(st.lists(row, min_size=1, max_size=3))
    order = decouple(torch.tensor(importance))
    for b, values in enumerate(importance):
        assert order[b].tolist() == sorted(range(tokens), key=lambda i: (-values[i], i))


def test_many_equally_important_tokens_stay_in_order():
    # few tokens are sorted stably by any means; these are not few
    assert decouple(torch.zeros(2, 300)).tolist() == [list(range(300))] * 2


def test_take_by_hand():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert take(x, torch.tensor([[2, 0]])).tolist() == [[[5.0, 6.0], [1.0, 2.0]]]


@given(st.permutations(range(9)))
def test_ranks_undo_an_order(order):
    place = ranks(torch.tensor([order]))[0].tolist()
    assert [place[token] for token in order] == list(range(9))
