"""The example of a plan of one's own, in the contributing guide too, keeps to the contract."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

import batvit
from batvit.budget import Family, at_macs, contenders
from batvit.plans import PLANS, Evidence, Plan
from batvit.plans.plan import Counts

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_plan.py"


@pytest.fixture(scope="module")
def mine(imported):
    imported(EXAMPLE)
    yield PLANS["mine"]
    del PLANS["mine"]


def evidence(tokens, device="cpu"):
    draw = torch.Generator().manual_seed(tokens)
    parts = (
        torch.randn(2, tokens, 4, generator=draw),
        torch.rand(2, tokens, generator=draw),
        torch.ones(2, tokens),
    )
    return Evidence(*(part.to(device) for part in parts), depth=12)


def test_it_runs_as_it_is():
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    # block, tokens in, tokens out, M MACs
    assert [row[-2] for row in rows if row[:1] in (["3"], ["6"], ["9"])] == ["98", "49", "25"]
    assert rows[-1][0] == "deit_tiny"


def test_it_is_short_and_the_guide_shows_it():
    source = EXAMPLE.read_text()
    assert len(source.splitlines()) < 60
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    shown = [
        line.strip()
        for line in guide.split("```python\n")[1].split("```")[0].splitlines()
        if line.strip()
    ]
    assert len(shown) > 5
    assert set(shown) <= {line.strip() for line in source.splitlines()}


@given(st.integers(1, 40), st.data())
def test_it_keeps_its_counts_and_loses_no_token(mine, tokens, data):
    counts = Counts(1, tokens, out := data.draw(st.integers(1, tokens)), 0, 0, out)
    a = mine.decide(evidence(tokens), counts, batvit.BATConfig(method="mine"))
    assert (a.batch, a.tokens, a.groups) == (2, tokens, out)
    assert a.is_onto
    assert a.is_total is not mine.drops
    # runs, of lengths that differ by at most one
    assert a.index.diff(dim=1).ge(0).all()
    assert a.sizes.max() - a.sizes.min() <= 1


def test_at_half_the_tokens_it_makes_pairs(mine):
    a = mine.decide(evidence(6), Counts(1, 6, 3, 0, 0, 3), batvit.BATConfig(method="mine"))
    assert a.index.tolist() == [[0, 0, 1, 1, 2, 2]] * 2


def test_it_needs_no_data_to_know_its_shapes(mine):
    a = mine.decide(
        evidence(20, "meta"), Counts(1, 20, 7, 0, 0, 7), batvit.BATConfig(method="mine")
    )
    assert (a.index.device.type, a.tokens, a.groups) == ("meta", 20, 7)


def test_a_model_runs_with_it(mine):
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=5).eval()
    batvit.patch(model, method="mine", blocks=(0, 2), tokens=(11, 6), **mine.paper_fields)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with batvit.trace(model) as trace, torch.no_grad():
        assert model(images).isfinite().all()
    assert [site.counts.tokens_out for site in trace.sites] == [11, 6]


def test_it_is_compared_like_any_other(mine):
    assert contenders()[-1] == "mine"
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=5)
    config = at_macs(model, Family.of("mine", model), 0.7)
    assert (config.method, config.weight) == ("mine", "size")


def test_where_it_takes_tokens_is_one_of_four_ways(mine):
    with pytest.raises(
        ValueError, match="site_rule must be one of sites, blocks, rates, list, got 'everywhere'"
    ):
        Plan(mine.decide, drops=False, site_rule="everywhere")
