"""batvit bench: rows for every batch size and mode, one block, files, and what is refused."""

import csv
import json
import shutil
from functools import partial

import pytest
import timm
import torch

from batvit.cli import bench as command
from batvit.cli import main
from batvit.measure.speed import COMPILE_MODES

NAME = "test_vit"


SMALL = (
    "--img-size",
    "64",
    "--num-classes",
    "3",
    "--device",
    "cpu",
    "--rounds",
    "2",
    "--warmup",
    "1",
    "--threads",
    "1",
)


no_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch's default backend needs a C++ compiler",
)


@pytest.fixture(autouse=True)
def _no_graph_is_left():
    yield
    torch.compiler.reset()


def bench(*arguments, name=NAME):
    return main(["bench", name, *SMALL, *map(str, arguments)])


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def written(rows):
    """Rows of a JSON file as a CSV file has them."""
    return [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
    ]


def test_every_batch_size_is_in_all_files(tmp_path, capsys):
    numbers, rows, plot = tmp_path / "b.json", tmp_path / "b.csv", tmp_path / "b.svg"
    assert bench("--batch-size", 1, 256, "--json", numbers, "--csv", rows, "--plot", plot) == 0
    found = json.loads(numbers.read_text())
    assert [(row["batch_size"], row["mode"], row["compile_mode"]) for row in found["results"]] == [
        (1, "eager", None),
        (256, "eager", None),
    ]
    assert table(rows) == written(found["results"])
    assert b"<svg" in plot.read_bytes()
    out, err = capsys.readouterr()
    assert "fp32, eager, cpu, 1 CPU threads" in out
    assert "dense is faster" not in out
    assert err == ""


def test_what_fits_is_reported_where_a_batch_does_not(tmp_path, capsys):
    numbers, rows, plot = tmp_path / "b.json", tmp_path / "b.csv", tmp_path / "b.png"
    assert (
        bench("--batch-size", 2, 10**12, 3, "--json", numbers, "--csv", rows, "--plot", plot) == 2
    )
    out, err = capsys.readouterr()
    assert err.startswith(
        "batvit bench: not enough memory; lower --batch-size or --img-size (batch 1000000000000: "
    )
    assert err.count("\n") == 1
    assert [row["batch_size"] for row in json.loads(numbers.read_text())["results"]] == [2]
    assert [row["batch_size"] for row in table(rows)] == ["2"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "    2  reduced" in out


@pytest.mark.unchecked
@no_compiler
def test_compiled_models_are_beside_the_eager_ones(tmp_path, monkeypatch, capsys):
    numbers, rows = tmp_path / "b.json", tmp_path / "b.csv"
    # a block takes the compiler as long as any other
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))
    sites = ("--blocks", 0, "--keep-rate", 0.5)
    assert bench("--compile", "--batch-size", 2, *sites, "--json", numbers, "--csv", rows) == 0
    found = json.loads(numbers.read_text())
    assert found["compile_mode"] == "default"
    assert [
        (row["batch_size"], row["mode"], row["compiled"], row["compile_mode"])
        for row in found["results"]
    ] == [
        (2, "eager", False, None),
        (2, "compiled", True, "default"),
    ]
    assert table(rows) == written(found["results"])
    eager, compiled = found["results"]
    for name in ("peak_memory_mb", "dense_peak_memory_mb", "reduction_share"):
        assert eager[name] > 0
        assert compiled[name] is None
    out = capsys.readouterr().out
    for name in ("dense eager", "reduced eager", "dense compiled", "reduced compiled"):
        assert f"    2  {name} " in out
    (verdict,) = (line for line in out.splitlines() if line.startswith("batch 2: "))
    best = min(found["results"], key=lambda row: row["dense_step_time"])
    assert f"dense is faster {best['mode']} (" in verdict
    assert (
        f"there reduced is {best['speedup']:.2f} times as fast, "
        f"{best['realised_share']:.2f} of the MAC ratio"
    ) in verdict
    assert "eager and compiled (default)" in out
    # nothing is cut off in a terminal of 80 columns
    assert "…" not in out


