"""Merging: the only place where features move."""

import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import one_hot

from batvit.core import Assignment, assign, merge, sum_by_group, unmerge
from batvit.core.merge import by_product

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SEEDS = st.integers(0, 2**32)


def random_case(seed, pruned=True):
    """Two images of 8 tokens in 3 groups, features (2, 8, 5), and weights, some of them zero."""
    draw = torch.Generator().manual_seed(seed)
    rows = [
        torch.cat([torch.arange(3), torch.randint(-1 if pruned else 0, 3, (5,), generator=draw)])
        for _ in range(2)
    ]
    index = torch.stack([row[torch.randperm(8, generator=draw)] for row in rows])
    weight = torch.rand(2, 8, generator=draw) * torch.randint(0, 2, (2, 8), generator=draw)
    return torch.randn(2, 8, 5, generator=draw), Assignment.from_index(index, 3), weight


def membership(a):
    """(B, M, N) in float64: 1 where a token is in a group."""
    return one_hot(a.index + 1, a.groups + 1)[..., 1:].transpose(1, 2).double()


def merge_by_matrix(x, a, weight):
    """The weighted mean as one product with a matrix whose rows add up to one."""
    member = membership(a)
    mass = member * weight.double().unsqueeze(1)
    mass = torch.where(mass.sum(dim=2, keepdim=True) > 0, mass, member)
    return mass / mass.sum(dim=2, keepdim=True) @ x.double()


def test_merge_by_hand():
    x = torch.tensor([[[1.0], [3.0], [10.0], [7.0]]])
    a = Assignment.from_index(torch.tensor([0, 0, 1, -1]))
    # (1 * 1 + 3 * 3) / (1 + 3) = 2.5; 10 stays alone; 7 is pruned
    assert merge(x, a, torch.tensor([[1.0, 3.0, 2.0, 9.0]])).tolist() == [[[2.5], [10.0]]]
    # (1 + 3) / 2 = 2 with equal weights, and with weights that are all zero
    assert merge(x, a).tolist() == [[[2.0], [10.0]]]
    assert merge(x, a, torch.zeros(1, 4)).tolist() == [[[2.0], [10.0]]]


def test_unmerge_by_hand():
    a = Assignment.from_index(torch.tensor([0, 0, 1, -1]))
    assert unmerge(torch.tensor([[[2.5], [10.0]]]), a).tolist() == [[[2.5], [2.5], [10.0], [0.0]]]


def test_a_pruned_token_gets_zeros_whatever_the_groups_hold():
    a = Assignment.from_index(torch.tensor([0, -1]))
    assert unmerge(torch.tensor([[[torch.inf]]]), a).tolist() == [[[torch.inf], [0.0]]]


def test_sum_by_group_by_hand():
    a = Assignment.from_index(torch.tensor([[0, 0, 1, -1], [1, 0, 1, 1]]))
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]])
    assert sum_by_group(values, a).tolist() == [[3.0, 4.0], [2.0, 13.0]]


