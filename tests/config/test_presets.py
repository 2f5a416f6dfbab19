"""The presets, and the paper's counts in them."""

from fractions import Fraction
from math import ceil

import pytest

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


def outs(config, *, depth=12, patches=196):
    return tuple(counts.tokens_out for counts in schedule(config, depth=depth, patches=patches))


@pytest.mark.parametrize(("keep_rate", "tokens"), PAPER.items())
def test_the_paper_preset_has_the_papers_totals(keep_rate, tokens):
    config = BATConfig.preset("paper", keep_rate=keep_rate)
    assert outs(config) == tokens


@pytest.mark.parametrize("mode", ["training-free", "training_free"])
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


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        ValueError, match=r"mode must be one of paper, training-free, gradual, got 'fast'"
    ):
        BATConfig.preset("fast")
