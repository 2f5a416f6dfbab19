"""batvit plot: a table, a figure and numbers of runs, and what is refused before any is written."""

import json

import pytest

from batvit.cli import main


def write(path, *top1s, **more):
    rows = [
        {"epoch": i, "train_loss": 3.0 / i, "top1": top1, "lr": 1e-4} | more
        for i, top1 in enumerate(top1s, 1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A run of ours and one of timm, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bat-0.6" / "log.jsonl", 60.0, 71.25, 70.0)
    (tmp_path / "summary.csv").write_text("epoch,train_loss,eval_top1\n0,4,55\n1,nan,\n")
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_runs_of_several_programs_are_in_table_figure_and_json(runs, capsys):
    assert main(["plot", "bat-0.6", "[b]timm=summary.csv", "-o", "c.svg", "--json", "c.json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    header, *rows, last = out.splitlines()
    assert header.split("  ")[-1] == "last loss"
    assert [row.split() for row in rows] == [
        ["bat-0.6", "3", "71.25", "2", "70.00", "1.0000"],
        ["[b]timm", "2", "55.00", "1", "-", "-"],
    ]
    assert last == "wrote c.svg"
    drawn = (runs / "c.svg").read_text()
    assert "<!-- bat-0.6 (71.2) -->" in drawn
    assert "<!-- [b]timm (55.0) -->" in drawn
    first, second = json.loads((runs / "c.json").read_text())["runs"]
    assert (first["name"], first["path"], first["best"]["epoch"]) == ("bat-0.6", "bat-0.6", 2)
    assert [point["top1"] for point in first["epochs"]] == [60.0, 71.25, 70.0]
    assert (second["name"], second["path"]) == ("[b]timm", "summary.csv")
    assert second["epochs"][1] == dict.fromkeys(second["epochs"][1]) | {"epoch": 2}


def test_the_figure_has_a_name_by_default(runs):
    assert main(["plot", "summary.csv"]) == 0
    assert (runs / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert files(runs) == ["bat-0.6", "curves.png", "summary.csv"]


def test_a_run_without_accuracy_is_shown(runs, capsys):
    write(runs / "a.jsonl", None)
    assert main(["plot", "a.jsonl"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["a", "1", "-", "-", "-", "3.0000"]


def test_a_path_that_is_there_may_hold_an_equals_sign(runs, capsys):
    write(runs / "lr=0.1" / "log.jsonl", 50.0)
    assert main(["plot", "lr=0.1", "b=lr=0.1/log.jsonl", "--json", "c.json"]) == 0
    found = json.loads((runs / "c.json").read_text())["runs"]
    assert [(run["name"], run["path"]) for run in found] == [
        ("lr=0.1", "lr=0.1"),
        ("b", "lr=0.1/log.jsonl"),
    ]


def test_runs_of_one_name_are_refused_unless_renamed(runs, capsys):
    write(runs / "other" / "log.jsonl", 50.0)
    pair = ("bat-0.6/log.jsonl", "other/log.jsonl")
    assert main(["plot", *pair]) == 2
    said = "batvit plot: two runs are named 'log'; rename one, such as log-2=other/log.jsonl\n"
    assert capsys.readouterr().err == said
    assert main(["plot", pair[0], f"log-2={pair[1]}"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bat-0.6", "-o", "c.jpg"], "--output c.jpg: the suffix must be one of .png, .svg, .pdf"),
        (
            ["bat-0.6", "-o", "nowhere/c.png"],
            "cannot write nowhere/c.png: the folder nowhere does not exist",
        ),
        (["bat-0.6", "--json", "bat-0.6"], "cannot write bat-0.6: it is a folder"),
        (
            ["bat-0.6", "--json", "bat-0.6/log.jsonl"],
            "bat-0.6/log.jsonl would overwrite what is read",
        ),
        (["a=summary.csv", "--json", "summary.csv"], "summary.csv would overwrite what is read"),
        (
            ["bat-0.6", "-o", "c.png", "--json", "./c.png"],
            "c.png would overwrite what is read or written beside it",
        ),
        (
            ["bat-0.6", "gone"],
            "gone: no such file; give the folder of a run that holds log.jsonl, or a log",
        ),
        (["a=gone/log.jsonl"], "gone/log.jsonl: no such file"),
        (["=bat-0.6"], "'=bat-0.6' must be RUN or NAME=RUN; give both parts"),
        (["a="], "'a=' must be RUN or NAME=RUN; give both parts"),
        (
            ["bat-0.6", "strings.jsonl"],
            "strings.jsonl, line 1: top1 must be a number up to 1e+100, got '71'; correct or",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(runs, capsys, arguments, said):
    write(runs / "strings.jsonl", "71")
    before = files(runs), (runs / "bat-0.6" / "log.jsonl").read_text()
    assert main(["plot", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"batvit plot: {said}")
    assert err.count("\n") == 1
    assert (files(runs), (runs / "bat-0.6" / "log.jsonl").read_text()) == before


def test_a_run_must_be_given(capsys):
    with pytest.raises(SystemExit):
        main(["plot"])
    assert "the following arguments are required: RUN" in capsys.readouterr().err
