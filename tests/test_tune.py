"""The search for a budget: shapes, costs, and a journal that goes on."""

import json

import numpy as np
import pytest
import timm
import torch

import batvit
from batvit import cost as costs
from batvit.backbones.patch import anatomy_of
from batvit.budget import macs_of
from batvit.calibration import Calibration, judge
from batvit.config import BATConfig
from batvit.copies import light_copy
from batvit.cost import FEATURES, CostModel, features, fit_macs, fit_time
from batvit.tune import Goal, Search, Shape, best_of, front_of

SHAPE = Shape(3, 1, 3, 1.0, 0.5, 0.1, 2, "tokens", "size", True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, num_classes=4).eval()


@pytest.fixture(scope="module")
def cost(model):
    anatomy = anatomy_of(model)
    shapes = [Shape(n, n % 2, 3 + n % 2, 0.6 + n / 5, 0.3 + n / 8, 0.1, 2, "tokens", "size", True) for n in (1, 2, 3, 4)]
    return fit_macs(model, [shape.at(final, anatomy) for shape in shapes for final in (4.0, 18.0)])


def calibration(model, *, labelled=False, samples=6):
    draw = torch.Generator().manual_seed(1)
    data = [(torch.randn(3, 3, 96, 96, generator=draw), torch.randint(0, 4, (3,), generator=draw)) for _ in range(samples // 3)]
    return Calibration.of(model, data, labelled=labelled)


def test_a_shape_ends_in_one_token_where_only_the_class_token_is_read(model):
    config = SHAPE.at(6.0, anatomy_of(model))
    assert (config.blocks, config.tokens) == ((1, 2, 3, 4), (26, 16, 6, 1))
    pooled = timm.create_model("vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, global_pool="avg")
    assert SHAPE.at(6.0, anatomy_of(pooled)).tokens == (26, 16, 6)


def test_that_last_site_changes_no_logit(model):
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    config = SHAPE.at(6.0, anatomy_of(model))
    fields = {"blocks": config.blocks[:-1], "tokens": config.tokens[:-1]}
    with torch.no_grad():
        found = batvit.patch(light_copy(model), config)(images)
        expected = batvit.patch(light_copy(model), config.with_fields(**fields))(images)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert macs_of(model, config) < macs_of(model, config.with_fields(**fields))


def test_the_curve_says_whether_tokens_fall_early_or_late(model):
    anatomy = anatomy_of(model)
    early, late = (Shape(3, 1, 3, curve, 0.5, 0.1, 2, "tokens", "size", True).at(6.0, anatomy).tokens for curve in (0.5, 1.5))
    assert early[0] < SHAPE.at(6.0, anatomy).tokens[0] < late[0]
    assert early[2] == late[2]


def test_a_cost_model_of_macs_counts_what_it_was_not_fitted_to(model, cost):
    for final in (9.0, 27.0):
        config = Shape(3, 0, 3, 0.9, 0.6, 0.1, 2, "tokens", "size", True).at(final, anatomy_of(model))
        assert cost(config) == pytest.approx(macs_of(model, config) / macs_of(model, None), rel=0.005)


@pytest.mark.parametrize("budget", [0.8, 0.6])
def test_a_shape_within_a_budget_spends_nearly_all_of_it(model, cost, budget):
    config = SHAPE.within(budget, cost, anatomy_of(model))
    assert budget - 0.05 < cost(config) <= budget
    assert SHAPE.within(0.01, cost, anatomy_of(model)) is None


def test_the_dense_model_is_one_of_everything_and_no_site():
    assert features(None, 12, 196, 1) == pytest.approx([1, 1, 1, 1, 0, 0, 0])
    assert len(features(None, 12, 196, 1)) == len(FEATURES)


def test_a_time_model_finds_the_costs_it_was_fitted_to(model, monkeypatch):
    true = np.array([0.05, 0.3, 0.15, 0.5, 0.04, 0.03, 0.1])
    anatomy = anatomy_of(model)
    configs = [SHAPE.at(final, anatomy) for final in (2.0, 6.0, 12.0, 20.0, 30.0)]
    configs += [Shape(n, 0, 4, 0.7, 0.3, 0.2, 2, "keys", "size", True).at(9.0, anatomy) for n in (1, 2, 3, 4)]

    def in_turns(runs, x, *, rounds, warmup):
        table = [features(c, anatomy.depth, anatomy.patches, anatomy.prefix) for c in (None, *configs)]
        # every round twice as slow as the one before
        return [[float(np.dot(true, row)) * 2**i for i in range(rounds)] for row in table]

    monkeypatch.setattr(costs, "in_turns", in_turns)
    found = fit_time(model, configs, torch.zeros(1, 3, 96, 96))
    dense = float(np.dot(true, features(None, 5, 36, 1)))
    for config in (*configs, SHAPE.at(25.0, anatomy)):
        expected = float(np.dot(true, features(config, 5, 36, 1))) / dense
        assert found(config) == pytest.approx(expected, rel=0.03)
    assert min(found.weights) >= 0


def test_a_cost_model_is_kept_and_needs_enough(model, tmp_path):
    fitted = CostModel(5, 36, 1, tuple(float(i) for i in range(len(FEATURES))))
    fitted.save(tmp_path / "time.json")
    assert CostModel.load(tmp_path / "time.json", model) == fitted
    (tmp_path / "time.json").write_text("{}")
    with pytest.raises(ValueError, match=r"time.json: not a cost model"):
        CostModel.load(tmp_path / "time.json", model)
    with pytest.raises(ValueError, match="needs 7 configurations or more, got 1"):
        fit_time(model, [SHAPE.at(6.0, anatomy_of(model))], torch.zeros(1, 3, 96, 96))


def test_the_dense_model_is_no_distance_from_itself(model):
    found = judge(model, calibration(model))
    assert found.loss == pytest.approx(0, abs=1e-6)
    assert found.drop == 0


def test_labels_count_instead_if_they_are_given(model):
    data = calibration(model, labelled=True)
    reduced = batvit.patch(light_copy(model), SHAPE.at(2.0, anatomy_of(model)))
    found = judge(reduced, data)
    with torch.no_grad():
        logits = torch.cat([reduced(images) for images in data.batches])
        dense = torch.cat([model(images) for images in data.batches])
    labels = torch.cat(data.labels)
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    right = (dense.argmax(1) == labels).sum() - (logits.argmax(1) == labels).sum()
    assert found.drop == pytest.approx(100 * float(right) / len(labels))


def test_a_search_goes_on_where_it_was_left_and_gives_what_fits(model, cost, tmp_path):
    heard = []
    settings = (model, calibration(model), cost, Goal(budget=0.6), tmp_path)
    assert len(Search(*settings).run(trials=5, progress=heard.append).trials) == 5
    assert len(heard) == 5
    study = Search(*settings).run(trials=8)
    assert len(study.trials) == 8
    # no point is drawn twice
    assert len({json.dumps(trial.params, sort_keys=True) for trial in study.trials}) == 8
    best = best_of(study, Goal(budget=0.6))
    config = BATConfig.from_dict(best["config"])
    assert cost(config) == best["cost"] <= 0.6
    assert judge(batvit.patch(light_copy(model), config), calibration(model)).loss == pytest.approx(best["loss"], rel=1e-4)
    front = front_of(study)
    assert [t["cost"] for t in front] == sorted(t["cost"] for t in front)
    assert [t["loss"] for t in front] == sorted((t["loss"] for t in front), reverse=True)


def test_the_same_seed_tries_the_same(model, cost, tmp_path):
    tried = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        study = Search(model, calibration(model), cost, Goal(budget=0.6), tmp_path / name, seed=3).run(trials=4)
        tried.append([trial.params for trial in study.trials])
    assert tried[0] == tried[1]


def test_the_least_cost_within_a_drop_or_the_nearest_named(model, cost, tmp_path):
    data = calibration(model, labelled=True)
    study = Search(model, data, cost, Goal(max_drop=100.0), tmp_path).run(trials=4)
    done = front_of(study, everything=True)
    assert best_of(study, Goal(max_drop=100.0))["cost"] == min(trial["cost"] for trial in done)
    with pytest.raises(ValueError, match=r"no configuration loses at most -200 points; the nearest loses"):
        best_of(study, Goal(max_drop=-200.0))
