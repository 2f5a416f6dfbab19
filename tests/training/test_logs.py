"""Logs as three programs write them, cut short, resumed, and hostile."""

import json
import os
import random
import subprocess
import sys

import pytest
from timm.utils import update_summary

from batvit.training.logs import CurvePoint, TrainingCurve, log_file, read_curve

UPDATE = {"update": 7, "epoch": 1, "loss": 3.0, "lr": 1e-4}


def epoch(number, top1=50.0, **more):
    losses = {"train_loss": 2.0 / number, "eval_loss": 1.5}
    return {
        "epoch": number,
        **losses,
        "top1": top1,
        "top5": 80.0,
        "lr": 1e-4,
        "seconds": 9.0,
        "samples_per_sec": 70.0,
    } | more


def deit(number, **tested):
    return {
        "train_lr": 1e-3,
        "train_loss": 6.5,
        **tested,
        "epoch": number,
        "n_parameters": 22050664,
    }


def write(path, *rows, end="\n"):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def epochs(path):
    return [(point.epoch, point.top1) for point in read_curve(path).points]


# what each program writes


def test_a_run_of_ours_is_read_from_its_folder(tmp_path):
    run = tmp_path / "bat-0.6"
    run.mkdir()
    write(
        run / "log.jsonl",
        UPDATE,
        UPDATE | {"update": 8},
        epoch(1, 40.0),
        UPDATE | {"update": 9, "epoch": 2},
        epoch(2, 60.0, update=9),
    )
    assert read_curve(run) == TrainingCurve(
        "bat-0.6",
        (CurvePoint(1, 2.0, 1.5, 40.0, 80.0, 1e-4), CurvePoint(2, 1.0, 1.5, 60.0, 80.0, 1e-4)),
    )


def test_a_folder_is_named_however_it_is_reached(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "log.jsonl", epoch(1))
    monkeypatch.chdir(tmp_path / "mine")
    assert read_curve(".").name == "mine"
    assert read_curve("log.jsonl").name == "log"


@pytest.mark.parametrize("name", ["log.txt", "a.LOG", "a.jsonl"])
def test_epochs_of_deit_count_from_0_and_may_have_no_accuracy(tmp_path, name):
    tested = {"test_loss": 1.25, "test_acc1": 71.5, "test_acc5": 90.0}
    path = write(tmp_path / name, deit(0, **tested), deit(1), deit(2, **tested))
    assert read_curve(path).points == (
        CurvePoint(1, 6.5, 1.25, 71.5, 90.0, 1e-3),
        CurvePoint(2, 6.5, None, None, None, 1e-3),
        CurvePoint(3, 6.5, 1.25, 71.5, 90.0, 1e-3),
    )


def test_the_summary_of_timm_is_read_as_timm_writes_it(tmp_path):
    path = tmp_path / "summary.csv"
    for number in range(2):
        update_summary(
            number,
            {"loss": 3.0 - number},
            {"loss": 1.0, "top1": 60.0 + number, "top5": 85.0},
            path,
            lr=0.5,
        )
    assert read_curve(path) == TrainingCurve(
        "summary",
        (CurvePoint(1, 3.0, 1.0, 60.0, 85.0, 0.5), CurvePoint(2, 2.0, 1.0, 61.0, 85.0, 0.5)),
    )


def test_a_table_may_lack_columns_and_values_and_have_others(tmp_path):
    path = write(
        tmp_path / "a.csv",
        '"epoch",eval_top1,throughput',
        "0,,fast",
        "",
        "epoch,eval_top1,throughput",
        "1.0,7,9",
    )
    assert read_curve(path).points == (
        CurvePoint(1, None, None, None, None, None),
        CurvePoint(2, None, None, 7.0, None, None),
    )


# what happens to runs


