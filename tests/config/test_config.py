"""The configuration: its counts, its presets, its file, and what it refuses."""

import dataclasses
import itertools
import json
from fractions import Fraction
from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batvit.config.config import BATConfig
from batvit.plans import PLANS
from batvit.reduction.schedule import schedule

PAPER = {
    0.7: (138, 97, 68),
    0.6: (116, 69, 41),
    0.5: (102, 53, 28),
    0.4: (84, 36, 15),
    0.3: (61, 19, 6),
    0.2: (42, 9, 2),
}
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


# counts


def test_counts_by_hand():
    # 10 patches, half go on: 5. Clusters: 0.4 * 5 = 2. The other 3 groups are attentive: a quarter of the attentive are
    # merged away, so 3 = attentive - attentive / 4, attentive = 4, pairs = 1; and 10 - 4 = 6 tokens are in the 2 clusters.
    (counts,) = schedule(
        BATConfig(keep_rate=0.5, blocks=(2,), centres=0.4, pairs=0.25), depth=4, patches=10
    )
    assert counts == (2, 10, 4, 1, 2, 5)
    assert counts._fields == ("block", "tokens_in", "attentive", "pairs", "centres", "tokens_out")


def test_where_few_tokens_are_lost_few_are_paired():
    # 196 * 0.95 = 186.2, so 187 go on and 9 are lost; clusters: 0.3 * 187 = 56; half of the attentive in pairs would make
    # 131 pairs, but only 9 can be lost; attentive = 187 - 56 + 9, and the other 56 are clusters of one
    (counts,) = schedule(
        BATConfig(keep_rate=0.95, blocks=(0,), centres=0.3, pairs=0.5), depth=1, patches=196
    )
    assert counts[2:] == (140, 9, 56, 187)


def test_at_most_half_of_the_attentive_are_merged_away():
    # 10 go on, 4 of them clusters: 6 attentive groups, which 6 pairs make of 12 tokens; 7 pairs would need 14 of 13
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


def test_keeping_everything_is_the_identity():
    for counts in schedule(BATConfig(keep_rate=1.0), depth=12, patches=196):
        assert counts[1:] == (196, 196, 0, 0, 196)


# sites


@pytest.mark.parametrize(
    ("depth", "sites"), [(12, (3, 6, 9)), (24, (6, 12, 18)), (4, (1, 2, 3)), (7, (1, 3, 5))]
)
def test_default_sites_are_the_quarters_of_the_depth(depth, sites):
    assert BATConfig().sites(depth) == sites


@given(st.integers(1, 8), st.integers(1, 40))
def test_default_sites_rise_within_the_model(sites, more):
    depth = sites + more
    found = BATConfig(keep_rate=(0.9,) * sites).sites(depth)
    assert len(found) == sites
    assert sorted(set(found)) == list(found)
    assert found[0] > 0
    assert found[-1] < depth


def test_a_model_too_shallow_is_refused():
    with pytest.raises(
        ValueError, match=r"3 default sites need more than 3 blocks, the model has 3; give blocks"
    ):
        BATConfig().sites(3)


def test_a_block_beyond_the_model_is_refused():
    with pytest.raises(
        ValueError, match=r"blocks must lie in 0 .. 11 for a model of 12 blocks, got 12"
    ):
        BATConfig(blocks=(3, 12)).sites(12)


# presets


@pytest.mark.parametrize(("keep_rate", "tokens"), PAPER.items())
def test_the_paper_preset_has_the_papers_totals(keep_rate, tokens):
    config = BATConfig.preset("paper", keep_rate=keep_rate)
    assert outs(config) == tokens
    check_schedule(schedule(config, depth=12, patches=196), 196)


@pytest.mark.parametrize("mode", ["training-free", "training-free"])
def test_the_training_free_preset_takes_a_rate_as_it_is(mode):
    assert outs(BATConfig.preset(mode, keep_rate=0.7, align=1)) == (138, 97, 68)
    assert outs(BATConfig.preset(mode, keep_rate=0.5, align=1)) == (98, 49, 25)


