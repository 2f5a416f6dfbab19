"""The search for a budget: shapes, costs, a journal that goes on, and what is said in the end."""

import itertools
import json
import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.budget import OutOfReachError, macs_of
from batvit.config.config import BATConfig
from batvit.measure.speed import Comparison, Timing
from batvit.module_copy import light_copy
from batvit.reduction.schedule import schedule
from batvit.reduction.site import config_of
from batvit.tune import cost_model as costs
from batvit.tune import search as searching
from batvit.tune.cost_model import (
    FEATURES,
    CostModel,
    Sample,
    counted,
    features,
    load_samples,
    save_samples,
    timed,
)
from batvit.tune.finalists import Measured, held, preset_beside, settle, winner
from batvit.tune.objective import Score, TuningSet, beside, judge
from batvit.tune.search import BEGIN, Goal, Search, best_of, front_of
from batvit.tune.space import NEIGHBOURS, Candidate, least, varied
from batvit.tune.trials import (
    complete,
    cut_short,
    finished,
    leaders,
    newest,
    open_study,
    studies,
)

BUDGET = 0.75
SHAPE = Candidate(3, 1, 3, 1.0, 0.5, 0.1, 2, "tokens", "size", True)
WEIGHTS = (0.02, 0.3, 0.18, 0.18, 0.5, 0.02, 0.01, 0.02, 0.02, 0.02, 0.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="module")
def cost(model):
    return CostModel.fit(model, counted(model, varied(anatomy_of(model), 13)))


