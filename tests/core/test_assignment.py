"""Assignments: checked when made by hand, composed, joined, and described."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batvit.core import Assignment, merge, sum_by_group, unmerge


@st.composite
def assignments(draw, tokens=None, batch=None, least=-1):
    """Onto maps of a few tokens; ``least=0`` prunes none."""
    tokens = draw(st.integers(1, 9)) if tokens is None else tokens
    batch = draw(st.integers(1, 3)) if batch is None else batch
    groups = draw(st.integers(1, tokens))
    others = st.lists(
        st.integers(least, groups - 1), min_size=tokens - groups, max_size=tokens - groups
    )
    rows = [draw(st.permutations([*range(groups), *draw(others)])) for _ in range(batch)]
    return Assignment.from_index(torch.tensor(rows), groups)


@st.composite
def chains(draw, length):
    """Assignments that can follow one another."""
    chain = [draw(assignments())]
    while len(chain) < length:
        chain.append(draw(assignments(tokens=chain[-1].groups, batch=chain[-1].batch)))
    return chain


def same(one, other):
    return one.groups == other.groups and torch.equal(one.index, other.index)


def test_a_hand_made_assignment_tells_its_sizes():
    # tokens 0 and 3 are group 1, token 1 is group 0, token 2 is pruned
    a = Assignment.from_index(torch.tensor([1, 0, -1, 1]))
    assert (a.batch, a.tokens, a.groups) == (1, 4, 2)
    assert a.sizes.tolist() == [[1, 2]]
    assert a.kept.tolist() == [[True, True, False, True]]
    assert a.is_onto
    assert not a.is_total


def test_repr_says_what_became_of_the_tokens():
    a = Assignment.from_index(torch.tensor([[1, 0, -1, 1], [0, 1, 1, 1]]))
    assert repr(a) == "Assignment(4 tokens -> 2 groups, batch 2, largest group 3, 1 pruned)"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_any_integers_make_an_index(dtype):
    a = Assignment.from_index(torch.tensor([[0, 1, 1]], dtype=dtype))
    assert a.index.dtype == torch.long
    assert a.groups == 2


@pytest.mark.parametrize(
    ("index", "groups", "words"),
    [
        (torch.tensor([0.0, 1.0]), None, "float32"),
        (torch.tensor([0j]), None, "complex64"),
        (torch.tensor([True]), None, "bool"),
        (torch.zeros(1, 2, 3, dtype=torch.long), None, "(1, 2, 3)"),
        (torch.zeros(2, 0, dtype=torch.long), None, "(2, 0)"),
        (torch.tensor(0), None, "()"),
        (torch.tensor([0, 3]), 2, "got 0 .. 3"),
        (torch.tensor([-2, 0]), None, "got -2 .. 0"),
        (torch.tensor([-1, -1]), None, "all are -1"),
        (torch.tensor([0, 0]), 0, "got 0 .. 0"),
        (torch.tensor([0, 2]), None, "3 groups"),
        (torch.tensor([0, 0]), 2, "2 groups"),
        (torch.tensor([[0, 1], [1, 1]]), None, "2 groups"),
    ],
    ids=str,
)
def test_a_bad_index_is_refused_with_what_was_found(index, groups, words):
    with pytest.raises(ValueError, match=r"index|group") as caught:
        Assignment.from_index(index, groups)
    assert words in str(caught.value)


@given(assignments(least=0))
def test_without_pruning_the_map_is_total_and_onto(a):
    assert a.is_total
    assert a.is_onto
    assert (a.sizes.sum(dim=1) == a.tokens).all()


@given(assignments())
def test_sizes_count_the_kept_tokens(a):
    assert a.is_onto
    assert torch.equal(a.sizes.sum(dim=1), a.kept.sum(dim=1))
    for b, row in enumerate(a.index.tolist()):
        assert a.sizes[b].tolist() == [row.count(group) for group in range(a.groups)]


@given(assignments())
def test_identity_is_neutral(a):
    assert same(Assignment.identity(a.batch, a.tokens).then(a), a)
    assert same(a.then(Assignment.identity(a.batch, a.groups)), a)


def test_composition_by_hand():
    # 0 -> 1 -> 0, 1 -> 0 -> pruned, 2 is pruned at once, 3 -> 2 -> 0
    first = Assignment.from_index(torch.tensor([1, 0, -1, 2]))
    second = Assignment.from_index(torch.tensor([-1, 0, 0]))
    assert first.then(second).index.tolist() == [[0, -1, -1, 0]]


@given(chains(3))
def test_composition_is_associative(chain):
    a, b, c = chain
    assert same(a.then(b).then(c), a.then(b.then(c)))


@given(chains(2))
def test_sizes_of_a_composition_are_sums_of_sizes(chain):
    a, b = chain
    assert torch.equal(a.then(b).sizes, sum_by_group(a.sizes.float(), b).long())
    assert a.then(b).is_onto


def test_assignments_that_do_not_follow_are_refused():
    three, two = Assignment.identity(1, 3), Assignment.identity(1, 2)
    with pytest.raises(ValueError, match="with 3 groups, the second takes 1 with 2"):
        three.then(two)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_assignments_of_other_batches_are_refused(first, second):
    with pytest.raises(ValueError, match="batch"):
        Assignment.identity(first, 3).then(Assignment.identity(second, 3))


def test_join_by_hand():
    # tokens 3 and 0 become one group; of tokens 1, 2, 4 the first two become the next group and the
    # last one after that
    top, rest = (
        Assignment.from_index(torch.tensor([0, 0])),
        Assignment.from_index(torch.tensor([0, 0, 1])),
    )
    joined = Assignment.join(torch.tensor([[3, 0, 1, 2, 4]]), top, rest)
    assert joined.groups == 3
    assert joined.index.tolist() == [[0, 1, 1, 0, 2]]


@given(st.data())
def test_join_keeps_each_part(data):
    first = data.draw(assignments(least=0))
    second = data.draw(assignments(batch=first.batch, least=0))
    order = torch.tensor(
        [
            data.draw(st.permutations(range(first.tokens + second.tokens)))
            for _ in range(first.batch)
        ]
    )
    left, right = order.split([first.tokens, second.tokens], dim=1)
    joined = Assignment.join(order, first, second)
    assert joined.groups == first.groups + second.groups
    assert torch.equal(joined.sizes, torch.cat([first.sizes, second.sizes], dim=1))
    assert torch.equal(joined.index.gather(1, left), first.index)
    assert torch.equal(joined.index.gather(1, right) - first.groups, second.index)


def test_whether_tokens_may_be_pruned_is_known_without_the_data():
    total, pruned = (
        Assignment.from_index(torch.tensor([0, 1, 1])),
        Assignment.from_index(torch.tensor([0, -1, 1])),
    )
    assert (total.drops, pruned.drops, Assignment.identity(1, 2).drops) == (False, True, False)
    swap, drop = (
        Assignment.from_index(torch.tensor([1, 0])),
        Assignment.from_index(torch.tensor([0, -1])),
    )
    assert [[a.then(b).drops for b in (swap, drop)] for a in (total, pruned)] == [
        [False, True],
        [True, True],
    ]
    assert total.then(swap).index.tolist() == [[1, 0, 0]]
    assert total.then(drop).index.tolist() == [[0, -1, -1]]
    assert pruned.then(swap).index.tolist() == [[1, -1, 0]]
    assert pruned.then(drop).index.tolist() == [[0, -1, -1]]
    # known for the whole batch: one image that loses a token is enough
    assert Assignment.from_index(torch.tensor([[0, 1, 1], [1, -1, 0]])).drops


@given(assignments())
def test_a_hand_made_assignment_knows_whether_it_prunes(a):
    assert a.drops is not a.is_total


@given(chains(2))
def test_a_composition_says_so_wherever_it_prunes(chain):
    a, b = chain
    assert a.then(b).drops == (a.drops or b.drops)
    assert a.then(b).drops or a.then(b).is_total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(st.data(), st.integers(0, 2**32))
def test_where_nothing_is_pruned_it_does_not_matter_whether_it_might_be(dtype, data, seed):
    # float32 is added up one by one, bfloat16 by a product
    a = data.draw(assignments(least=0))
    later = data.draw(assignments(tokens=a.groups, batch=a.batch))
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(a.batch, a.tokens, 3, generator=draw).to(dtype)
    weight = torch.rand(a.batch, a.tokens, generator=draw)
    might, later_might = replace(a, drops=True), replace(later, drops=True)
    for one, other in ((might, later), (a, later_might), (might, later_might)):
        assert same(one.then(other), a.then(later))
        assert one.then(other).drops
    assert torch.equal(merge(x, a), merge(x, might))
    assert torch.equal(merge(x, a, weight), merge(x, might, weight))
    assert torch.equal(sum_by_group(x, a), sum_by_group(x, might))
    assert torch.equal(sum_by_group(weight, a), sum_by_group(weight, might))
    assert torch.equal(unmerge(merge(x, a), a), unmerge(merge(x, a), might))
    assert torch.equal(a.sizes, might.sizes)