def test_of_an_epoch_logged_again_the_later_line_counts(tmp_path):
    path = write(
        tmp_path / "a.jsonl", epoch(1, 10.0), epoch(3, 30.0), epoch(2, 20.0), epoch(3, 33.0)
    )
    assert epochs(path) == [(1, 10.0), (2, 20.0), (3, 33.0)]
    path = write(tmp_path / "a.csv", "epoch,eval_top1", "1,5", "0,4", "1,6")
    assert epochs(path) == [(1, 4.0), (2, 6.0)]


def test_a_last_line_cut_short_is_left_out_at_every_byte(tmp_path):
    whole = json.dumps(epoch(2) | {"note": "é"}, ensure_ascii=False).encode()
    path = tmp_path / "a.jsonl"
    for length in range(len(whole)):
        path.write_bytes(json.dumps(epoch(1)).encode() + b"\n" + whole[:length])
        assert [number for number, _ in epochs(path)] == [1]
    path.write_bytes(json.dumps(epoch(1)).encode() + b"\r\n" + whole)
    assert [number for number, _ in epochs(path)] == [1, 2]


@pytest.mark.parametrize("end", ["1", "1,", "1,55,5e", "1,55,5e-"])
def test_a_last_row_cut_short_is_left_out(tmp_path, end):
    assert epochs(write(tmp_path / "a.csv", "epoch,eval_top1,lr", "0,50,1e-3", end, end="")) == [
        (1, 50.0)
    ]


def test_a_last_row_without_an_end_of_line_counts_if_it_is_whole(tmp_path):
    assert epochs(write(tmp_path / "a.csv", "epoch,eval_top1", "0,50", "1,55", end="")) == [
        (1, 50.0),
        (2, 55.0),
    ]


def test_what_is_not_finite_is_none(tmp_path):
    row = (
        '{"epoch": 1, "train_loss": NaN, "eval_loss": Infinity, "top1": 1e999, "top5": null, '
        '"lr": 1}'
    )
    assert read_curve(write(tmp_path / "a.jsonl", row)).points == (
        CurvePoint(1, None, None, None, None, 1.0),
    )
    row = read_curve(write(tmp_path / "a.csv", "epoch,train_loss,eval_top1", "0,nan,-inf")).points
    assert row == (CurvePoint(1, None, None, None, None, None),)


def test_the_best_point_is_the_earliest_of_the_highest(tmp_path):
    curve = read_curve(
        write(
            tmp_path / "a.jsonl",
            epoch(1, None),
            epoch(2, 7.0),
            epoch(3, 9.0),
            epoch(4, 9.0),
            epoch(5, 0.0),
        )
    )
    assert curve.best == curve.points[2]
    assert read_curve(write(tmp_path / "b.jsonl", epoch(1, 0.0))).best is not None
    assert read_curve(write(tmp_path / "c.jsonl", epoch(1, None))).best is None


