"""``batvit export``, and ``batvit eval`` on what it wrote."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from batvit.cli import main
from batvit.deploy.export import export
from batvit.deploy.load import load_engine

NAME = "test_vit.r160_in1k"
REDUCTION = ("--keep-rate", "0.5", "--blocks", "2")
graphs = pytest.mark.unchecked


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def _shallow():
    """A block costs an exporter as much as any other."""
    create, depths = timm.create_model, {"test_vit": 4, "test_vit3": 4}

    def shallow(name, *arguments, **settings):
        depth = depths.get(name.partition(".")[0])
        return create(name, *arguments, **({} if depth is None else {"depth": depth}) | settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timm, "create_model", shallow)
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Arguments for a model of four blocks with its own weights, 16 patches and three classes."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=3, img_size=64)
    with torch.no_grad():
        model.head.weight.normal_(0, 0.5)
    save_file(model.state_dict(), path)
    return NAME, "--checkpoint", path, "--num-classes", 3, "--img-size", 64


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four pictures of each of three classes."""
    folder = tmp_path_factory.mktemp("data")
    numbers = np.random.default_rng(0)
    for label in ("bird", "cat", "dog"):
        (folder / label).mkdir()
        for i in range(4):
            colours = numbers.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((80, 70), Image.Resampling.BICUBIC).save(
                folder / label / f"{i}.png"
            )
    return folder


@pytest.fixture(scope="module")
def written(small, tmp_path_factory):
    """A reduced and a dense .onnx file of the model."""
    folder = tmp_path_factory.mktemp("written")
    assert (
        ends(
            "export",
            *small,
            *REDUCTION,
            "-o",
            folder / "reduced.onnx",
            "--json",
            folder / "reduced.json",
        )
        == 0
    )
    assert (
        ends(
            "export",
            *small,
            "--dense",
            "-o",
            folder / "dense.onnx",
            "--json",
            folder / "dense.json",
        )
        == 0
    )
    return folder


