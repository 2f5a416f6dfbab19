"""Clusters of inattentive tokens."""

from itertools import pairwise
from math import dist, exp

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from batvit.core import cluster
from batvit.core.cluster import HUGE, log_density, separation, squared_distances

# five tokens on a line; the squared distances of each to all, added up, are 2.54, 2.07, 1.43, 2.34,
# 3.50
LINE = torch.tensor([0.0, 0.1, 0.3, 1.0, 1.2]).view(1, 5, 1)


def random_tokens(seed, tokens, batch=1, channels=4):
    return torch.randn(batch, tokens, channels, generator=torch.Generator().manual_seed(seed))


def partition(labels):
    """Which tokens are together, whatever the groups are called."""
    return [[a == b for a in labels] for b in labels]


def test_density_by_hand():
    # exp(-mean / 1): 0.602, 0.661, 0.751, 0.626, 0.497
    rho = log_density(squared_distances(LINE), width=1, neighbours=None).exp()
    torch.testing.assert_close(
        rho, torch.tensor([[exp(-s / 5) for s in (2.54, 2.07, 1.43, 2.34, 3.50)]])
    )


def test_density_over_the_nearest_two_by_hand():
    # the token itself is the nearest, at 0; the next lies 0.1, 0.1, 0.2, 0.2, 0.2 away
    rho = log_density(squared_distances(LINE), width=1, neighbours=2).exp()
    torch.testing.assert_close(
        rho, torch.tensor([[exp(-d * d / 2) for d in (0.1, 0.1, 0.2, 0.2, 0.2)]])
    )


def test_density_takes_the_width_out():
    squared = squared_distances(LINE)
    assert torch.equal(
        log_density(4 * squared, width=4, neighbours=None),
        log_density(squared, width=1, neighbours=None),
    )


def test_separation_by_hand():
    # the densest is token 2, far from any denser; 1 is 0.2 from it; 3 is 0.7 from it; 0 is 0.1 from
    # 1; 4 is 0.2 from 3
    squared = squared_distances(LINE)
    delta = separation(squared, log_density(squared, width=1, neighbours=None))
    torch.testing.assert_close(delta[0, [0, 1, 3, 4]], torch.tensor([0.1, 0.2, 0.7, 0.2]).square())
    assert delta[0, 2] >= HUGE / 2


def test_of_equally_dense_tokens_the_first_is_denser():
    squared = squared_distances(torch.tensor([[[0.0], [3.0]]]))
    delta = separation(squared, torch.ones(1, 2))
    # token 0 is the densest, token 1 lies 3 from it
    assert delta[0, 1] == 9
    assert delta[0, 0] >= HUGE / 2


def test_which_of_many_is_denser_does_not_hang_on_the_digits_of_a_distance():
    # bfloat16 has eight
    delta = separation(
        torch.ones(1, 300, 300, dtype=torch.bfloat16), torch.arange(300.0).view(1, 300)
    )
    assert (delta[0, :-1] == 1).all()
    assert delta[0, -1] >= HUGE / 2


@pytest.mark.unchecked
def test_a_graph_compares_where_the_other_way_sorts():
    graph = torch.compile(separation, backend="eager", fullgraph=True)
    # of nine densities among 25 tokens many are equal; the last image is padding but for one token
    density = torch.randint(9, (8, 25), generator=torch.Generator().manual_seed(0)).float()
    density[-1, 1:] = -torch.inf
    squared = squared_distances(random_tokens(0, 25, batch=8, channels=3))
    found, expected = graph(squared, density), separation(squared, density)
    densest = expected >= HUGE / 2
    assert densest.sum() == 8
    assert (found[densest] == HUGE).all()
    assert torch.equal(found[~densest], expected[~densest])


@pytest.mark.parametrize("neighbours", [None, 2, 3, 14])
@pytest.mark.parametrize("seed", range(5))
def test_padding_sways_no_choice(neighbours, seed):
    x = random_tokens(seed, 12, batch=2) + 0.5
    expected = cluster(x, 4, neighbours=neighbours).index
    real = torch.ones(2, 17, dtype=torch.bool)
    real[:, [3, 4, 9, 15, 16]] = False
    padded = torch.zeros(2, 17, 4).masked_scatter(real.unsqueeze(-1), x)
    assert torch.equal(
        cluster(padded, 4, neighbours=neighbours, real=real).index[real], expected.flatten()
    )
    assert not torch.equal(
        cluster(padded, 4, neighbours=neighbours).index[real], expected.flatten()
    )


def test_padding_does_not_round_the_distances_of_others():
    x = (random_tokens(0, 12) + 50).bfloat16()
    real = (torch.arange(60) < 12).unsqueeze(0)
    padded = torch.cat([x, torch.zeros(1, 48, 4, dtype=torch.bfloat16)], dim=1)
    torch.testing.assert_close(
        squared_distances(padded, real)[:, :12, :12], squared_distances(x), rtol=0.05, atol=0.05
    )


