"""A folder of one run: new, claimed, or resumed as it was begun."""

import pytest

from batvit.storage.run_folder import check_new, check_same, claimed, digest


def test_a_folder_without_a_run_is_new(tmp_path):
    check_new(tmp_path, ("run.json",), what="a run", resume=False)
    check_new(tmp_path / "none", ("run.json",), what="a run", resume=False)


def test_a_folder_with_a_run_is_refused_unless_it_is_resumed(tmp_path):
    (tmp_path / "log.jsonl").touch()
    files = ("run.json", "log.jsonl")
    check_new(tmp_path, files, what="a run", resume=True)
    with pytest.raises(
        FileExistsError,
        match=r"already holds a run \(log.jsonl\); go on with it by resume=True, or name another",
    ):
        check_new(tmp_path, files, what="a run", resume=False)


NOW = {"seed": 3, "train": {"lr": 0.1, "workers": 2}, "names": ("a", "b"), "config": None}


@pytest.mark.parametrize(
    "before",
    [
        NOW,
        # JSON has lists for tuples, and other names do not matter
        NOW | {"names": ["a", "b"], "command": "…"},
        # speed alone
        NOW | {"train": {"lr": 0.1, "workers": 8}},
        # an earlier version had no learning rate
        NOW | {"train": {"workers": 2}},
    ],
)
def test_the_same_goes_on(before):
    check_same("RUN", before, NOW, ignore=("train.workers",), defaults={"train": {"lr": 0.1}})


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (NOW | {"seed": 4}, "RUN: begun with seed = 4, and cannot go on with 3; give what it was"),
        (NOW | {"train": {"lr": 0.2}}, "train.lr = 0.2, and cannot go on with 0.1"),
        (NOW | {"train": {"lr": 0.1, "old": 1}}, "train.old = 1, and cannot go on with None"),
        (NOW | {"train": None}, "train.lr = None, and cannot go on with 0.1"),
        (NOW | {"names": ["a", "c"]}, r"names\[1\] = c, and cannot go on with b"),
        (NOW | {"names": ["a"]}, r"names\[1\] = None, and cannot go on with b"),
        (NOW | {"names": []}, r"names\[0\] = None, and cannot go on with a"),
        (NOW | {"config": {"keep": 1}}, "config.keep = 1, and cannot go on with None"),
        ([], "seed = None, and cannot go on with 3"),
        (None, "seed = None, and cannot go on with 3"),
    ],
)
def test_the_first_difference_is_named(before, message):
    with pytest.raises(ValueError, match=message):
        check_same("RUN", before, NOW, ignore=("train.workers",))


def test_what_a_default_says_counts_where_a_field_is_missing():
    with pytest.raises(ValueError, match=r"train.lr = 0.5, and cannot go on with 0.1"):
        check_same("RUN", NOW | {"train": {"workers": 2}}, NOW, defaults={"train": {"lr": 0.5}})
    # a default of a field that there is not now says nothing
    check_same(
        "RUN", {"config": {"mine": 1}}, {"config": {"mine": 1}}, defaults={"config": {"a": 1}}
    )


def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    with claimed(tmp_path / "run"):
        with (
            pytest.raises(FileExistsError, match="another run is writing into it; wait for it"),
            claimed(tmp_path / "run"),
        ):
            pytest.fail("claimed twice")
        # the first of several processes claims it for all
        with claimed(None):
            pass
    with claimed(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()


def test_a_digest_tells_values_apart():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"a": "1"}, ["a", 1], None)}) == 5