def ends(*arguments):
    """How a command ends: argparse leaves by an exception, the rest returns."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def refuses(capfd, tmp_path):
    """Check that a command ends with 2 and one line on standard error; give the line.

    Nothing else is printed, and no file is written.
    """

    def check(*arguments):
        before = names(tmp_path)
        assert ends(*arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert err.startswith(f"batvit {arguments[0]}: ")
        assert names(tmp_path) == before
        return err

    return check


# export


@graphs
def test_both_files_say_what_they_are(written):
    assert names(written) == ["dense.json", "dense.onnx", "reduced.json", "reduced.onnx"]
    metadata = {
        name: load_engine(written / f"{name}.onnx").metadata for name in ("dense", "reduced")
    }
    said = {name: json.loads((written / f"{name}.json").read_text()) for name in metadata}
    assert {each.model for each in metadata.values()} == {NAME}
    assert (metadata["dense"].config, metadata["reduced"].config["keep_rate"]) == (None, 0.5)
    assert (
        metadata["reduced"].macs
        < metadata["dense"].macs
        == metadata["reduced"].dense_macs
        == metadata["dense"].dense_macs
    )
    for name, fields in said.items():
        assert fields["output"] == str(written / f"{name}.onnx")
        assert (fields["samples"], fields["int8"]) == (8, False)
        assert (fields["within"], fields["agreement"]) == (100, 100)
        assert 0 < fields["largest_difference"] < 1e-4
    assert said["reduced"]["gmacs"] == metadata["reduced"].macs / 1e9
    assert said["reduced"]["dense_gmacs"] == metadata["dense"].macs / 1e9
    assert said["dense"]["gmacs"] == said["dense"]["dense_gmacs"] == metadata["dense"].macs / 1e9
    assert said["dense"]["model"] == said["reduced"]["model"] == NAME


@graphs
def test_eval_of_files_gives_what_the_models_give(small, data, written, tmp_path, capsys):
    files = (written / "reduced.onnx", "--dense", written / "dense.onnx")
    for name, arguments in (("files", files), ("models", (*small, *REDUCTION))):
        given = (
            *arguments,
            "--data",
            data,
            "--device",
            "cpu",
            "--batch-size",
            5,
            "--json",
            tmp_path / f"{name}.json",
        )
        assert ends("eval", *given) == 0
    fields = {
        name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("files", "models")
    }
    assert fields["files"].pop("model") == str(written / "reduced.onnx")
    assert fields["models"].pop("model") == NAME
    # the engines round differently
    assert fields["files"].pop("loss") == pytest.approx(fields["models"].pop("loss"), abs=1e-3)
    assert fields["files"].pop("runtime") == f"ONNX Runtime {onnxruntime.__version__}"
    assert fields["models"].pop("runtime") == f"torch {torch.__version__}"
    assert fields["files"].pop("int8") is False
    assert fields["files"] == fields["models"]
    assert fields["files"]["samples"] == 12
    assert fields["files"]["agreement"] >= 50
    head, dense, reduced, last = capsys.readouterr().out.splitlines()[:4]
    assert head.split() == [
        "top-1",
        "%",
        "top-5",
        "%",
        "same",
        "class",
        "as",
        "dense",
        "%",
        "G",
        "MACs",
    ]
    assert dense.split()[0] == "dense"
    assert dense.split()[-2:] == ["100.00", f"{fields['files']['dense_gmacs']:.3f}"]
    assert reduced.split() == [
        "reduced",
        *(f"{fields['files'][name]:.2f}" for name in ("top1", "top5", "agreement")),
        f"{fields['files']['gmacs']:.3f}",
    ]
    assert last == f"12 pictures, fp32, cpu, ONNX Runtime {onnxruntime.__version__}"


@graphs
def test_files_run_on_the_cpu_where_there_is_a_gpu(data, written, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (
        ends("eval", written / "reduced.onnx", "--dense", written / "dense.onnx", "--data", data)
        == 0
    )
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"12 pictures, fp32, cpu, ONNX Runtime {onnxruntime.__version__}"
    )


@graphs
def test_graphs_of_torch_are_evaluated_and_timed(small, data, tmp_path, capsys):
    for name, arguments in (("reduced", REDUCTION), ("dense", ("--dense",))):
        assert ends("export", *small, *arguments, "-o", tmp_path / f"{name}.pt2") == 0
    files = (tmp_path / "reduced.pt2", "--dense", tmp_path / "dense.pt2")
    assert ends("eval", *files, "--data", data, "--json", tmp_path / "e.json") == 0
    assert json.loads((tmp_path / "e.json").read_text())["samples"] == 12
    assert (
        ends(
            "bench",
            *files,
            "--batch-size",
            2,
            "--rounds",
            2,
            "--json",
            tmp_path / "b.json",
            "--csv",
            tmp_path / "b.csv",
        )
        == 0
    )
    fields = json.loads((tmp_path / "b.json").read_text())
    assert fields["runtime"] == f"torch {torch.__version__}"
    (row,) = fields["results"]
    assert (row["batch_size"], row["reduction_share"]) == (2, None)
    assert row["mac_ratio"] > 1
    assert capsys.readouterr().err == ""


@graphs
def test_another_engine_is_timed_under_its_own_name(written, tmp_path, capsys):
    arguments = ("--batch-size", 2, "--rounds", 2, "--threads", 1, "--json", tmp_path / "b.json")
    assert (
        ends("bench", written / "reduced.onnx", "--dense", written / "dense.onnx", *arguments) == 0
    )
    fields = json.loads((tmp_path / "b.json").read_text())
    assert fields["runtime"] == f"ONNX Runtime {onnxruntime.__version__}"
    assert (
        f"fp32, exported, cpu, 1 CPU threads, {fields['runtime']}; median of 2 in turns"
        in capsys.readouterr().out
    )
    (row,) = fields["results"]
    # nothing is seen of what happens in there
    assert (row["peak_memory_mb"], row["dense_peak_memory_mb"], row["reduction_share"]) == (
        None,
        None,
        None,
    )


@graphs
def test_export_says_how_the_file_compares(small, data, tmp_path, capsys):
    arguments = (
        *small,
        *REDUCTION,
        "-o",
        tmp_path / "model.pt2",
        "--format",
        "pt2",
        "--data",
        data,
        "--threads",
        1,
    )
    assert ends("export", *arguments, "--json", tmp_path / "x.json") == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    fields = json.loads((tmp_path / "x.json").read_text())
    assert first == (
        f"{tmp_path / 'model.pt2'}: {NAME}, reduced, {fields['gmacs']:.3f} of "
        f"{fields['dense_gmacs']:.3f} G MACs"
    )
    assert second.startswith("on 12 pictures: largest difference of a logit to torch ")
    assert second.endswith(", within 1e-3 100.0 %, same class 100.0 %")
    assert fields["samples"] == 12
    assert err == ""
    assert names(tmp_path) == ["model.pt2", "x.json"]


@graphs
def test_int8_is_calibrated_on_pictures(data, tmp_path, capsys):
    # test_vit resamples its positions in every pass, which OpenVINO cannot
    model = timm.create_model("test_vit3", num_classes=3, img_size=64)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    given = (
        "test_vit3",
        "--checkpoint",
        tmp_path / "vit.safetensors",
        "--num-classes",
        3,
        "--img-size",
        64,
    )
    arguments = (
        *given,
        "--dense",
        "--int8",
        "--data",
        data,
        "-o",
        tmp_path / "model.xml",
        "--json",
        tmp_path / "x.json",
    )
    assert ends("export", *arguments) == 2
    assert (
        " needs more pictures than the 50 compared on, got 12; give a lower "
        in capsys.readouterr().err
    )
    assert ends("export", *arguments, "--samples", 5) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith(" G MACs, int8")
    assert lines[-1].startswith("on 5 pictures: ")
    assert json.loads((tmp_path / "x.json").read_text())["int8"]
    assert load_engine(tmp_path / "model.xml").metadata.int8
    assert (
        ends("eval", tmp_path / "model.xml", "--dense", tmp_path / "model.xml", "--data", data) == 0
    )
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith("12 pictures, int8, cpu, OpenVINO 20")
    )
    assert names(tmp_path) == ["model.bin", "model.xml", "vit.safetensors", "x.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["-o", "x.onnx", "--format", "pt2"],
            "--format pt2 is written to a file ending in .pt2, got ",
        ),
        (
            ["-o", "x.pt2", "--format", "openvino"],
            "--format openvino is written to a file ending in .xml, got ",
        ),
        (["-o", "x.pth"], "the suffix decides the format; end it in one of .onnx, .xml, .pt2"),
        (["-o", "x.xml", "--int8"], "--int8 needs pictures to calibrate on: give --data DIR"),
        (
            ["-o", "x.onnx", "--int8", "--data", "DATA"],
            "int8 needs the format openvino (.xml), got x.onnx",
        ),
        (["-o", "x.onnx", "--data", "gone"], "gone: no such folder"),
        (["-o", "x.onnx", "--opset", "17"], "opset must lie in 18 .. "),
        (["-o", "x.pt2", "--opset", "18"], "opset is for the format onnx, got 18 for x.pt2"),
        (["-o", "gone/x.pt2"], "gone does not exist; create it first"),
        (["-o", "there.pt2"], "there.pt2 exists; remove it or name another file"),
        (
            ["-o", "x.pt2", "--json", "x.pt2"],
            "x.pt2 would overwrite what is read or written beside it",
        ),
        (
            ["-o", "x.pt2", "--json", "CHECKPOINT"],
            "would overwrite what is read or written beside it",
        ),
        (
            ["-o", "x.onnx", "--json", "x.onnx.data"],
            "x.onnx.data would overwrite what is read or written beside it",
        ),
        (
            ["-o", "x.pt2", "--dense", "--keep-rate", "0.5"],
            "--keep-rate is about a reduction, and --dense leaves it out",
        ),
        (["-o", "x.pt2", "--keep-rate", "1.5"], "--keep-rate must lie in (0, 1], got 1.5"),
    ],
)
def test_export_refuses(small, data, refuses, tmp_path, monkeypatch, arguments, said):
    (tmp_path / "there.pt2").touch()
    # before any work
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    places = {"DATA": data, "gone": tmp_path / "gone", "CHECKPOINT": small[2]}
    given = [
        places.get(a, tmp_path / a if a.endswith((".onnx", ".data", ".xml", ".pt2", ".pth")) else a)
        for a in arguments
    ]
    assert said in refuses("export", *small, *given)


def test_export_needs_an_output(refuses):
    assert "the following arguments are required: -o/--output" in refuses("export", NAME)


def test_export_refuses_a_model_of_another_kind(refuses, tmp_path):
    said = refuses("export", "swin_tiny_patch4_window7_224", "-o", tmp_path / "x.onnx")
    assert "swin" in said


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_export_names_what_is_not_installed(small, refuses, monkeypatch, tmp_path, package):
    # importing what stands there as None raises ImportError
    monkeypatch.setitem(sys.modules, package, None)
    assert f"this needs the package {package}: pip install {package}, or batvit with" in refuses(
        "export", *small, "-o", tmp_path / "x.onnx"
    )


# eval


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --dense FILE, the dense model to compare "),
        (
            ["--dense", NAME],
            "test_vit.r160_in1k: an exported model is a file ending in .onnx, .xml, .pt2",
        ),
        (["--dense", "gone.onnx"], "gone.onnx: no such file"),
        (["DENSE", "--checkpoint", "x"], "--checkpoint comes too late: "),
        (["DENSE", "--num-classes", 3], "--num-classes comes too late: "),
        (["DENSE", "--img-size", 64], "--img-size comes too late: "),
        (["DENSE", "--config", "x.json"], "--config comes too late: "),
        (["DENSE", "--mode", "paper"], "--mode comes too late: "),
        (["DENSE", "--keep-rate", "0.5"], "--keep-rate comes too late: "),
        (["DENSE", "--no-size-aware"], "--size-aware comes too late: "),
        (
            ["DENSE", "--device", "cuda"],
            "exported models run on the CPU, got --device cuda; give --device cpu",
        ),
        (["DENSE", "--device", "nonsense"], "got --device nonsense; give --device cpu"),
        (
            ["DENSE", "--precision", "bf16"],
            "bf16; OpenVINO's .xml runs in bf16, too",
        ),
    ],
)
def test_eval_refuses_for_a_file(data, refuses, tmp_path, arguments, said):
    for name in ("reduced.onnx", "dense.onnx"):
        # refused before they are read
        (tmp_path / name).touch()
    given = [
        part
        for a in arguments
        for part in (("--dense", tmp_path / "dense.onnx") if a == "DENSE" else (a,))
    ]
    device = () if "--device" in given else ("--device", "cpu")
    assert said in refuses("eval", tmp_path / "reduced.onnx", "--data", data, *device, *given)


def test_eval_refuses_a_dense_file_beside_a_name(data, refuses):
    said = refuses("eval", NAME, "--data", data, "--dense", "dense.onnx")
    assert f"--dense goes with an exported MODEL, a .onnx, .xml or .pt2 file; got {NAME}" in said


@graphs
def test_eval_refuses_files_that_do_not_compare(data, refuses, tmp_path):
    other, reduced = tmp_path / "other.pt2", tmp_path / "reduced.pt2"
    for path, size in ((other, 48), (reduced, 32)):
        export(
            timm.create_model("deit_tiny_patch16_224", depth=1, num_classes=3, img_size=size), path
        )
    said = refuses("eval", reduced, "--dense", other, "--data", data, "--device", "cpu")
    assert (
        f"{other} and {reduced} do not compare: input_size is (3, 48, 48) and (3, 32, 32)" in said
    )


@graphs
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"config": {"keep_rate": 0.5}},
            "dense.onnx is a reduced model; give one of the model without a reduction",
        ),
        ({"dense_macs": 7}, "do not compare: dense_macs is 7 and "),
        ({"param_count": 7}, "do not compare: param_count is 7 and "),
        ({"mean": [0.4, 0.4, 0.4]}, "do not compare: mean is (0.4, 0.4, 0.4) and "),
        ({"crop_pct": 0.5}, "do not compare: crop_pct is 0.5 and "),
    ],
)
def test_eval_refuses_a_file_of_another_model_as_dense(
    written, data, refuses, tmp_path, fields, said
):
    model = onnx.load(written / "dense.onnx")
    told = json.loads(model.metadata_props[0].value) | fields
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"batvit": json.dumps(told)})
    onnx.save(model, tmp_path / "dense.onnx")
    assert said in refuses(
        "eval", written / "reduced.onnx", "--dense", tmp_path / "dense.onnx", "--data", data
    )


@pytest.mark.parametrize("command", ["eval", "bench", "info", "export"])
def test_no_output_takes_the_place_of_what_is_read(data, refuses, tmp_path, command):
    settings, picture_labels = tmp_path / "c.json", tmp_path / "labels.txt"
    settings.write_text("{}")
    picture_labels.touch()
    given = {
        "eval": ("--data", data, "--class-map", picture_labels),
        "export": ("-o", tmp_path / "x.pt2"),
    }.get(command, ())
    said = refuses(command, NAME, *given, "--config", settings, "--json", settings)
    assert (
        f"{settings} would overwrite what is read or written beside it; name another file" in said
    )
    assert settings.read_text() == "{}"
    if command == "eval":
        assert "would overwrite" in refuses(command, NAME, *given, "--json", picture_labels)
    beside = tmp_path / "w.batvit.json"
    assert "would overwrite" in refuses(
        command, NAME, *given, "--checkpoint", tmp_path / "w.safetensors", "--json", beside
    )


def test_the_files_of_an_exported_model_are_kept(refuses, tmp_path):
    (tmp_path / "a.xml").touch()
    for path in (tmp_path / "a.xml", tmp_path / "a.bin"):
        assert "would overwrite" in refuses(
            "bench", tmp_path / "a.xml", "--dense", "b.xml", "--csv", path
        )


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pt2"])
def test_eval_refuses_a_broken_file_in_one_line(data, refuses, tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_bytes(b"")
    said = refuses(
        "eval",
        "reduced.onnx",
        "--dense",
        tmp_path / f"x{suffix}",
        "--data",
        data,
        "--device",
        "cpu",
    )
    assert f"{tmp_path / f'x{suffix}'}: cannot be read (" in said