def test_padding_is_a_cluster_where_nothing_else_is_left():
    real = torch.tensor([[True, False, False]])
    assert cluster(torch.tensor([[[1.0], [0.0], [0.0]]]), 2, neighbours=2, real=real).index[
        0
    ].tolist() == [0, 1, 0]


def scores_as_published(x, neighbours):
    """log(rho_i * delta_i) of the tokens (N, C) in float64.

    Where delta of the densest is its largest distance.
    """
    x = x.double()
    squared = (x.unsqueeze(0) - x.unsqueeze(1)).square().sum(dim=-1)
    log_rho = -squared.sort(dim=1).values[:, :neighbours].mean(dim=1) / x.shape[1]
    delta = []
    for i, row in enumerate(squared.sqrt()):
        # of two equally dense tokens that of lower index counts as denser
        denser = [row[j] for j in range(len(x)) if (-log_rho[j], j) < (-log_rho[i], i)]
        delta.append(min(denser) if denser else row.max())
    return log_rho + torch.stack(delta).log()


@pytest.mark.parametrize("neighbours", [None, 2, 3])
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_the_centres_are_those_of_the_published_definition(neighbours, seed, centres):
    # sixteenths, whose squares float32 adds without rounding: over two neighbours, those nearest to
    # each other tie
    x = (16 * random_tokens(seed, 9)).round() / 16
    score = scores_as_published(x[0], neighbours)
    ordered = score.sort(descending=True)
    # scores that differ by rounding alone may change places
    assume((ordered.values.diff() < -1e-5).all())
    found = cluster(x, centres, neighbours=neighbours).index[0]
    assert found[ordered.indices[:centres]].tolist() == list(range(centres))


@given(st.integers(3, 9), st.data())
def test_the_density_over_two_is_a_minimum_also_where_tokens_coincide(tokens, data):
    # few places, so that tokens coincide, and several are nearest
    point = st.tuples(st.integers(-2, 2), st.integers(-2, 2))
    found = data.draw(
        st.lists(st.lists(point, min_size=tokens, max_size=tokens), min_size=1, max_size=3)
    )
    squared = squared_distances(torch.tensor(found, dtype=torch.float32))
    before = squared.clone()
    expected = -squared.topk(2, largest=False).values.mean(dim=-1) / 3
    torch.testing.assert_close(log_density(squared, width=3, neighbours=2), expected)
    # every distance but that of a token to itself is left as it was
    others = ~torch.eye(tokens, dtype=torch.bool)
    assert torch.equal(squared[:, others], before[:, others])


def test_cluster_by_hand():
    # rho * delta: 0.060, 0.132, 0.676, 0.438, 0.099, so the centres are tokens 2, 3, 1, 4, 0, in
    # this order
    assert cluster(LINE, 1).index.tolist() == [[0, 0, 0, 0, 0]]
    assert cluster(LINE, 2).index.tolist() == [[0, 0, 0, 1, 1]]
    assert cluster(LINE, 3).index.tolist() == [[2, 2, 0, 1, 1]]
    assert cluster(LINE, 5).index.tolist() == [[4, 2, 0, 1, 3]]


@st.composite
def points(draw):
    """A few points of a coarse grid, so that many coincide; how many centres, and neighbours."""
    found = draw(
        st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=9)
    )
    return (
        [(x / 2, y / 2) for x, y in found],
        draw(st.integers(1, len(found))),
        draw(st.none() | st.integers(1, 9)),
    )


def score_by_loops(points, neighbours):
    squared = [[dist(p, q) ** 2 for q in points] for p in points]
    rho = []
    for row in squared:
        near = sorted(row)[:neighbours]
        rho.append(exp(-sum(near) / len(near) / 2))
    score = []
    for i, row in enumerate(squared):
        denser = [row[j] for j in range(len(points)) if (-rho[j], j) < (-rho[i], i)]
        score.append(rho[i] * (min(denser) if denser else max(row)) ** 0.5)
    return score


def cluster_by_loops(points, centres, score):
    centre = sorted(range(len(points)), key=lambda i: (-score[i], i))[:centres]
    nearest = [min(range(centres), key=lambda c: (dist(p, points[centre[c]]), c)) for p in points]
    return [centre.index(i) if i in centre else nearest[i] for i in range(len(points))]


@given(points())
def test_cluster_is_what_loops_find(case):
    points, centres, neighbours = case
    score = score_by_loops(points, neighbours)
    # scores that differ by rounding alone may change places
    ordered = sorted(set(score))
    assume(all(high - low > 1e-5 for low, high in pairwise(ordered)))
    found = cluster(torch.tensor([points]), centres, neighbours=neighbours)
    assert found.index.tolist() == [cluster_by_loops(points, centres, score)]