@pytest.mark.parametrize("tokens", PAPER.values(), ids=str)
def test_the_papers_fractions_scale_to_other_images(tokens):
    keep_rate = {v: k for k, v in PAPER.items()}[tokens]
    expected, patches = [], 576
    for before, after in zip((196, *tokens), tokens, strict=False):
        patches = ceil(Fraction(after, before) * patches)
        expected.append(patches)
    assert outs(BATConfig.preset("paper", keep_rate=keep_rate), patches=576) == tuple(expected)


def test_the_paper_preset_may_be_gradual():
    assert BATConfig.preset("paper", keep_rate=0.7, spread_sites=True).keep_rate == 0.7


def test_the_papers_fractions_at_384_pixels_by_hand():
    # 576 * 138 / 196 = 405.6; 406 * 97 / 138 = 285.4; 286 * 68 / 97 = 200.5
    assert outs(BATConfig.preset("paper", keep_rate=0.7), patches=576) == (406, 286, 201)


@pytest.mark.parametrize("blocks", [(3, 6), (2, 4, 6, 8)])
def test_with_other_sites_the_rate_is_taken_as_it_is(blocks):
    assert BATConfig.preset("paper", keep_rate=0.7, blocks=blocks).keep_rate == 0.7


def test_another_rate_is_a_ceiling_at_each_site():
    # 196 * 0.65 = 127.4; 128 * 0.65 = 83.2; 84 * 0.65 = 54.6
    assert outs(BATConfig.preset("paper", keep_rate=0.65)) == (128, 84, 55)


def test_what_was_saved_before_there_were_powers_and_prefix_only_stays_what_it_was():
    fields = BATConfig(keep_rate=0.6, size_aware=True).to_dict()
    del fields["size_power"], fields["importance_power"], fields["prefix_only"]
    found = BATConfig.from_dict(fields)
    assert (found.size_power, found.importance_power, found.prefix_only) == (1.0, 0.0, False)


def test_presets_say_how_members_are_weighted():
    paper, free = BATConfig.preset("paper"), BATConfig.preset("training-free")
    assert (paper.weight, paper.size_aware) == ("importance", False)
    assert (free.weight, free.size_aware, free.centres, free.neighbours) == (
        "importance",
        True,
        0.5,
        2,
    )
    gradual = BATConfig.preset("gradual")
    assert [config.size_power for config in (paper, free, gradual)] == [1.0, 1.0, 0.8]
    assert [config.importance_power for config in (paper, free, gradual)] == [0.0, 0.0, 0.25]
    assert [config.prefix_only for config in (paper, free, gradual)] == [False, False, True]
    assert (paper.align, free.align) == (1, 16)
    assert BATConfig.preset() == free
    assert BATConfig.preset("paper", weight="size").weight == "size"


def test_the_default_rate_is_the_same_given_or_not():
    assert BATConfig().keep_rate == 0.7
    assert (
        BATConfig.preset("paper")
        == BATConfig.preset("paper", keep_rate=0.7)
        == BATConfig.preset("paper", keep_rate=None)
    )


def test_a_preset_takes_tokens_instead_of_a_rate():
    config = BATConfig.preset("paper", tokens=(100, 50))
    assert config.keep_rate is None
    assert outs(config) == (100, 50)


# what is refused: the fields, the error, the value in its message, and the remedy

