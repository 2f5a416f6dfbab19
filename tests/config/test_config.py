"""The configuration: its counts, its presets, its file, and what it refuses."""

import dataclasses
import json
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batvit.config import BATConfig
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


# counts


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


def test_what_was_saved_before_there_were_powers_and_prefix_only_stays_what_it_was():
    fields = BATConfig(keep_rate=0.6, size_aware=True).to_dict()
    del fields["size_power"], fields["importance_power"], fields["prefix_only"]
    found = BATConfig.from_dict(fields)
    assert (found.size_power, found.importance_power, found.prefix_only) == (1.0, 0.0, False)


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
