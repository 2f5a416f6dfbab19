"""The model of costs: its terms, what it is fitted to, and the samples that are kept."""

import json

import numpy as np
import pytest
import timm
import torch

from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.tune.cost_model import (
    FEATURES,
    CostModel,
    Sample,
    count_samples,
    features,
    load_samples,
    save_samples,
    time_samples,
)
from batvit.tune.space import Candidate, varied_configs


@pytest.mark.parametrize("similarity", ["tokens", "keys"])
@pytest.mark.parametrize("final", [9.0, 27.0])
def test_a_cost_model_of_macs_counts_what_it_was_not_fitted_to(model, cost, similarity, final):
    candidate = Candidate(3, 0, 3, 0.9, 0.6, 0.1, 3, similarity, "size", True)
    config = candidate.at(final, anatomy_of(model))
    assert cost(config) == pytest.approx(macs_of(model, config) / macs_of(model, None), rel=0.005)


def test_the_dense_model_is_one_of_everything_and_no_site():
    assert features(None, 12, 196, 1) == pytest.approx([1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    assert len(features(None, 12, 196, 1)) == len(FEATURES)


def test_every_choice_that_takes_time_of_its_own_has_a_term(model, candidate):
    def terms(**fields):
        config = candidate.at(6.0, anatomy_of(model)).with_fields(**fields)
        return dict(zip(FEATURES, features(config, 5, 36, 1), strict=True))

    plain = terms()
    assert plain["several neighbours, a pair"] == 0
    assert terms(neighbours=None)["several neighbours, a pair"] == 0
    assert terms(neighbours=5)["several neighbours, a pair"] > 0
    assert plain["attention with sizes, a pair"] > 0
    # two blocks see all tokens, the others do not know how large theirs are
    unaware = terms(size_aware=False)
    assert unaware["attention with sizes, a pair"] == 0
    assert unaware["attention, a pair"] == pytest.approx(
        plain["attention, a pair"] + plain["attention with sizes, a pair"]
    )
    assert plain["attention, a pair"] == pytest.approx(2 / 5)
    keys = terms(similarity="keys")
    assert keys["clusters of tokens, a pair"] == 0
    assert keys["clusters of keys, a pair"] == plain["clusters of tokens, a pair"]
    assert terms(pairs=0.0)["clusters of tokens, a pair"] != plain["clusters of tokens, a pair"]


def test_without_a_class_token_the_attention_received_is_counted(model, counted):
    siglip = timm.create_model(
        "vit_base_patch16_siglip_224",
        img_size=96,
        depth=5,
        embed_dim=48,
        num_heads=3,
        num_classes=4,
    )
    known = count_samples(siglip.eval(), varied_configs(anatomy_of(siglip), 24))
    cost = CostModel.fit(siglip, known)
    assert cost.received
    assert [cost(sample.config) for sample in known] == pytest.approx(
        [sample.share for sample in known], rel=1e-4
    )
    assert not CostModel.fit(model, counted).received


def test_what_a_cost_is_fitted_to_varies_in_all_that_is_searched(model):
    configs = varied_configs(anatomy_of(model), 24)
    table = [features(config, 5, 36, 1, received=True) for config in (None, *configs)]
    assert np.linalg.matrix_rank(np.array(table)) == len(FEATURES)


def test_a_time_model_finds_the_costs_it_was_fitted_to(model, candidate, monkeypatch):
    true = np.array([0.05, 0.3, 0.15, 0.1, 0.5, 0.04, 0.03, 0.1, 0.06, 0.05, 0.0])
    anatomy = anatomy_of(model)
    configs = varied_configs(anatomy, 24)

    def in_turns(runs, x, *, rounds, warmup, enough):
        times = []
        for config in (None, *configs):
            terms = features(config, anatomy.depth, anatomy.patches, anatomy.prefix)
            # every round twice as slow as the one before
            times.append([float(np.dot(true, terms)) * 2**i for i in range(rounds)])
        return times

    monkeypatch.setattr("batvit.tune.cost_model.in_turns", in_turns)
    samples = time_samples(model, configs, torch.zeros(1, 3, 96, 96))
    found = CostModel.fit(model, samples)
    dense = float(np.dot(true, features(None, 5, 36, 1)))
    for config in (*configs, candidate.at(25.0, anatomy)):
        expected = float(np.dot(true, features(config, 5, 36, 1))) / dense
        assert found(config) == pytest.approx(expected, rel=0.03)
    assert min(found.weights) >= 0


def test_what_was_measured_after_a_part_counts_for_more(model, candidate):
    samples = [Sample(config, 0.8) for config in varied_configs(anatomy_of(model), 24)]
    config = candidate.at(20.0, anatomy_of(model))

    def predicted(part):
        return CostModel.fit(model, [*samples, Sample(config, 0.5, part)])(config)

    assert abs(predicted(1) - 0.5) < abs(predicted(0) - 0.5)


def test_samples_are_kept_and_must_be_enough(model, candidate, tmp_path):
    path = tmp_path / "time.json"
    samples = [
        Sample(candidate.at(6.0, anatomy_of(model)), 0.5),
        Sample(candidate.at(9.0, anatomy_of(model)), 0.75, part=2),
    ]
    save_samples(path, samples)
    assert load_samples(path) == samples
    row = json.loads(path.read_text())[0]
    spoilt = [{}, [{}], "many", [row | {"config": {"method": "many"}}]]
    for share in (0, "x", 1e999):
        spoilt.append([row | {"share": share}])
    for kept in spoilt:
        path.write_text(json.dumps(kept))
        with pytest.raises(
            ValueError, match=r"time.json: not what configurations cost .* remove it"
        ):
            load_samples(path)
    with pytest.raises(ValueError, match="needs 11 configurations or more, got 2"):
        CostModel.fit(model, samples)
