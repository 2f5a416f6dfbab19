"""How many tokens go on at every site."""

import itertools
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batvit.config import BATConfig
from batvit.plans import PLANS
from batvit.reduction.schedule import schedule

SITES = (3, 6, 9)


RATES = st.floats(0, 1, exclude_min=True) | st.integers(1, 1000).map(
    lambda thousandths: thousandths / 1000
)


@st.composite
def valid_fields(draw):
    """The fields of any valid configuration for 12 blocks."""
    sites = draw(st.integers(1, 4))
    a_site = {"min_size": sites, "max_size": sites}
    tokens = st.lists(st.integers(1, 196), **a_site).map(
        lambda values: tuple(sorted(values, reverse=True))
    )
    rate = RATES | st.lists(RATES, **a_site).map(tuple)
    many = (
        {"tokens": draw(tokens)} if draw(st.booleans()) else {"keep_rate": draw(st.none() | rate)}
    )
    return many | {
        "blocks": draw(
            st.lists(st.integers(0, 11), unique=True, **a_site).map(
                lambda values: tuple(sorted(values))
            )
        ),
        "method": draw(st.sampled_from(["bat", "topk"])),
        "centres": draw(st.floats(0, 1) | st.integers(0, 200)),
        "pairs": draw(st.floats(0, 0.5) | st.integers(0, 200)),
        "similarity": draw(st.sampled_from(["tokens", "keys"])),
        "matching": draw(st.sampled_from(["bipartite", "greedy"])),
        "importance_power": draw(st.floats(0, 2)),
        "neighbours": draw(st.none() | st.integers(1, 200)),
        "weight": draw(st.sampled_from(["importance", "size", "importance_size"])),
        "size_aware": draw(st.booleans()),
        "size_power": draw(st.floats(0.1, 2)),
        "prefix_only": draw(st.booleans()),
    }


PAPER = {
    0.7: (138, 97, 68),
    0.6: (116, 69, 41),
    0.5: (102, 53, 28),
    0.4: (84, 36, 15),
    0.3: (61, 19, 6),
    0.2: (42, 9, 2),
}


def outs(config, *, depth=12, patches=196):
    return tuple(counts.tokens_out for counts in schedule(config, depth=depth, patches=patches))


def check_schedule(sites, patches):
    """What holds at every site, whatever the configuration."""
    tokens = patches
    for counts in sites:
        assert counts.tokens_in == tokens
        assert counts.tokens_out == counts.attentive - counts.pairs + counts.centres
        assert 1 <= counts.tokens_out <= counts.tokens_in
        assert 0 <= 2 * counts.pairs <= counts.attentive
        inattentive = counts.tokens_in - counts.attentive
        assert 0 <= counts.centres <= inattentive
        # without a cluster nobody would take the inattentive
        assert counts.centres > 0 or inattentive == 0
        tokens = counts.tokens_out


def test_counts_by_hand():
    # 10 patches, half go on: 5. Clusters: 0.4 * 5 = 2. The other 3 groups are attentive: a quarter
    # of the attentive are merged away, so 3 = attentive - attentive / 4, attentive = 4, pairs = 1;
    # and 10 - 4 = 6 tokens are in the 2 clusters.
    (counts,) = schedule(
        BATConfig(keep_rate=0.5, blocks=(2,), centres=0.4, pairs=0.25), depth=4, patches=10
    )
    assert counts == (2, 10, 4, 1, 2, 5)
    assert counts._fields == ("block", "tokens_in", "attentive", "pairs", "centres", "tokens_out")


def test_where_few_tokens_are_lost_few_are_paired():
    # 196 * 0.95 = 186.2, so 187 go on and 9 are lost; clusters: 0.3 * 187 = 56; half of the
    # attentive in pairs would make 131 pairs, but only 9 can be lost; attentive = 187 - 56 + 9, and
    # the other 56 are clusters of one
    (counts,) = schedule(
        BATConfig(keep_rate=0.95, blocks=(0,), centres=0.3, pairs=0.5), depth=1, patches=196
    )
    assert counts[2:] == (140, 9, 56, 187)


