"""Pairs of attentive tokens."""

from math import cos, radians, sin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from batvit.core import match
from batvit.core.match import cosines

METHODS = ("bipartite", "greedy")


def angles(*degrees):
    """One image of unit vectors in the plane: the closer two angles, the more alike the tokens."""
    return torch.tensor([[[cos(radians(a)), sin(radians(a))] for a in degrees]])


def random_tokens(seed, tokens, batch=1, channels=6):
    return torch.randn(batch, tokens, channels, generator=torch.Generator().manual_seed(seed))


@st.composite
def sizes(draw):
    """How many tokens, and how many pairs of them."""
    tokens = draw(st.integers(1, 12))
    return tokens, draw(st.integers(0, tokens // 2))


def test_bipartite_by_hand():
    # tokens 0, 2, 4 choose among 1 and 3: 0 -> 1 (10 degrees apart), 2 -> 3 (5), 4 -> 1 (30)
    tokens = angles(0, 10, 95, 90, 40)
    # the closest two merges are 2 with 3 and 0 with 1; 4 stays alone and is numbered after them
    assert match(tokens, 2).index.tolist() == [[0, 0, 1, 1, 2]]
    assert match(tokens, 1).index.tolist() == [[2, 0, 1, 1, 3]]


def test_two_may_choose_the_same_partner():
    # 0 -> 1 (10 degrees apart), 4 -> 1 (9), 2 -> 3 (90): the closest two merges make one group of
    # three
    a = match(angles(0, 10, 180, 90, 19), 2)
    assert a.index.tolist() == [[0, 0, 2, 1, 0]]
    assert a.sizes.tolist() == [[3, 1, 1]]


def test_greedy_by_hand():
    # of all pairs 2 and 3 are closest (5 degrees), then 0 and 1 (10); groups are numbered by their
    # first member
    tokens = angles(0, 10, 95, 90, 40)
    assert match(tokens, 1, method="greedy").index.tolist() == [[0, 1, 2, 2, 3]]
    assert match(tokens, 2, method="greedy").index.tolist() == [[0, 0, 1, 1, 2]]


def test_greedy_finds_pairs_that_bipartite_cannot():
    # 0 and 2 are closest, and both choose; the best that bipartite can do is 2 -> 1
    tokens = angles(0, 50, 2, 90)
    assert match(tokens, 1, method="greedy").index.tolist() == [[0, 1, 0, 2]]
    assert match(tokens, 1, method="bipartite").index.tolist() == [[2, 0, 0, 1]]


def bipartite_by_loops(tokens, pairs):
    unit = normalize(tokens, dim=-1)
    wishes = []
    for i in range(0, len(unit), 2):
        similarity, partner = max(
            ((float(unit[i] @ unit[j]), -j) for j in range(1, len(unit), 2)), default=(0.0, 0)
        )
        wishes.append((similarity, -i, -partner))
    joined = {-i: j for _, i, j in sorted(wishes, reverse=True)[:pairs]}
    return [joined.get(i, i) for i in range(len(unit))]


def greedy_by_loops(tokens, pairs):
    unit, lead = normalize(tokens, dim=-1), list(range(len(tokens)))
    left = set(lead)
    for _ in range(pairs):
        _, i, j = max((float(unit[i] @ unit[j]), -i, -j) for i in left for j in left if i < j)
        lead[-j] = -i
        left -= {-i, -j}
    return lead


def partition(labels):
    """Which tokens are together, whatever the groups are called."""
    return [[a == b for a in labels] for b in labels]


@pytest.mark.parametrize(
    ("method", "by_loops"), [("bipartite", bipartite_by_loops), ("greedy", greedy_by_loops)]
)
@given(sizes(), st.integers(0, 2**32))
def test_match_is_what_loops_find(method, by_loops, size, seed):
    tokens, pairs = size
    x = random_tokens(seed, tokens, batch=2)
    found = match(x, pairs, method=method)
    for b in range(2):
        assert partition(found.index[b].tolist()) == partition(by_loops(x[b], pairs))


@pytest.mark.parametrize("method", METHODS)
@given(sizes(), st.data())
def test_groups_are_tokens_less_pairs_and_none_is_empty(method, size, data):
    tokens, pairs = size
    # few values, so that tokens repeat, lie on a line, and are zero
    values = st.lists(st.integers(-1, 1), min_size=2 * tokens, max_size=2 * tokens)
    x = torch.tensor(data.draw(values)).float().view(1, tokens, 2)
    a = match(x, pairs, method=method)
    assert (a.tokens, a.groups) == (tokens, tokens - pairs)
    assert a.is_total
    assert a.is_onto
    if method == "greedy":
        assert (a.sizes <= 2).all()
        assert (a.sizes == 2).sum() == pairs
    assert torch.equal(match(x, pairs, method=method).index, a.index)


@given(st.integers(0, 2**32), st.permutations(range(9)))
def test_greedy_does_not_depend_on_the_order(seed, order):
    x = random_tokens(seed, 9)
    straight = match(x, 3, method="greedy").index[0, order].tolist()
    assert partition(match(x[:, order], 3, method="greedy").index[0].tolist()) == partition(
        straight
    )


def test_equal_similarity_goes_to_the_lower_index():
    x = torch.ones(1, 6, 1)
    # 0, 2, 4 all choose 1, and the first two of them are joined to it; 4 stays alone and is
    # numbered last
    assert match(x, 2).index.tolist() == [[0, 0, 0, 1, 3, 2]]
    # 0 with 1, then 2 with 3
    assert match(x, 2, method="greedy").index.tolist() == [[0, 0, 1, 1, 2, 3]]
    # of fifty that choose 1, the first twenty are joined to it; sorting that many, an unstable sort
    # would show
    many = match(torch.ones(1, 100, 1), 20).index[0]
    assert many[0::2].tolist() == [0] * 20 + list(range(50, 80))
    assert many[1::2].tolist() == list(range(50))


@pytest.mark.parametrize("method", METHODS)
def test_only_the_direction_of_a_token_counts(method):
    x = random_tokens(1, 8)
    length = 2.0 ** torch.arange(8).view(1, 8, 1)
    assert torch.equal(match(x * length, 3, method=method).index, match(x, 3, method=method).index)


@pytest.mark.parametrize("method", METHODS)
def test_float16_is_measured_in_float32(method):
    # the products of tokens as long as these overflow float16
    x = (1000 * random_tokens(2, 60, batch=4)).half()
    assert torch.equal(cosines(x, x), cosines(x.float(), x.float()))
    assert torch.equal(match(x, 30, method=method).index, match(x.float(), 30, method=method).index)


def test_float64_is_measured_in_float32():
    x = random_tokens(2, 20, batch=2).double()
    found = cosines(x, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, cosines(x.float(), x.float()))


def test_bfloat16_is_measured_up_to_the_rounding_of_a_product():
    a, b = (random_tokens(seed, 20, batch=2).bfloat16() for seed in (0, 1))
    found, expected = cosines(a, b), cosines(a.float(), b.float())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 2**-8
    assert not torch.equal(found, expected)


def test_a_token_without_length_is_like_no_other():
    assert cosines(torch.zeros(1, 1, 3), torch.ones(1, 2, 3)).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("method", METHODS)
def test_autocast_does_not_change_who_is_paired(method):
    x = random_tokens(3, 60, batch=4)
    expected = match(x, 30, method=method).index
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = match(x, 30, method=method).index
    assert int((found != expected).sum()) == 0
