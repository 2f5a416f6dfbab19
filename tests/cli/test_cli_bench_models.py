"""batvit bench on whole models."""

import csv
import json
import os
import random
import subprocess
import sys

import pytest
from command_runs import NAME, SMALL

import batvit
from batvit.cli import main


def test_bench_compares_every_batch_size(writes):
    arguments = ("--batch-size", 1, 2, "--rounds", 2, "--warmup", 1, "--threads", 1)
    out, err, fields = writes("bench", NAME, *SMALL, *arguments)
    assert [result["batch_size"] for result in fields["results"]] == [1, 2]
    for result in fields["results"]:
        assert result["mac_ratio"] == pytest.approx(result["dense_gmacs"] / result["gmacs"])
        # the median over rounds, as batvit.measure.clock defines it
        assert result["speedup_low"] <= result["speedup"] <= result["speedup_high"]
        assert result["realised_share"] == pytest.approx(result["speedup"] / result["mac_ratio"])
        assert result["samples_per_sec"] > 0
        assert 0 < result["reduction_share"] < 1
        assert (result["rounds"], result["compiled"]) == (2, False)
    peaks = [result["peak_memory_mb"] for result in fields["results"]]
    assert 0 < peaks[0] < peaks[1]
    assert (fields["img_size"], fields["precision"], fields["device"], fields["threads"]) == (
        [64, 64],
        "fp32",
        "cpu",
        1,
    )
    assert fields["config"] == json.loads(json.dumps(batvit.BATConfig.preset().to_dict()))
    assert "1 CPU threads" in out
    # nothing is cut off in a terminal of 80 columns
    assert "…" not in out
    assert err.strip() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "1", "-2"], "--batch-size: expected an integer of 1 or more, got '-2'"),
        (["--rounds", "0"], "--rounds: expected an integer of 1 or more, got '0'"),
        (["--warmup", "-1"], "--warmup: expected an integer of 0 or more, got '-1'"),
        (["--threads", "two"], "--threads: expected an integer of 1 or more, got 'two'"),
        (
            ["--compile", "--warmup", "0", *SMALL],
            "--warmup must be 1 or more, as the first run compiles, got 0",
        ),
    ],
)
def test_bench_refuses(refuses, arguments, said):
    assert said in refuses("bench", NAME, *arguments)


def test_bench_without_a_compiler_says_so(tmp_path):
    # in an interpreter of its own: torch remembers which compiler it found
    command = [
        sys.executable,
        "-m",
        "batvit",
        "bench",
        "test_vit",
        "--img-size",
        "64",
        "--compile",
        "--batch-size",
        "1",
    ]
    nowhere = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--rounds", "1", "--warmup", "1"],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2
    assert "torch.compile does not work here (" in said
    assert "No working C++ compiler" in said
    assert said.endswith("; run without compiling")


@pytest.mark.parametrize("options", [(), ("--compile",)])
def test_a_bug_in_bench_is_not_blamed_on_the_compiler(monkeypatch, options):
    def broken(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("batvit.measure.speed.benchmark", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["bench", NAME, *SMALL, *options])


QUIET = (10.0, 10.1)
# as where another process takes the core half of the time
BUSY = (10.0, 40.0)


@pytest.mark.parametrize(("times", "rounds", "unsteady"), [(QUIET, 8, False), (BUSY, 24, True)])
@pytest.mark.parametrize("what", [(), ("--per-block",)])
def test_bench_repeats_and_marks_what_spreads_too_much(
    writes, synthetic_clock, tmp_path, times, rounds, unsteady, what
):
    generator = random.Random(0)
    synthetic_clock(lambda: generator.choice(times))
    path = tmp_path / "table.csv"
    arguments = ("--batch-size", 1, "--rounds", 8, "--warmup", 0, "--csv", path, *what)
    out, _, fields = writes("bench", NAME, *SMALL, *arguments)
    rows = fields["per_block" if what else "results"]
    assert {row["rounds"] for row in rows} == {rounds}
    assert any(row["unsteady"] for row in rows) is unsteady
    assert ("? times spread too much to rank by the speed-up" in out) is unsteady
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["unsteady"] for line in table] == [str(row["unsteady"]) for row in rows]
    assert f"median of {rounds} in turns" in out