def test_at_most_half_of_the_attentive_are_merged_away():
    # 10 go on, 4 of them clusters: 6 attentive groups, which 6 pairs make of 12 tokens; 7 pairs
    # would need 14 of 13
    (counts,) = schedule(
        BATConfig(tokens=(10,), blocks=(0,), centres=4, pairs=6), depth=1, patches=50
    )
    assert counts[2:] == (12, 6, 4, 10)
    with pytest.raises(
        ValueError,
        match=r"block 0: 7 pairs need 14 attentive tokens, there are 13; give fewer pairs",
    ):
        schedule(BATConfig(tokens=(10,), blocks=(0,), centres=4, pairs=7), depth=1, patches=50)


@given(RATES, st.integers(1, 700), st.floats(0, 1), st.floats(0, 0.5))
def test_shares_give_counts_that_hold_for_any_image(keep_rate, patches, centres, pairs):
    config = BATConfig(keep_rate=keep_rate, blocks=SITES, centres=centres, pairs=pairs)
    check_schedule(schedule(config, depth=12, patches=patches), patches)


@given(valid_fields(), st.integers(1, 700))
def test_counts_hold_or_are_refused_by_block(fields, patches):
    config = BATConfig(**fields)
    try:
        sites = schedule(config, depth=12, patches=patches)
    except ValueError as error:
        refusal = str(error)
    else:
        assert tuple(counts.block for counts in sites) == config.blocks
        if config.method == "bat":
            check_schedule(sites, patches)
        return
    assert any(refusal.startswith(f"block {block}: ") for block in config.blocks)
    # what to do about it comes last
    assert refusal.partition(";")[2]


@given(st.integers(1, 1000), st.integers(1, 700))
def test_a_keep_rate_gives_the_exact_ceiling(thousandths, patches):
    config = BATConfig(keep_rate=thousandths / 1000, blocks=(0,))
    assert outs(config, patches=patches) == (ceil(Fraction(thousandths, 1000) * patches),)


def test_each_site_may_have_its_own_rate():
    assert outs(BATConfig(keep_rate=(0.5, 1.0, 0.25), blocks=SITES)) == (98, 98, 25)


def test_given_tokens_are_the_tokens():
    assert outs(BATConfig(tokens=(127, 95, 63))) == (127, 95, 63)


def test_a_plan_that_drops_has_neither_pairs_nor_clusters():
    (counts,) = schedule(BATConfig(method="topk", keep_rate=0.5, blocks=(1,)), depth=2, patches=10)
    assert counts == (1, 10, 5, 0, 0, 5)


@pytest.mark.parametrize("keep_rate", PAPER)
def test_the_papers_counts_hold(keep_rate):
    config = BATConfig.preset("paper", keep_rate=keep_rate)
    check_schedule(schedule(config, depth=12, patches=196), 196)


def test_keeping_everything_is_the_identity():
    for counts in schedule(BATConfig(keep_rate=1.0), depth=12, patches=196):
        assert counts[1:] == (196, 196, 0, 0, 196)


@pytest.mark.parametrize(
    ("fields", "value", "remedy"),
    [
        # 138 outgoing, of which 41 are clusters, and 200 pairs: 297 attentive
        (
            {"tokens": (138,), "pairs": 200},
            "200 pairs need 400 attentive tokens, there are 297",
            "fewer pairs",
        ),
        ({"tokens": (138,), "centres": 139}, "139 centres", "give fewer"),
        (
            {"tokens": (138,), "centres": 0, "pairs": 0},
            "138 attentive tokens of 196 leave 58 for 0 centres",
            "change centres",
        ),
        ({"tokens": (138,), "pairs": 59}, "leave 40 for 41 centres", "change centres or pairs"),
        ({"tokens": (197,)}, "197 tokens cannot go on where 196 come in", "lower tokens"),
    ],
    ids=str,
)
def test_counts_that_do_not_fit_are_refused(fields, value, remedy):
    with pytest.raises(ValueError, match=r"^block 6: ") as caught:
        schedule(BATConfig(**fields), depth=12, patches=196)
    assert value in str(caught.value)
    assert remedy in str(caught.value)


def test_an_unknown_plan_is_refused():
    with pytest.raises(
        ValueError, match=r"method must be one of bat, topk, evit, random, ats, .*, got 'sinkhorn'"
    ):
        schedule(BATConfig(method="sinkhorn"), depth=12, patches=196)