REFUSED = [
    ({"keep_rate": 0}, ValueError, "got 0;", "(0, 1]"),
    ({"keep_rate": 2}, ValueError, "got 2;", "(0, 1]"),
    ({"keep_rate": nan}, ValueError, "got nan", "(0, 1]"),
    ({"keep_rate": inf}, ValueError, "got inf", "(0, 1]"),
    ({"keep_rate": -0.1}, ValueError, "got -0.1", "(0, 1]"),
    ({"keep_rate": (0.7, 0.0)}, ValueError, "got 0.0", "(0, 1]"),
    ({"keep_rate": "0.7"}, TypeError, "'0.7' (str)", "must be a number"),
    ({"keep_rate": True}, TypeError, "True (bool)", "must be a number"),
    ({"keep_rate": (0.7, None)}, TypeError, "None", "must be a number"),
    ({"keep_rate": ()}, (TypeError, ValueError), "()", "keep_rate"),
    ({"keep_rate": 0.7, "tokens": (9,)}, ValueError, "0.7 and (9,)", "not both"),
    ({"tokens": (0,)}, ValueError, "got 0", "at least one token"),
    ({"tokens": (9, 10)}, ValueError, "(9, 10)", "cannot grow"),
    ({"tokens": 9}, TypeError, "got 9", "tuple of integers"),
    ({"tokens": "9"}, TypeError, "got '9'", "tuple of integers"),
    ({"tokens": ()}, TypeError, "got ()", "one a site"),
    ({"tokens": (9.0,)}, TypeError, "9.0 (float)", "integers"),
    ({"tokens": (True,)}, TypeError, "True (bool)", "integers"),
    ({"blocks": (-1, 3)}, ValueError, "got -1", "count from 0"),
    ({"blocks": (6, 3)}, ValueError, "(6, 3)", "sort them"),
    ({"blocks": (3, 3)}, ValueError, "(3, 3)", "name each once"),
    ({"blocks": ()}, TypeError, "got ()", "one a site"),
    ({"blocks": 3}, TypeError, "got 3", "tuple of integers"),
    ({"blocks": ("3",)}, TypeError, "'3' (str)", "integers"),
    ({"blocks": (3, 6), "keep_rate": (0.7,)}, ValueError, "(0.7,)", "one value a site"),
    ({"blocks": (3, 6), "tokens": (9, 8, 7)}, ValueError, "(9, 8, 7)", "one value a site"),
    ({"keep_rate": 10**400}, ValueError, "got 1000", "(0, 1]"),
    ({"size_power": 10**400}, ValueError, "got 1000", "(0, 2]"),
    ({"centres": -1}, ValueError, "got -1", "count from 0 up"),
    ({"centres": -0.1}, ValueError, "got -0.1", "0.0 .. 1.0"),
    ({"centres": 1.5}, ValueError, "got 1.5", "0.0 .. 1.0"),
    ({"centres": nan}, ValueError, "got nan", "0.0 .. 1.0"),
    ({"centres": "3"}, TypeError, "'3' (str)", "must be a number"),
    ({"centres": None}, TypeError, "None", "must be a number"),
    ({"pairs": -1}, ValueError, "got -1", "count from 0 up"),
    ({"pairs": 0.6}, ValueError, "got 0.6", "0.0 .. 0.5"),
    ({"pairs": nan}, ValueError, "got nan", "0.0 .. 0.5"),
    ({"pairs": True}, TypeError, "True (bool)", "must be a number"),
    ({"align": 0}, ValueError, "got 0", "1 aligns nothing"),
    ({"align": 16.0}, TypeError, "16.0 (float)", "integers"),
    ({"align": None}, TypeError, "None", "integers"),
    ({"neighbours": 0}, ValueError, "got 0", "a high one takes all"),
    ({"neighbours": 2.5}, TypeError, "2.5 (float)", "integers"),
    ({"size_aware": 1}, TypeError, "got 1", "True or False"),
    ({"method": 3}, TypeError, "got 3 (int)", "the name of a plan"),
    ({"similarity": "values"}, ValueError, "'values'", "tokens, keys"),
    ({"matching": ""}, ValueError, "''", "bipartite, greedy"),
    ({"weight": "sizes"}, ValueError, "'sizes'", "importance, size, importance_size"),
    ({"keeprate": 0.7}, ValueError, "'keeprate'", "the fields are keep_rate, tokens, blocks"),
]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("fields", "kind", "value", "remedy"), REFUSED, ids=[str(row[0]) for row in REFUSED]
)
def test_a_bad_value_is_refused_with_the_value_and_a_remedy(fields, kind, value, remedy):
    with pytest.raises(kind, match=next(iter(fields))) as caught:
        BATConfig.from_dict(fields)
    assert value in str(caught.value)
    assert remedy in str(caught.value)


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        ValueError, match=r"mode must be one of paper, training-free, gradual, got 'fast'"
    ):
        BATConfig.preset("fast")


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
        ValueError, match="method must be one of bat, topk, evit, random, ats, .*, got 'sinkhorn'"
    ):
        schedule(BATConfig(method="sinkhorn"), depth=12, patches=196)


# the value