@given(SEEDS)
def test_sum_by_group_is_a_product_with_the_membership(seed):
    x, a, weight = random_case(seed)
    torch.testing.assert_close(
        sum_by_group(x, a).double(), membership(a) @ x.double(), rtol=1e-5, atol=1e-5
    )
    expected = (membership(a) @ weight.double().unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(sum_by_group(weight, a).double(), expected, rtol=1e-5, atol=1e-5)


@given(SEEDS)
def test_merge_is_a_product_with_a_matrix(seed):
    x, a, weight = random_case(seed)
    torch.testing.assert_close(
        merge(x, a, weight).double(), merge_by_matrix(x, a, weight), rtol=1e-5, atol=1e-5
    )
    equal = torch.ones_like(weight)
    torch.testing.assert_close(
        merge(x, a).double(), merge_by_matrix(x, a, equal), rtol=1e-5, atol=1e-5
    )


@given(SEEDS)
def test_gradients_are_those_of_the_matrix(seed):
    x, a, weight = random_case(seed)
    # far from zero, where a weight decides whether its group has any
    weight = weight + 0.1
    upstream = torch.linspace(-1, 1, 2 * 3 * 5).view(2, 3, 5)
    found = [t.clone().requires_grad_() for t in (x, weight)]
    expected = [t.double().requires_grad_() for t in (x, weight)]
    merge(found[0], a, found[1]).backward(upstream)
    merge_by_matrix(expected[0], a, expected[1]).backward(upstream.double())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(SEEDS)
def test_gradients_are_finite_without_any_weight(dtype, seed):
    x, a, _ = random_case(seed)
    x, weight = x.to(dtype).requires_grad_(), torch.zeros(2, 8, dtype=dtype).requires_grad_()
    merge(x, a, weight).float().sum().backward()
    # each of the kept tokens is a share of its group
    expected = a.kept / a.sizes.gather(1, a.index.clamp(min=0))
    torch.testing.assert_close(x.grad[..., 0].float(), expected, rtol=0.01, atol=0.01)
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(
    SEEDS,
    st.lists(st.sampled_from([0.0, 1e-45, 1e-38, 6e-8, 1e-3, 1.0, 6e4]), min_size=16, max_size=16),
)
def test_a_group_lies_within_its_members(dtype, seed, weights):
    x, a, _ = random_case(seed)
    x = x.to(dtype)
    y = merge(x, a, torch.tensor(weights).view(2, 8).to(dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()
    member = membership(a).bool().unsqueeze(-1)
    lowest = x.unsqueeze(1).masked_fill(~member, torch.inf).amin(dim=2)
    highest = x.unsqueeze(1).masked_fill(~member, -torch.inf).amax(dim=2)
    slack = 4 * torch.finfo(dtype).eps
    assert (y >= lowest - slack).all()
    assert (y <= highest + slack).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_numbers_do_not_overflow(dtype):
    largest = torch.finfo(torch.float16).max
    a = Assignment.from_index(torch.zeros(1, 300, dtype=torch.long))
    x = torch.full((1, 300, 1), largest, dtype=dtype)
    torch.testing.assert_close(merge(x, a, x[..., 0]), x[:, :1])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@given(SEEDS)
def test_half_precision_is_summed_in_float32_with_shares_of_its_own_type(dtype, seed):
    x, a, weight = random_case(seed)
    x, weight = x.to(dtype), weight.to(dtype)
    found, expected = merge(x, a, weight), merge_by_matrix(x, a, weight)
    assert found.dtype == dtype
    # each share is rounded once, the mean once, either by half an eps; a little more for sums in
    # float32 and tiny shares
    largest = (membership(a).unsqueeze(-1) * x.double().abs().unsqueeze(1)).amax(dim=2)
    assert ((found - expected).abs() <= 1.02 * torch.finfo(dtype).eps * largest).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(SEEDS)
def test_a_group_without_weight_is_a_plain_mean(dtype, seed):
    x, a, weight = random_case(seed)
    x, weight = x.to(dtype), weight.to(dtype) + 1
    weightless = torch.where(a.index == 0, 0, weight)
    found = merge(x, a, weightless)
    assert torch.equal(found[:, 0], merge(x, a)[:, 0])
    assert torch.equal(found[:, 1:], merge(x, a, weight)[:, 1:])


@pytest.mark.parametrize("keep_norm", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(SEEDS)
def test_a_token_that_stays_alone_stays_what_it_is(dtype, keep_norm, seed):
    x, _, weight = random_case(seed)
    x = x.to(dtype)
    # token 0 of each image is alone, the others are together, or two of them pruned
    for others in (0, -1):
        a = Assignment.from_index(torch.tensor([[1, 0, 0, 0, 0, 0, others, others]] * 2))
        assert a.drops == (others < 0)
        assert torch.equal(merge(x, a, weight, keep_norm=keep_norm)[:, 1], x[:, 0])
        assert torch.equal(merge(x, a, keep_norm=keep_norm)[:, 1], x[:, 0])


@pytest.mark.parametrize("product", [False, True])
def test_a_group_may_keep_the_length_of_its_members(monkeypatch, product):
    monkeypatch.setattr(sys.modules["batvit.core.merge"], "by_product", lambda x: product)
    # lengths 4 and 2 at a right angle, weighted 1 to 3; two that cancel out; one pruned
    x = torch.tensor([[[4.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, -1.0], [9.0, 9.0]]])
    a = Assignment.from_index(torch.tensor([[0, 0, 1, 1, -1]]))
    weight = torch.tensor([[1.0, 3.0, 1.0, 1.0, 5.0]])
    found = merge(x, a, weight, keep_norm=True)
    direction = torch.tensor([1.0, 1.5]) / torch.tensor([1.0, 1.5]).norm()
    torch.testing.assert_close(found[0, 0], 2.5 * direction)
    assert found[0, 1].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(SEEDS)
def test_kept_lengths_have_no_other_direction_and_give_gradients(dtype, seed):
    x, a, weight = random_case(seed)
    x = x.to(dtype).requires_grad_()
    mean, found = merge(x, a, weight), merge(x, a, weight, keep_norm=True)
    assert found.dtype == dtype
    cosine = torch.nn.functional.cosine_similarity(mean.float(), found.float(), dim=2)
    torch.testing.assert_close(
        cosine, torch.ones_like(cosine), rtol=0, atol=0.02 if dtype == torch.bfloat16 else 1e-3
    )
    wanted = merge(x.float().norm(dim=2, keepdim=True), a, weight)
    torch.testing.assert_close(
        found.float().norm(dim=2, keepdim=True), wanted, rtol=0.02, atol=0.01
    )
    (gradient,) = torch.autograd.grad(found.float().sum(), x)
    assert bool(gradient.isfinite().all())


@given(SEEDS)
def test_sizes_add_up_to_the_tokens(seed):
    x, a, _ = random_case(seed, pruned=False)
    sizes = sum_by_group(torch.ones_like(x[..., 0]), a)
    assert torch.equal(sizes, a.sizes.float())
    assert sizes.sum(dim=1).tolist() == [8.0, 8.0]


@given(SEEDS)
def test_weighted_mass_is_conserved(seed):
    x, a, weight = random_case(seed, pruned=False)
    mass = sum_by_group(weight, a).unsqueeze(-1) * merge(x, a, weight)
    torch.testing.assert_close(
        mass.sum(dim=1), (weight.unsqueeze(-1) * x).sum(dim=1), rtol=1e-4, atol=1e-5
    )


@given(SEEDS)
def test_merging_by_size_in_two_steps_is_merging_at_once(seed):
    x, first, _ = random_case(seed)
    second = Assignment.from_index(torch.tensor([[0, 1, 1], [1, 0, -1]]), 2)
    in_two = merge(merge(x, first), second, first.sizes.float())
    torch.testing.assert_close(in_two, merge(x, first.then(second)), rtol=1e-4, atol=1e-5)


@given(SEEDS)
def test_merging_what_was_unmerged_changes_nothing(seed):
    x, a, weight = random_case(seed)
    y = merge(x, a, weight)
    back = unmerge(y, a)
    torch.testing.assert_close(merge(back, a, weight), y)
    torch.testing.assert_close(unmerge(merge(back, a, weight), a), back)
    assert not back[~a.kept].any()


@given(SEEDS, st.permutations(range(8)))
def test_the_order_of_the_tokens_does_not_matter(seed, order):
    x, a, weight = random_case(seed)
    moved = Assignment.from_index(a.index[:, order], a.groups)
    torch.testing.assert_close(merge(x[:, order], moved, weight[:, order]), merge(x, a, weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(SEEDS)
def test_identity_leaves_the_tokens_as_they_are(dtype, seed):
    x = random_case(seed)[0].to(dtype)
    alone = Assignment.identity(2, 8)
    assert torch.equal(merge(x, alone), x)
    assert torch.equal(unmerge(x, alone), x)


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device; the sums are a matrix product only there"
)
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@given(SEEDS)
def test_on_cuda_the_sums_are_the_same_every_time(autocast, seed):
    x, a, weight = random_case(seed)
    there = replace(a, index=a.index.cuda())
    for values in (x, weight):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            found, again = (sum_by_group(values.cuda(), there) for _ in range(2))
        assert torch.equal(found, again)
        torch.testing.assert_close(found.cpu(), sum_by_group(values, a), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        merge(x.cuda(), there, weight.cuda()).cpu(), merge(x, a, weight), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", torch.float32, False),
        ("cpu", torch.bfloat16, True),
        *((device, torch.float32, True) for device in ("cuda", "xpu", "mps")),
        # where counts are taken
        ("meta", torch.float32, False),
        ("meta", torch.bfloat16, False),
    ],
    ids=str,
)
def test_only_a_cpu_adds_in_a_fixed_order(device, dtype, expected):
    # tensors without memory, of devices that need not be there
    with FakeTensorMode():
        assert by_product(torch.empty(2, 3, dtype=dtype, device=device)) == expected


def test_autocast_does_not_shorten_the_product_that_merges(monkeypatch):
    # as on CUDA, and in a graph
    monkeypatch.setattr(sys.modules["batvit.core.merge"], "by_product", lambda x: True)
    x, a, weight = random_case(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = merge(x, a, weight)
        alone = merge(x, Assignment.identity(2, 8))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, merge(x, a, weight))
    assert torch.equal(alone, x)


@pytest.mark.parametrize("product", [False, True])
def test_an_empty_batch_stays_empty(monkeypatch, product):
    monkeypatch.setattr(sys.modules["batvit.core.merge"], "by_product", lambda x: product)
    x = torch.zeros(0, 8, 3)
    a = assign(x, torch.zeros(0, 8), attentive=4, pairs=1, centres=2)
    assert merge(x, a, torch.zeros(0, 8)).shape == (0, 5, 3)
    assert sum_by_group(torch.zeros(0, 8), a).shape == (0, 5)


def test_a_hand_made_assignment_may_prune():
    x = torch.arange(1.0, 7.0).view(2, 3, 1)
    a = Assignment(torch.tensor([[0, -1, 1], [1, 0, -1]]), 2)
    assert merge(x, a).flatten().tolist() == [1, 3, 5, 4]
    assert unmerge(merge(x, a), a).flatten().tolist() == [1, 0, 3, 4, 5, 0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; no other has TF32")
@pytest.mark.parametrize("keep_norm", [False, True])
def test_on_cuda_tf32_leaves_alone_what_stays_alone(keep_norm):
    before = torch.get_float32_matmul_precision()
    x, a, weight = random_case(0)
    there = replace(a, index=a.index.cuda())
    alone = a.sizes == 1
    try:
        torch.set_float32_matmul_precision("high")
        found = merge(x.cuda(), there, weight.cuda(), keep_norm=keep_norm).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found[alone], merge(x, a, weight, keep_norm=keep_norm)[alone])