@given(points())
def test_no_cluster_is_empty_and_no_token_is_lost(case):
    points, centres, neighbours = case
    x = torch.tensor([points, points[::-1]])
    a = cluster(x, centres, neighbours=neighbours)
    assert (a.batch, a.tokens, a.groups) == (2, len(points), centres)
    assert a.is_total
    assert a.is_onto
    assert torch.equal(cluster(x, centres, neighbours=neighbours).index, a.index)


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_one_token_many_times_still_fills_every_cluster(seed, centres):
    x = random_tokens(seed, 1, batch=2, channels=16).expand(-1, 12, -1)
    a = cluster(x, centres)
    assert a.is_total
    assert a.is_onto


def test_ties_go_to_the_lower_index():
    # all alike: the first three are centres, and the others join the first of them
    assert cluster(torch.ones(1, 6, 2), 3).index.tolist() == [[0, 1, 2, 0, 0, 0]]
    assert cluster(torch.ones(1, 100, 2), 30).index.tolist() == [[*range(30), *[0] * 70]]
    # all equally dense, and each of the last two as far from token 0 as from token 1
    square = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    assert cluster(square, 2).index.tolist() == [[0, 1, 0, 0]]


@given(
    st.integers(0, 2**32),
    st.permutations(range(10)),
    st.integers(1, 10),
    st.none() | st.integers(3, 10),
)
def test_clusters_do_not_depend_on_the_order(seed, order, centres, neighbours):
    # over two neighbours, itself and another, tokens that are nearest to each other would tie
    x = random_tokens(seed, 10)
    straight = cluster(x, centres, neighbours=neighbours).index[0, order].tolist()
    assert partition(
        cluster(x[:, order], centres, neighbours=neighbours).index[0].tolist()
    ) == partition(straight)


@pytest.mark.parametrize("neighbours", [None, 2, 3])
def test_float16_is_measured_in_float32(neighbours):
    # the products of tokens as long as these overflow float16
    x = (1000 * random_tokens(0, 12)).half()
    assert torch.equal(squared_distances(x), squared_distances(x.float()))
    assert torch.equal(
        cluster(x, 4, neighbours=neighbours).index,
        cluster(x.float(), 4, neighbours=neighbours).index,
    )


def test_bfloat16_is_measured_up_to_the_rounding_of_a_product():
    x = random_tokens(0, 12, channels=64).bfloat16()
    found, expected = squared_distances(x), squared_distances(x.float())
    longest = x.float().square().sum(dim=-1).max()
    assert (found - expected).abs().max() <= 4 * 2**-9 * longest
    assert not torch.equal(found, expected)
    assert found.dtype == torch.float32
    assert (found.diagonal(dim1=1, dim2=2) == 0).all()


@pytest.mark.parametrize("offset", [0, 10, 100])
def test_what_all_tokens_have_in_common_does_not_sway_a_distance_in_bfloat16(offset):
    # every image has an offset of its own, many times as long as its tokens are far apart
    x = (
        random_tokens(0, 30, batch=3, channels=64)
        + offset * random_tokens(1, 1, batch=3, channels=64)
    ).bfloat16()
    expected = (
        torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
        .square()
        .float()
    )
    found = squared_distances(x)
    assert (found - expected).abs().max() <= expected.max() / 128
    assert torch.equal(found, found.transpose(1, 2))


def test_bfloat16_tokens_that_are_alike_stay_so():
    assert cluster(torch.full((1, 6, 2), 300.7).bfloat16(), 3).index.tolist() == [
        [0, 1, 2, 0, 0, 0]
    ]


def test_autocast_does_not_change_a_distance():
    x = random_tokens(0, 20, channels=64) + 3
    expected = squared_distances(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(squared_distances(x), expected)


def test_tokens_nearest_to_one_another_are_equally_dense_whatever_the_rounding():
    # added in another order, the norms of the last two would make the later one denser
    x = torch.tensor([0.8032760620117188, 0.17483338713645935, 0.08897809684276581]).view(1, 3, 1)
    assert cluster(x, 3, neighbours=2).index.tolist() == [[1, 0, 2]]
    squared = squared_distances(random_tokens(0, 98, batch=4, channels=384))
    assert torch.equal(squared, squared.transpose(1, 2))


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_two_clear_groups_are_found_at_any_scale(scale):
    # two tight groups of five, far apart whatever the unit
    near = 0.1 * random_tokens(0, 10, channels=64)
    x = scale * (near + torch.tensor([1.0] * 5 + [-1.0] * 5).view(1, 10, 1))
    assert partition(cluster(x, 2).index[0].tolist()) == partition([0] * 5 + [1] * 5)


def test_a_flop_counter_sees_the_distances():
    x = torch.ones(2, 5, 3)
    with FlopCounterMode(display=False) as counter:
        squared_distances(x)
    # two flops for each of the 3 channels, 5 x 5 pairs, 2 images
    assert counter.get_total_flops() == 2 * 3 * 5 * 5 * 2