@pytest.mark.unchecked
def test_lists_and_whole_numbers_are_as_good():
    assert BATConfig(keep_rate=[0.5, 0.5], blocks=[3, 6]) == BATConfig(
        keep_rate=(0.5, 0.5), blocks=(3, 6)
    )


def test_a_configuration_is_frozen_and_hashable():
    config = BATConfig(keep_rate=(0.5, 0.5), blocks=(3, 6))
    assert len({config, BATConfig(keep_rate=(0.5, 0.5), blocks=(3, 6))}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.blocks = (1, 2)


def test_replacing_a_field_checks_it():
    with pytest.raises(ValueError, match=r"neighbours must be 1 or more, got 0"):
        dataclasses.replace(BATConfig(), neighbours=0)


# the file


@given(valid_fields())
def test_json_gives_the_configuration_back(fields):
    config = BATConfig(**fields)
    assert BATConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("keep_rate", [*PAPER, 0.65])
def test_a_file_gives_the_configuration_back(tmp_path, keep_rate):
    config = BATConfig.preset("paper", keep_rate=keep_rate)
    assert BATConfig.load(config.save(tmp_path / "config.json")) == config


def test_a_checkpoint_has_its_configuration_beside_it(tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    assert BATConfig.path_beside(checkpoint) == tmp_path / "model.batvit.json"
    assert BATConfig.beside(checkpoint) is None
    BATConfig(keep_rate=0.5).save(BATConfig.path_beside(checkpoint))
    assert BATConfig.beside(str(checkpoint)) == BATConfig(keep_rate=0.5)


@pytest.mark.parametrize("fields", [[], None, 7, "bat"])
def test_what_has_no_fields_is_refused(fields):
    with pytest.raises(TypeError, match=f"JSON object, found {type(fields).__name__}"):
        BATConfig.from_dict(fields)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"keep_rate": 0.', "not a JSON file"),
        (b"", "not a JSON file"),
        (b"\xff\xfe\x00", "not a JSON file"),
        (b"[0.7]", "JSON object, found list"),
        (b"null", "JSON object, found NoneType"),
        (b'{"keep_rate": 2}', "got 2"),
        (b'{"keep_rate": NaN}', "got nan"),
        (b'{"keep_rate": {"a": 1}}', "must be a number"),
        (b'{"blocks": [3.0]}', "3.0 (float)"),
        (b'{"keep": 0.7}', "unknown field 'keep'"),
        (b'{"method": ["bat"]}', "['bat']"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        BATConfig.load(path)
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.json: no such file"):
        BATConfig.load(tmp_path / "nowhere.json")


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
    # 100 of 200 would be rounded to 95, 10 of 20 to 7, and of 3 there are 2 without a multiple in between
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
    # of 127 tokens a rate of 0.9 leaves 115, and the nearest count that makes 128 with the class token is 127 again
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


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"keep_rate": (0.7, 0.5), "spread_sites": True}, "spread_sites takes one keep rate, got"),
        ({"spread_sites": 1}, "spread_sites must be True or False, got 1"),
        ({"prefix_only": 1}, "prefix_only must be True or False, got 1"),
        ({"size_power": 0}, r"size_power must lie in \(0, 2\], got 0; 1 counts every patch"),
        ({"size_power": 2.5}, r"size_power must lie in \(0, 2\], got 2.5"),
        ({"size_power": nan}, r"size_power must lie in \(0, 2\], got nan"),
        ({"size_power": True}, "size_power must be a number, got True"),
        (
            {"importance_power": -0.5},
            r"importance_power must lie in \[0, 2\], got -0.5; 0 leaves importance out",
        ),
        ({"importance_power": 2.5}, r"importance_power must lie in \[0, 2\], got 2.5"),
        ({"importance_power": nan}, r"importance_power must lie in \[0, 2\], got nan"),
        ({"importance_power": "0.5"}, "importance_power must be a number, got '0.5'"),
    ],
)
@pytest.mark.unchecked
def test_it_refuses(fields, reason):
    with pytest.raises((ValueError, TypeError), match=reason):
        BATConfig(**fields)


def test_gradual_needs_some_depth():
    with pytest.raises(ValueError, match="spread_sites needs 3 blocks or more, the model has 2"):
        BATConfig(spread_sites=True).sites(2)