@pytest.fixture(scope="module")
def deep():
    """Twelve small blocks, as many as the starting points are for."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=192, depth=12, embed_dim=12, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="module")
def cost_of_deep(deep):
    return CostModel(12, anatomy_of(deep).patches, 1, WEIGHTS)


@pytest.fixture(scope="module")
def data(model):
    return calibration(model)


def calibration(model, *, labelled=False, samples=6):
    draw = torch.Generator().manual_seed(1)
    data = [
        (torch.randn(3, 3, 96, 96, generator=draw), torch.randint(0, 4, (3,), generator=draw))
        for _ in range(samples // 3)
    ]
    return TuningSet.of(model, data, labelled=labelled)


def test_a_shape_has_prefix_tokens_alone_in_the_end_where_no_others_are_read(model):
    config = SHAPE.at(6.0, anatomy_of(model))
    assert (config.blocks, config.tokens, config.prefix_only) == ((1, 2, 3), (26, 16, 6), True)
    pooled = timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, global_pool="avg"
    )
    assert SHAPE.at(6.0, anatomy_of(pooled)) == config.with_fields(prefix_only=False)


def test_tokens_fall_early_or_late(model):
    tokens = [
        replace(SHAPE, decay=decay).at(6.0, anatomy_of(model)).tokens
        for decay in (-0.5, 0.0, 0.5, 1.0, 2.0)
    ]
    assert [each[0] for each in tokens] == sorted({each[0] for each in tokens})
    assert {each[2] for each in tokens} == {6}


@pytest.mark.parametrize(("preset", "shape"), [("training-free", BEGIN[0]), ("gradual", BEGIN[1])])
def test_the_presets_are_shapes(deep, preset, shape):
    """To a token, which gradual rounds up where all others are rounded."""
    anatomy = anatomy_of(deep)
    config = BATConfig.preset(preset, keep_rate=0.6, align=1)
    sites = schedule(config, depth=12, patches=anatomy.patches, prefix=1)
    expected = [site.tokens_out for site in sites]
    found = shape.at(float(expected[-1]), anatomy)
    assert found.blocks == tuple(site.block for site in sites)
    assert found.tokens == pytest.approx(expected, abs=1)
    named = ("centres", "pairs", "neighbours", "similarity", "weight", "size_aware", "keep_norm")
    assert {name: getattr(found, name) for name in named} == {
        name: getattr(config, name) for name in named
    }
    gradual = BATConfig.preset("gradual")
    assert (found.size_power, found.importance_power) == (
        gradual.size_power,
        gradual.importance_power,
    )


@pytest.mark.parametrize("similarity", ["tokens", "keys"])
@pytest.mark.parametrize("final", [9.0, 27.0])
def test_a_cost_model_of_macs_counts_what_it_was_not_fitted_to(model, cost, similarity, final):
    config = Candidate(3, 0, 3, 0.9, 0.6, 0.1, 3, similarity, "size", True).at(
        final, anatomy_of(model)
    )
    assert cost(config) == pytest.approx(macs_of(model, config) / macs_of(model, None), rel=0.005)


@pytest.mark.parametrize("budget", [0.8, 0.6])
def test_a_shape_within_a_budget_spends_nearly_all_of_it(model, cost, budget):
    config = SHAPE.within(budget, cost, anatomy_of(model))
    assert budget - 0.05 < cost(config) <= budget
    assert SHAPE.within(0.01, cost, anatomy_of(model)) is None


def test_the_dense_model_is_one_of_everything_and_no_site():
    assert features(None, 12, 196, 1) == pytest.approx([1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    assert len(features(None, 12, 196, 1)) == len(FEATURES)


def test_every_choice_that_takes_time_of_its_own_has_a_term(model):
    def terms(**fields):
        config = SHAPE.at(6.0, anatomy_of(model)).with_fields(**fields)
        return dict(zip(FEATURES, features(config, 5, 36, 1), strict=True))

    plain = terms()
    assert (
        plain["several neighbours, a pair"]
        == terms(neighbours=None)["several neighbours, a pair"]
        == 0
    )
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
    assert (keys["clusters of tokens, a pair"], keys["clusters of keys, a pair"]) == (
        0,
        plain["clusters of tokens, a pair"],
    )
    assert terms(pairs=0.0)["clusters of tokens, a pair"] != plain["clusters of tokens, a pair"]


def test_without_a_class_token_the_attention_received_is_counted(model):
    siglip = timm.create_model(
        "vit_base_patch16_siglip_224",
        img_size=96,
        depth=5,
        embed_dim=48,
        num_heads=3,
        num_classes=4,
    )
    known = counted(siglip.eval(), varied(anatomy_of(siglip), 24))
    cost = CostModel.fit(siglip, known)
    assert cost.received
    assert [cost(each.config) for each in known] == pytest.approx(
        [each.share for each in known], rel=1e-4
    )
    assert not CostModel.fit(model, counted(model, varied(anatomy_of(model), 13))).received


def test_what_a_cost_is_fitted_to_varies_in_all_that_is_searched(model):
    configs = varied(anatomy_of(model), 24)
    assert configs == varied(anatomy_of(model), 24)
    for name, number in (
        ("neighbours", len(NEIGHBOURS)),
        ("similarity", 2),
        ("weight", 3),
        ("size_aware", 2),
        ("pairs", 4),
    ):
        assert len({getattr(config, name) for config in configs}) == number
    table = [features(config, 5, 36, 1, received=True) for config in (None, *configs)]
    assert np.linalg.matrix_rank(np.array(table)) == len(FEATURES)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_shallow_models_have_shapes(depth):
    for seed in range(20):
        shape = Candidate.draw(random.Random(seed), depth)
        assert 0 <= shape.first <= shape.last < depth


def test_nothing_costs_less_than_the_leanest(model, cost):
    lean = least(cost, anatomy_of(model))
    draws = [
        Candidate.draw(random.Random(seed), 5).at(1.0, anatomy_of(model)) for seed in range(50)
    ]
    assert lean <= min(map(cost, draws)) + 1e-9
    assert lean < 0.5


def test_a_time_model_finds_the_costs_it_was_fitted_to(model, monkeypatch):
    true = np.array([0.05, 0.3, 0.15, 0.1, 0.5, 0.04, 0.03, 0.1, 0.06, 0.05, 0.0])
    anatomy = anatomy_of(model)
    configs = varied(anatomy, 24)

    def in_turns(runs, x, *, rounds, warmup):
        table = [
            features(c, anatomy.depth, anatomy.patches, anatomy.prefix) for c in (None, *configs)
        ]
        # every round twice as slow as the one before
        return [[float(np.dot(true, row)) * 2**i for i in range(rounds)] for row in table]

    monkeypatch.setattr(costs, "in_turns", in_turns)
    samples = timed(model, configs, torch.zeros(1, 3, 96, 96))
    found = CostModel.fit(model, samples)
    dense = float(np.dot(true, features(None, 5, 36, 1)))
    for config in (*configs, SHAPE.at(25.0, anatomy)):
        expected = float(np.dot(true, features(config, 5, 36, 1))) / dense
        assert found(config) == pytest.approx(expected, rel=0.03)
    assert min(found.weights) >= 0


def test_what_was_measured_after_a_part_counts_for_more(model):
    samples = [Sample(config, 0.8) for config in varied(anatomy_of(model), 24)]
    shape = SHAPE.at(20.0, anatomy_of(model))
    known, near = (
        CostModel.fit(model, [*samples, Sample(shape, 0.5, part)])(shape) for part in (0, 1)
    )
    assert abs(near - 0.5) < abs(known - 0.5)


def test_samples_are_kept_and_must_be_enough(model, tmp_path):
    path = tmp_path / "time.json"
    samples = [
        Sample(SHAPE.at(6.0, anatomy_of(model)), 0.5),
        Sample(SHAPE.at(9.0, anatomy_of(model)), 0.75, part=2),
    ]
    save_samples(path, samples)
    assert load_samples(path) == samples
    row = json.loads(path.read_text())[0]
    spoilt = (
        {},
        [{}],
        "many",
        [row | {"config": {"method": "many"}}],
        *([row | {"share": share}] for share in (0, "x", 1e999)),
    )
    for kept in spoilt:
        path.write_text(json.dumps(kept))
        with pytest.raises(
            ValueError, match=r"time.json: not what configurations cost .* remove it"
        ):
            load_samples(path)
    with pytest.raises(ValueError, match="needs 11 configurations or more, got 2"):
        CostModel.fit(model, samples)


def test_the_dense_model_is_no_distance_from_itself(model, data):
    found = judge(model, data)
    assert found.loss == pytest.approx(0, abs=1e-6)
    assert found.drop == 0


def test_loss_is_the_divergence_from_the_dense_models_word(model, data):
    reduced, heard = batvit.patch(light_copy(model), SHAPE.at(2.0, anatomy_of(model))), []
    found = judge(reduced, data, lambda step, loss: heard.append((step, loss)))
    with torch.no_grad():
        p, q = (
            torch.cat([each(images) for images in data.batches]).double().softmax(1)
            for each in (model, reduced)
        )
    each, other = (p * (p / q).log()).sum(1), (q * (q / p).log()).sum(1)
    torch.testing.assert_close(found.losses.double(), each, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(each, other, rtol=1e-2)
    assert found.lost.tolist() == (100.0 * (p.argmax(1) != q.argmax(1))).tolist()
    ends = list(itertools.accumulate(map(len, data.batches)))
    assert [step for step, _ in heard] == list(range(len(ends)))
    assert [loss for _, loss in heard] == pytest.approx(
        [float(each[:end].mean()) for end in ends], rel=1e-3
    )


def test_labels_count_instead_if_they_are_given(model):
    data = calibration(model, labelled=True)
    reduced = batvit.patch(light_copy(model), SHAPE.at(2.0, anatomy_of(model)))
    found = judge(reduced, data)
    with torch.no_grad():
        logits = torch.cat([reduced(images) for images in data.batches])
        dense = torch.cat([model(images) for images in data.batches])
    labels = torch.cat(data.labels)
    assert found.loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5
    )
    right = (dense.argmax(1) == labels).sum() - (logits.argmax(1) == labels).sum()
    assert found.drop == pytest.approx(100 * float(right) / len(labels))


def test_a_dense_model_that_says_nothing_finite_is_refused(model):
    broken = light_copy(model)
    broken.head = torch.nn.Linear(48, 4)
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    with pytest.raises(ValueError, match="the dense model's logits are not finite"):
        calibration(broken)


def test_one_that_loses_less_is_told_apart_from_another():
    def judgement(losses):
        return Score(torch.tensor(losses), torch.tensor([0.0, 100.0, 0.0]))

    better, worse = judgement([0.1, 0.2, 0.1]), judgement([0.2, 0.3, 0.4])
    difference = better.minus(worse)
    assert difference["loss"].mean == pytest.approx(-1 / 6)
    assert difference["drop"] == (0, 0, 0)
    assert "tuned is better than the preset: loss -0.167 [-0.3" in beside(difference, "the preset")
    assert "tuned is worse than the preset: loss +0.167 [" in beside(
        worse.minus(better), "the preset"
    )
    mixed = judgement([0.3, 0.1, 0.2]).minus(judgement([0.2, 0.2, 0.2]))
    assert "tuned is not told apart from the preset: loss +0.000 [" in beside(mixed, "the preset")


def test_a_real_search_gives_what_fits_and_what_it_says(model, cost, data, tmp_path):
    heard = []
    search = Search(model, data, cost, Goal(budget=0.6), open_study(tmp_path, seed=0))
    search.run(trials=4, progress=lambda: heard.append(1))
    assert len(heard) == finished(search.study) == 4
    best = best_of(search.study, Goal(budget=0.6))
    config = BATConfig.from_dict(best["config"])
    assert cost(config) == best["cost"] <= 0.6
    assert Candidate(**best["shape"]).within(0.6, cost, anatomy_of(model)) == config
    assert judge(batvit.patch(light_copy(model), config), data).loss == pytest.approx(
        best["loss"], rel=1e-4
    )


# many trials on no pictures


def stub(monkeypatch, loss_of):
    """Let a function of the configuration be the loss, and ten times that the drop; it may raise."""

    def judged(model, data, report=lambda step, loss: None):
        loss = float(loss_of(config_of(model)))
        report(0, loss)
        return Score(torch.tensor([loss]), torch.tensor([10 * loss]))

    monkeypatch.setattr(searching, "judge", judged)


def left_over(config):
    """A loss that grows as the tokens that are left in the end become few."""
    return 1 / config.tokens[-1]


@pytest.fixture
def search(deep, cost_of_deep, tmp_path):
    """Opens the same search, new or as it was left."""

    def opened(goal, seed=0, folder=tmp_path):
        return Search(
            deep, TuningSet([], None, []), cost_of_deep, goal, open_study(folder, seed=seed)
        )

    return opened


def shapes(study):
    return [
        {name: value for name, value in trial.params.items() if name != "budget"}
        for trial in study.trials
    ]


@pytest.mark.parametrize("goal", [Goal(budget=BUDGET), Goal(max_drop=5.0)])
def test_a_search_begins_with_what_is_known_to_be_good(search, monkeypatch, goal):
    stub(monkeypatch, left_over)
    found = search(goal)
    found.run(trials=4)
    assert shapes(found.study)[:3] == [searching.asdict(shape) for shape in BEGIN]


def test_a_search_goes_on_where_it_was_left(search, monkeypatch, tmp_path):
    stub(monkeypatch, left_over)
    search(Goal(budget=BUDGET)).run(trials=5)
    again = search(Goal(budget=BUDGET))
    again.run(trials=5)
    assert finished(again.study) == 5
    again.run(trials=9)
    assert finished(again.study) == 9
    # no point is drawn twice
    assert len({json.dumps(trial.params, sort_keys=True) for trial in again.study.trials}) == 9


def test_the_same_seed_tries_the_same(search, monkeypatch, tmp_path):
    stub(monkeypatch, left_over)
    tried = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found = search(Goal(budget=BUDGET), seed=3, folder=tmp_path / name)
        found.run(trials=6)
        tried.append([trial.params for trial in found.study.trials])
    assert tried[0] == tried[1]


@pytest.mark.parametrize(
    ("goal", "state"), [(Goal(budget=0.97), "PRUNED"), (Goal(max_drop=100.0), "COMPLETE")]
)
def test_hopeless_trials_are_left_once_there_is_something_to_go_by(
    search, monkeypatch, goal, state
):
    number = itertools.count()
    stub(monkeypatch, lambda config: 1.0 if next(number) < 4 else 2.0)
    monkeypatch.setattr("batvit.tune.trials.FIRST_TRIALS", 4)
    found = search(goal)
    found.run(trials=14)
    judged = [trial.state.name for trial in found.study.trials if trial.intermediate_values]
    assert judged[:4] == ["COMPLETE"] * 4
    assert set(judged[4:]) == {state}


def test_an_interrupt_loses_no_trial(search, monkeypatch):
    number = itertools.count()

    def interrupted(config):
        if next(number) == 1:
            raise KeyboardInterrupt
        return 1.0

    stub(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(Goal(budget=BUDGET)).run(trials=5)
    found = search(Goal(budget=BUDGET))
    assert finished(found.study) == 1
    assert [Candidate(**params) for params in cut_short(found.study)] == [BEGIN[1]]
    found.run(trials=5)
    assert finished(found.study) == 5
    done = [trial for trial in shapes(found.study) if trial]
    assert [done.count(searching.asdict(shape)) for shape in BEGIN] == [1, 2, 1]
    # what was tried again is not tried a third time
    assert cut_short(found.study) == []


def test_the_next_part_begins_with_the_best_of_the_one_before_at_what_they_cost_by_then(
    search, monkeypatch, tmp_path
):
    stub(monkeypatch, left_over)
    first = search(Goal(budget=BUDGET))
    first.run(trials=8)
    best = leaders(first.study)
    assert best[0].user_attrs == best_of(first.study, first.goal)
    blocks = [tuple(trial["config"]["blocks"]) for trial in complete(first.study)]
    assert sorted(tuple(trial.user_attrs["config"]["blocks"]) for trial in best) == sorted(
        set(blocks)
    )
    study = open_study(tmp_path, seed=0, part=1)
    assert newest(studies(tmp_path)).trials == first.study.trials
    second = replace(
        first, study=study, before=first.study, cost=lambda config: 1.1 * first.cost(config)
    )
    second.run(trials=len(best) + 2)
    assert shapes(study)[: len(best)] == [trial.params for trial in best]
    assert newest(studies(tmp_path)).trials == study.trials
    again, before = best_of(study, first.goal), best[0].user_attrs
    assert 1.1 * first.cost(BATConfig.from_dict(again["config"])) <= BUDGET < 1.1 * before["cost"]
    # a part that nothing reaches by then is left out
    replace(second, study=open_study(tmp_path, seed=0, part=2), cost=lambda config: 2.0).run(
        seconds=600.0
    )
    assert [len(each.trials) for each in studies(tmp_path)] == [8, len(best) + 2, 0]
    # and what is drawn is not drawn again
    assert not any(params in shapes(first.study) for params in shapes(study)[len(best) :])


def test_an_interrupt_is_no_traceback(search, monkeypatch):
    import optuna

    search(Goal(budget=BUDGET))
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def test_a_trial_that_torch_fails_in_is_left_and_the_search_goes_on(search, monkeypatch):
    number = itertools.count()

    def fails(config):
        if next(number) == 0:
            raise RuntimeError("no\nroom")
        return 1.0

    stub(monkeypatch, fails)
    found = search(Goal(budget=BUDGET))
    found.run(trials=4)
    assert [trial.state.name for trial in found.study.trials] == ["FAIL", *["COMPLETE"] * 3]
    assert cut_short(found.study) == []


def test_where_every_trial_fails_the_search_ends_and_says_why(search, monkeypatch):
    def fails(config):
        raise RuntimeError("no\nroom")

    stub(monkeypatch, fails)
    found = search(Goal(budget=BUDGET))
    found.run(trials=50)
    assert finished(found.study) < 20
    with pytest.raises(ValueError, match="within the budget; 5 failed: no room; allow more"):
        best_of(found.study, Goal(budget=BUDGET))


def test_a_loss_that_is_not_finite_is_none(search, monkeypatch):
    stub(monkeypatch, lambda config: float("nan"))
    found = search(Goal(budget=BUDGET))
    found.run(trials=2)
    assert finished(found.study) == 2
    assert not complete(found.study)


def test_what_no_configuration_reaches_is_refused_before_the_search(search):
    found = search(Goal(budget=0.05))
    with pytest.raises(
        ValueError,
        match=r"goes down to 0.05 of the dense model's cost; the nearest that can be had is 0\.\d+, ",
    ):
        found.run(seconds=600.0)
    assert not found.study.trials


def test_the_least_cost_within_a_drop_or_the_nearest_named(search, monkeypatch):
    stub(monkeypatch, left_over)
    found = search(Goal(max_drop=0.1))
    found.run(trials=12)
    done = complete(found.study)
    limit = statistics.median(trial["drop"] for trial in done)
    best = best_of(found.study, Goal(max_drop=limit))
    assert best["cost"] == min(trial["cost"] for trial in done if trial["drop"] <= limit)
    # the limit binds
    assert best["cost"] > min(trial["cost"] for trial in done)
    with pytest.raises(
        ValueError, match=r"loses at most 0 points; the nearest loses 0\.\d+ at 0\.\d+ of the cost"
    ):
        best_of(found.study, Goal(max_drop=0.0))


def test_the_front_has_more_than_the_budget_that_all_trials_spend(search, monkeypatch):
    stub(monkeypatch, left_over)
    found = search(Goal(budget=BUDGET))
    found.run(trials=8)
    front = front_of([*complete(found.study), *found.around()])
    assert front[0]["cost"] < 0.9 * BUDGET < 1.1 * BUDGET < front[-1]["cost"] <= 1.25 * BUDGET
    assert [one["cost"] for one in front] == sorted(one["cost"] for one in front)
    assert [one["loss"] for one in front] == sorted((one["loss"] for one in front), reverse=True)
    # the best is still one of the trials
    assert best_of(found.study, Goal(budget=BUDGET))["cost"] <= BUDGET
    assert search(Goal(max_drop=1.0)).around() == []


# measured in the end


def measured(share, macs=50):
    """A comparison in which that share of the time is taken."""
    timings = (Timing(1, time, 0.0, 1.0, None) for time in (1.0, share))
    return Comparison(*timings, 100, macs, 1, 1, (1.0, 1.0), None)


@pytest.mark.parametrize(("off", "times"), [(1.01, 1), (1.1, 2), (0.9, 2)])
def test_a_time_that_is_missed_is_corrected_by_what_was_measured(deep, cost_of_deep, off, times):
    shape = BEGIN[0]
    tried = settle(
        shape,
        BUDGET,
        cost_of_deep,
        anatomy_of(deep),
        lambda config: measured(off * cost_of_deep(config)),
    )
    assert len(tried) <= times + 1
    assert tried[0].error == pytest.approx(1 / off - 1)
    if times > 1:
        assert abs(tried[-1].error) < 1e-6
        assert (tried[-1].config.tokens[0] < tried[0].config.tokens[0]) == (off > 1)
        assert abs(tried[-1].share - BUDGET) < abs(tried[0].share - BUDGET)


def test_what_is_found_is_the_best_once_it_was_measured(search, monkeypatch):
    """A shape that was promised more tokens than it has time for must win with those that it has."""
    stub(monkeypatch, left_over)
    one = search(Goal(budget=BUDGET))
    one.run(trials=10)
    promised, *others = leaders(one.study)[:3]
    blocks = tuple(promised.user_attrs["config"]["blocks"])

    def measure(config):
        return measured((1.3 if config.blocks == blocks else 1.0) * one.cost(config))

    best = winner(one, measure, timed=True)
    assert best.trial == others[0].user_attrs
    assert best.final.config == best.fitted.config
    assert best.final.share <= BUDGET
    with pytest.raises(
        ValueError,
        match=r"what was found takes more than 0\.75 of the dense model's time; allow more",
    ):
        winner(replace(one, cost=lambda config: 2.0), measure, timed=True)
    # nothing but its MACs is known of one without a time
    assert winner(one, measure, timed=False).trial == promised.user_attrs


def test_where_all_miss_the_time_the_fastest_wins_and_what_holds_it_before_what_is_nearer(
    search, monkeypatch
):
    stub(monkeypatch, left_over)
    one = search(Goal(budget=BUDGET))
    one.run(trials=10)
    few = leaders(one.study)[:3]
    fastest = tuple(few[2].user_attrs["config"]["blocks"])
    share = {
        tuple(trial.user_attrs["config"]["blocks"]): BUDGET * off
        for trial, off in zip(few, (1.2, 1.3, 1.1), strict=True)
    }
    assert (
        winner(one, lambda config: measured(share[config.blocks]), timed=True).final.config.blocks
        == fastest
    )
    noise = itertools.cycle((1.03, 0.96, 0.96))
    assert winner(
        one, lambda config: measured(BUDGET * next(noise)), timed=True
    ).final.share == pytest.approx(0.96 * BUDGET)


def test_a_time_is_corrected_twice_at_most(deep, cost_of_deep):
    noise = itertools.cycle((1.2, 0.8))
    settled = settle(
        BEGIN[0],
        BUDGET,
        cost_of_deep,
        anatomy_of(deep),
        lambda config: measured(next(noise) * BUDGET),
    )
    assert len(settled) == 3


@pytest.mark.parametrize(
    ("goal", "share", "timed", "said"),
    [
        (Goal(budget=0.5), 0.5, True, "the target is held: asked 2.00, measured 2.00"),
        (
            Goal(budget=0.5),
            0.52,
            True,
            "the target is nearly held, by 4.0 %: asked 2.00, measured 1.92",
        ),
        (Goal(budget=0.5), 0.6, True, "the target is missed, by 20.0 %: asked 2.00, measured 1.67"),
        (Goal(budget=0.5), 0.9, False, "the target is held: asked 0.000 G MACs, has 0.000"),
        (
            Goal(max_drop=0.5),
            0.9,
            True,
            "the limit holds on the pictures held out: lost 0.40 points of top-1, 0.5 may be",
        ),
        (
            Goal(max_drop=0.3),
            0.9,
            True,
            "the limit does not hold on the pictures held out: lost 0.40 points",
        ),
    ],
)
def test_whether_a_target_is_held_is_said(goal, share, timed, said):
    found = Measured(BATConfig(), measured(share), 0.5)
    assert held(goal, found, 0.4, timed=timed).startswith(said)


def test_the_preset_stands_beside_at_equal_time_or_macs_or_not_at_all(deep, monkeypatch):
    def at_macs(dense, family, share):
        if share < 0.4:
            raise OutOfReachError(f"nothing at {share:g}")
        return BATConfig.preset(keep_rate=share)

    def at_time(dense, family, share, time_share):
        config = at_macs(dense, family, share)
        return config, time_share(config)

    monkeypatch.setattr("batvit.tune.finalists.at_macs", at_macs)
    monkeypatch.setattr("batvit.tune.finalists.at_time", at_time)

    def stands(share, macs, *, timed):
        found = Measured(BATConfig(), measured(share, macs), share)
        return preset_beside(deep, found, lambda config: measured(config.keep_rate), timed=timed)

    at, preset, missing = stands(0.6, 70, timed=True)
    assert (at, preset.config.keep_rate, preset.share, missing) == (
        "time",
        0.6,
        pytest.approx(0.6),
        [],
    )
    at, preset, missing = stands(0.6, 70, timed=False)
    assert (at, preset.config.keep_rate, missing) == ("MACs", 0.7, [])
    at, preset, missing = stands(0.3, 70, timed=True)
    assert (at, preset.config.keep_rate, missing) == (
        "MACs",
        0.7,
        ["no preset at equal time: nothing at 0.3"],
    )
    assert stands(1.1, 70, timed=True)[2] == [
        "no preset at equal time: tuned saves nothing over the dense model"
    ]
    assert stands(0.6, 33, timed=False) == (
        None,
        None,
        ["no preset at equal MACs: nothing at 0.33"],
    )