# what is refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not JSON"),
        ('{"epoch": 2, "top1"', "not JSON"),
        ('{"epoch": 2, "tr{"epoch": 2}', "not JSON"),
        ("[" * 200_000, "not JSON"),
        ('{"epoch": ' + "9" * 5_000 + "}", "not JSON"),
        ("[1]", r"expected a JSON object, got \[1\]; remove"),
        (
            epoch(2, top1="71.2"),
            r"top1 must be a number up to 1e\+100, got '71.2'; correct or remove the line",
        ),
        (epoch(2, top1=True), r"top1 must be a number up to 1e\+100, got True"),
        (epoch(2, lr=[1]), r"lr must be a number up to 1e\+100, got \[1\]"),
        (epoch(2, eval_loss=10**400), r"eval_loss must be a number up to 1e\+100, got 1000"),
        (
            epoch(2, train_loss={"a": ["b" * 10**6] * 9}),
            r"train_loss must be a number up to 1e\+100, got {'a'",
        ),
        (epoch(2, train_loss=-1e101), r"train_loss must be a number up to 1e\+100, got -1e\+101"),
        (epoch(1, epoch=0), "epoch must be an integer from 1 to 1000000, got 0"),
        (epoch(1, epoch=1.5), "epoch must be an integer from 1 to 1000000, got 1.5"),
        (epoch(1, epoch=10**9), "epoch must be an integer from 1 to 1000000, got 1000000000"),
        (epoch(1, epoch="2"), r"epoch must be a number up to 1e\+100, got '2'"),
        (epoch(1, epoch=None), "epoch must be an integer .* got None"),
        (deit(-1), "epoch must be an integer from 0 to"),
        (deit(1, test_acc1="x"), r"test_acc1 must be a number up to 1e\+100, got 'x'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = write(tmp_path / "a.jsonl", epoch(1), "", line, epoch(3))
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 3: {said}") as error:
        read_curve(path)
    assert len(str(error.value)) < 500 + len(str(path))


def test_a_bad_last_line_that_was_not_cut_short_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line 2: not JSON"):
        read_curve(write(tmp_path / "a.jsonl", epoch(1), '{"epoch": 2'))
    with pytest.raises(ValueError, match="line 2: not JSON"):
        read_curve(write(tmp_path / "a.jsonl", epoch(1), "[" * 200_000, end=""))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ["step,loss", "1,2"],
            "line 1: the columns must be epoch and any of train_loss, .* got .'step', 'loss'",
        ),
        (["epoch,loss", "1,2"], "line 1: the columns must be epoch and any of"),
        (["epoch,lr", "0,1", "1"], "line 3: 1 values for 2 columns; remove the line"),
        (["epoch,lr", "0,1,2"], "line 2: 3 values for 2 columns"),
        (
            ["epoch,lr", "0,high"],
            r"line 2: lr must be a number up to 1e\+100, got 'high'; correct or remove",
        ),
        (["epoch,lr", "x,1"], r"line 2: epoch must be a number up to 1e\+100, got 'x'"),
        (["epoch,lr", ",1"], "line 2: epoch must be an integer from 0 to 1000000, got None"),
        (["epoch,lr", "nan,1"], "line 2: epoch must be an integer from 0 to 1000000, got nan"),
        (["epoch,lr", "0," + "9" * 200_000], "line 2: not CSV .*; give timm's summary.csv"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, said):
    with pytest.raises(ValueError, match=rf"a\.csv, {said}"):
        read_curve(write(tmp_path / "a.csv", *rows))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_log_without_an_epoch_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=rf"{name}: is empty; give the log of a run that has finished an epoch"
    ):
        read_curve(tmp_path / name)
    write(
        tmp_path / "updates.jsonl",
        UPDATE,
        {"epoch": 1, "loss": 2.0},
        {"epoch": 1, "lr": 1.0, "update": 3},
    )
    write(tmp_path / "header.csv", "epoch,eval_top1")
    for other in ("updates.jsonl", "header.csv"):
        with pytest.raises(ValueError, match=rf"{other}: holds no epoch; give the log"):
            read_curve(tmp_path / other)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{\x00}\x00\n\x00", random.Random(0).randbytes(4096) + b"\n", b"\0" * 64 + b"\n"],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_what_is_no_text_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}, line \d+: "):
        read_curve(tmp_path / name)


def test_what_is_not_there_or_no_log_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"nowhere: no such file; give the folder of a run that holds log.jsonl, or a",
    ):
        read_curve(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl: no such file"):
        read_curve(tmp_path)
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(
        ValueError,
        match=r"the suffix of a log is one of .jsonl, .txt, .log, .csv, got '.safetensors'; rename",
    ):
        read_curve(tmp_path / "best.safetensors")


def test_a_pipe_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(FileNotFoundError, match="no such file"):
        log_file(tmp_path)


def test_reading_a_log_needs_no_library_for_figures():
    code = "import sys, batvit.training.logs; print('matplotlib' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize("name", ["log.jsonl", "log.txt", "summary.csv"])
def test_a_log_without_an_end_is_refused_before_it_is_read(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=f"{name}: is too large, 1,048,576 MiB where 256 are"):
        read_curve(tmp_path / name)