@pytest.mark.parametrize(
    ("keep_rate", "align", "prefix", "expected"),
    [
        (0.7, 1, 1, [138, 97, 68]),
        (0.7, 16, 1, [143, 95, 63]),
        # 25 is less than four times 16, and than four times 8
        (0.5, 16, 1, [95, 47, 23]),
        (0.7, 16, 0, [144, 96, 64]),
        (0.7, 8, 5, [139, 99, 67]),
        (0.7, 32, 1, [127, 95, 63]),
        # halfway, the lower one
        (100 / 196, 8, 0, [96, 48, 24]),
        # a quarter of what is left, and less: 4 + 1, then 1 + 1
        (0.02, 16, 1, [4, 1, 1]),
        # 32 for 139 and 98, 16 for 68
        (0.7, 256, 1, [127, 95, 63]),
        # an eighth of 24
        (0.7, 24, 1, [143, 95, 71]),
        (1.0, 16, 1, [196, 196, 196]),
    ],
)
def test_counts_are_rounded_to_the_nearest_multiple(keep_rate, align, prefix, expected):
    config = BATConfig(keep_rate=keep_rate, align=align)
    assert [
        counts.tokens_out for counts in schedule(config, depth=12, patches=196, prefix=prefix)
    ] == expected


@pytest.mark.parametrize(
    "method", [name for name, plan in PLANS.items() if plan.max_reduction == 0.5]
)
def test_alignment_takes_no_more_away_than_a_method_can(method):
    # 100 of 200 would be rounded to 95, 10 of 20 to 7, and of 3 there are 2 without a multiple in
    # between
    config = BATConfig(keep_rate=0.5, align=16, method=method, blocks=(0,))
    for patches, expected in ((200, 111), (20, 11), (3, 2)):
        (counts,) = schedule(config, depth=12, patches=patches, prefix=1)
        assert counts.tokens_out == expected
    for patches in range(2, 400):
        assert all(
            2 * c.tokens_out >= c.tokens_in
            for c in schedule(config, depth=12, patches=patches, prefix=1)
        )


def test_a_rate_that_a_method_cannot_keep_stays_as_it_is():
    # for batvit.patch to refuse it
    config = BATConfig(keep_rate=0.3, align=16, method="tome", blocks=(0,))
    assert [counts.tokens_out for counts in schedule(config, depth=12, patches=196, prefix=1)] == [
        59
    ]


def test_explicit_counts_are_not_rounded():
    config = BATConfig(tokens=(101, 53, 7), align=16)
    assert [counts.tokens_out for counts in schedule(config, depth=12, patches=196, prefix=1)] == [
        101,
        53,
        7,
    ]


def test_aligned_counts_go_on_falling_at_many_sites():
    # of 127 tokens a rate of 0.9 leaves 115, and the nearest count that makes 128 with the class
    # token is 127 again
    config = BATConfig(keep_rate=0.9, align=16, blocks=tuple(range(1, 12)))
    counts = [site.tokens_out for site in schedule(config, depth=12, patches=196, prefix=1)]
    assert all(late < early for early, late in itertools.pairwise(counts))


def test_every_site_keeps_the_same_share_if_gradual_and_in_the_end_as_many_are_left_as_by_three():
    config = BATConfig(keep_rate=0.25, spread_sites=True)
    assert config.sites(12) == (3, 4, 5, 6, 7, 8)
    assert config.sites(24) == tuple(range(6, 18))
    tokens = [counts.tokens_out for counts in schedule(config, depth=12, patches=256)]
    assert tokens == [128, 64, 32, 16, 8, 4]
    given = config.with_fields(blocks=(3, 6, 9))
    assert [counts.tokens_out for counts in schedule(given, depth=12, patches=256)] == [64, 16, 4]
    assert schedule(given.with_fields(spread_sites=False), depth=12, patches=256) == schedule(
        given, depth=12, patches=256
    )
    aligned = schedule(BATConfig.preset("gradual", keep_rate=0.5), depth=12, patches=196, prefix=1)
    assert all((1 + counts.tokens_out) % 8 == 0 for counts in aligned)
    assert [
        c.tokens_out
        for c in schedule(BATConfig(keep_rate=1.0, spread_sites=True), depth=12, patches=196)
    ] == [196] * 6


def test_counts_that_are_given_are_not_made_gradual():
    config = BATConfig(tokens=(100, 50), spread_sites=True)
    assert [counts.tokens_out for counts in schedule(config, depth=12, patches=196)] == [100, 50]
    assert config.sites(12) == (4, 8)