@pytest.mark.parametrize(("name", "prefix"), [(NAME, 1), ("vit_small_patch16_dinov3", 5)])
def test_a_block_is_timed_at_the_numbers_of_tokens_that_matter(tmp_path, capsys, name, prefix):
    numbers, rows = tmp_path / "b.json", tmp_path / "b.csv"
    arguments = ("--per-block", "--tokens", "9,7", "--blocks", "1,3", "--batch-size", 1, 2)
    assert bench(*arguments, "--json", numbers, "--csv", rows, name=name) == 0
    found = json.loads(numbers.read_text())["per_block"]
    assert table(rows) == written(found)
    dense, scheduled = prefix + 16, {prefix + 9, prefix + 7}
    counts = sorted({dense, *scheduled, 16, 32})
    assert [(row["batch_size"], row["tokens"]) for row in found] == [
        (batch, count) for batch in (1, 2) for count in counts
    ]
    for row in found:
        assert (row["dense"], row["scheduled"]) == (
            row["tokens"] == dense,
            row["tokens"] in scheduled,
        )
        assert row["us_per_token"] == pytest.approx(
            1e3 * row["step_time"] / row["batch_size"] / row["tokens"]
        )
        if row["dense"]:
            assert row["speedup"] == row["mac_ratio"] == 1
        else:
            assert (row["mac_ratio"] > 1) == (row["tokens"] < dense)
    out = capsys.readouterr().out
    assert out.count(f"\n    {dense:2}  dense") == 2
    assert out.count("  scheduled  ") == 4
    assert "…" not in out


@pytest.mark.unchecked
@no_compiler
def test_a_block_is_timed_compiled(tmp_path, capsys):
    numbers = tmp_path / "b.json"
    arguments = (
        "--tokens",
        8,
        "--blocks",
        1,
        "--batch-size",
        1,
        "--compile-mode",
        "reduce-overhead",
        "--json",
        numbers,
    )
    assert bench("--per-block", "--compile", *arguments) == 0
    found = json.loads(numbers.read_text())
    assert [row["tokens"] for row in found["per_block"]] == [9, 16, 17, 32]
    assert (
        {row["compile_mode"] for row in found["per_block"]}
        == {found["compile_mode"]}
        == {"reduce-overhead"}
    )
    assert "compiled (reduce-overhead)" in capsys.readouterr().out


def test_a_block_in_bfloat16(tmp_path):
    assert (
        bench(
            "--per-block", "--batch-size", 1, "--precision", "bf16", "--json", tmp_path / "b.json"
        )
        == 0
    )
    assert json.loads((tmp_path / "b.json").read_text())["precision"] == "bf16"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plot", "x.jpg"], "--plot x.jpg: the suffix must be one of .png, .svg, .pdf"),
        (
            ["--plot", "x.png", "--per-block"],
            "--plot x.png shows whole models; leave it out, or leave out --per-block",
        ),
        (
            ["--compile-mode", "max-autotune"],
            "--compile-mode max-autotune says how to compile; add --compile",
        ),
        (
            ["--csv", "nowhere/x.csv"],
            "cannot write nowhere/x.csv: the folder nowhere does not exist",
        ),
        (
            ["--plot", "nowhere/x.svg"],
            "cannot write nowhere/x.svg: the folder nowhere does not exist",
        ),
        (
            ["--csv", "x", "--json", "./x"],
            "x would overwrite what is read or written beside it; name another file",
        ),
        (
            ["--csv", "x.svg", "--plot", "x.svg"],
            "x.svg would overwrite what is read or written beside it",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    assert bench(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--compile", "--per-block"])
def test_an_exported_model_is_timed_as_it_is(capsys, option):
    assert main(["bench", "model.onnx", "--dense", "dense.onnx", option]) == 2
    assert (
        f"{option} needs a model of torch, model.onnx is exported already; leave it out"
        in capsys.readouterr().err
    )


def test_an_unknown_compile_mode_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench("--compile", "--compile-mode", "fast")
    assert "invalid choice: 'fast'" in capsys.readouterr().err


def test_the_options_know_all_compile_modes():
    assert command.COMPILE_MODES == COMPILE_MODES
