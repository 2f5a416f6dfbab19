"""The rows so far: kept in a folder, resumed, and never believed."""

import json
from dataclasses import replace

import pytest
from example_rows import row, timing

from batvit.compare.results import Results
from batvit.compare.rows import Key, RowGroup

METADATA = {"model": "deit", "size": (224, 224)}


@pytest.fixture
def saved(tmp_path):
    """The folder of a comparison with one plan, at equal MACs and at equal time."""
    results = Results.open(tmp_path, METADATA, resume=False)
    for at in ("macs", "time"):
        results.rows.append(row(at=at, timing=timing()))
        results.dense_rows.append(row("dense", at=at, timing=timing(speedup=1.0)))
    results.save()
    return tmp_path


def changed(folder, change):
    """Change what is saved: at the top, or in the first row."""
    path = folder / "progress.json"
    kept = json.loads(path.read_text())
    if isinstance(change, dict):
        (kept if change.keys() <= kept.keys() else kept["rows"][0]).update(change)
    path.write_text(change if isinstance(change, str) else json.dumps(kept))


def test_what_is_saved_reads_back(saved):
    results = Results.open(saved, METADATA, resume=True)
    assert [row.key.group.at for row in results.rows] == ["macs", "time"]
    assert results.rows[0] == row(timing=timing())
    assert [row.plan for row in results.dense_rows] == ["dense", "dense"]
    assert results.metadata == {"model": "deit", "size": [224, 224]}
    assert results.untimed() == []


def test_a_folder_that_holds_one_is_gone_on_with_on_request_alone(saved):
    with pytest.raises(
        FileExistsError, match=r"already holds a comparison .*; go on with it by resume=True"
    ):
        Results.open(saved, METADATA, resume=False)


def test_another_comparison_is_not_gone_on_with(saved):
    with pytest.raises(ValueError, match="begun with model = deit, and cannot go on with vit"):
        Results.open(saved, METADATA | {"model": "vit"}, resume=True)


def test_what_another_comparison_left_is_removed(tmp_path):
    scores = tmp_path / "scores.safetensors"
    scores.write_bytes(b"of another")
    Results.open(tmp_path, {}, resume=False)
    assert not scores.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": None}, "it has no list of rows"),
        ({"dense_rows": {}}, "it has no list of dense_rows"),
        ({"rows": [3]}, "in rows: 3"),
        ({"rows": [{"unknown": 1}]}, "in rows: {'unknown': 1}"),
        ({"rows": [{}]}, "in rows: plan = None"),
        ({"plan": ["x"]}, r"in rows: plan = \['x'\]"),
        ({"target": 10**400}, "in rows: target = 1000"),
        ({"target": None}, "in rows: target = None"),
        ({"at": ["macs"]}, r"in rows: at = \['macs'\]"),
        ({"mac_share": None}, "in rows: mac_share = None"),
        ({"kl": float("nan")}, "in rows: .* = "),
        ({"tokens": ["3"]}, r"in rows: tokens = \['3'\]"),
        ({"off_target": 1}, "in rows: off_target = 1"),
        ({"config": 3}, "in rows: config = 3"),
        ({"config": {"no": 1}}, "no"),
        ("[]", "it has no list of rows"),
        ("{", "not a JSON file"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(saved, change, said):
    changed(saved, change)
    with pytest.raises(
        ValueError,
        match=rf"progress\.json: not what a comparison leaves \(.*{said}.*remove it to begin anew",
    ):
        Results.open(saved, METADATA, resume=True)


def test_without_the_dense_models_times_a_target_is_timed_again(saved):
    path = saved / "progress.json"
    kept = json.loads(path.read_text())
    kept["dense_rows"].pop()
    kept["failed"] = [{}]
    path.write_text(json.dumps(kept))
    assert Results.open(saved, METADATA, resume=True).untimed() == [RowGroup(0.5, "time")]


def test_a_row_that_was_not_timed_has_its_group_timed_as_a_whole(saved):
    results = Results.open(saved, METADATA, resume=True)
    results.rows += [row("tome"), row("evit"), row("tome", 0.3)]
    assert results.untimed() == [RowGroup(0.5, "macs"), RowGroup(0.3, "macs")]


def test_the_dense_row_is_the_middle_of_all_its_times(tmp_path):
    times = [(9.0, 1.0), (5.0, 4.0), (7.0, 2.0)]
    dense_rows = []
    for i, (step_time, latency) in enumerate(times):
        measured = timing(step_time=step_time, latency_ms=latency)
        dense_rows.append(row("dense", 0.1 * (i + 1), "time", timing=measured))
    results = Results(tmp_path, {}, dense_rows=dense_rows)
    for _ in range(2):
        dense = results.dense
        assert (dense.timing.step_time, dense.timing.latency_ms, dense.group) == (7.0, 2.0, None)
    assert [(row.timing.step_time, row.timing.latency_ms) for row in results.dense_rows] == times


def test_what_is_missing_is_in_the_order_of_plans_and_targets(tmp_path):
    results = Results(tmp_path, {}, rows=[row("bat", 0.5, "macs")])
    assert list(results.missing(["bat", "tome"], [0.5])) == [
        Key("bat", RowGroup(0.5, "time")),
        Key("tome", RowGroup(0.5, "macs")),
        Key("tome", RowGroup(0.5, "time")),
    ]


def test_rows_are_replaced_by_their_keys(tmp_path):
    results = Results(tmp_path, {}, rows=[row("a"), row("b"), row("a", at="time")])
    results.update([replace(row("a"), timing=timing())])
    assert [known.timing is None for known in results.rows] == [False, True, True]
    assert [known.plan for known in results.rows] == ["a", "b", "a"]


def test_a_plan_that_fails_is_left_out_with_its_reason(tmp_path):
    results = Results(tmp_path, {}, rows=[row("a"), row("b")])
    results.fail(row("a").key, KeyError("x"))
    assert [known.plan for known in results.rows] == ["b"]
    (failure,) = results.failures
    assert str(failure) == "a at 0.5 of the MACs: KeyError: 'x'"
    assert failure.to_dict() == {
        "plan": "a",
        "target": 0.5,
        "at": "macs",
        "reason": "KeyError: 'x'",
    }
    results.check_any()
    results.fail(row("b").key, ValueError("no"))
    with pytest.raises(ValueError, match="no plan meets a target: KeyError: 'x'"):
        results.check_any()
