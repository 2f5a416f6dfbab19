"""batvit eval: both models on the same pictures, and one clear line for everything it refuses."""

import os
import pickle
import struct
import zlib

import pytest
import torch
from command_runs import NAME, SMALL, noise
from safetensors.torch import load_file, save_file


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bomb(path):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_eval_measures_both_models(writes, weights, data):
    out, err, fields = writes(
        "eval", NAME, *SMALL, "--checkpoint", weights, "--data", data, "--batch-size", 4
    )
    assert fields["samples"] == 6
    assert 0 <= fields["top1"] <= fields["top5"] == 100
    assert (fields["top1_err"], fields["top5_err"]) == (100 - fields["top1"], 0)
    assert {
        "dense_top1",
        "dense_top5",
        "agreement",
        "mac_ratio",
        "config",
        "precision",
        "device",
        "model",
    } <= set(fields)
    assert (fields["img_size"], fields["skipped"], fields["skipped_files"]) == ([64, 64], 0, [])
    assert 0 < fields["gmacs"] < fields["dense_gmacs"]
    assert fields["param_count"] > 5e6
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["dense", "reduced"]
    assert out.splitlines()[3] == f"6 pictures, fp32, cpu, torch {torch.__version__}"
    assert err.strip() == ""


def test_eval_that_keeps_everything_agrees_with_the_dense_model(writes, weights, data):
    *_, fields = writes(
        "eval", NAME, *SMALL, "--checkpoint", weights, "--data", data, "--keep-rate", "1.0"
    )
    assert (fields["agreement"], fields["mac_ratio"]) == (100, 1)
    assert fields["top1"] == fields["dense_top1"]


def test_eval_labels_by_the_class_map(writes, weights, data, tmp_path):
    # a model that takes everything for the first class
    state = load_file(weights)
    state["head.weight"], state["head.bias"] = torch.zeros(3, 192), torch.tensor([1.0, 0.0, 0.0])
    save_file(state, tmp_path / "first.safetensors")
    noise().save(data / "cat" / "2.png")
    arguments = (
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        tmp_path / "first.safetensors",
        "--data",
        data,
    )
    assert writes(*arguments)[2]["top1"] == 100 * 2 / 7
    (tmp_path / "map.txt").write_text("cat\ndog\nbird\n")
    assert writes(*arguments, "--class-map", tmp_path / "map.txt")[2]["top1"] == 100 * 3 / 7


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_eval_in_low_precision(writes, weights, data, precision):
    *_, fields = writes(
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        weights,
        "--data",
        data,
        "--precision",
        precision,
        "--threads",
        1,
    )
    assert (fields["precision"], fields["samples"]) == (precision, 6)


def test_eval_counts_and_names_what_it_leaves_out(refuses, writes, weights, data):
    arguments = ("eval", NAME, *SMALL, "--checkpoint", weights, "--data", data)
    (data / "cat" / "2.jpg").write_text("hello")
    bomb(data / "dog" / "2.png")
    said = refuses(*arguments)
    first = data / "cat" / "2.jpg"
    assert f"2 of 8 files cannot be read as pictures, the first is {first}; remove them" in said
    assert "or skip them" in said
    cut(data / "bird" / "1.jpg")
    out, err, fields = writes(*arguments, "--skip-unreadable")
    assert (fields["skipped"], fields["samples"]) == (3, 5)
    assert fields["skipped_files"] == [
        str(data / name) for name in ("bird/1.jpg", "cat/2.jpg", "dog/2.png")
    ]
    assert "5 pictures, 3 unreadable left out, fp32, cpu" in out
    assert err.strip() == ""


@pytest.mark.parametrize("workers", [0, 1])
def test_eval_names_what_fails_when_it_is_decoded(refuses, weights, data, tmp_path, workers):
    cut(data / "dog" / "1.jpg")
    arguments = (
        "--checkpoint",
        weights,
        "--data",
        data,
        "--workers",
        workers,
        "--json",
        tmp_path / "x.json",
    )
    said = refuses("eval", NAME, *SMALL, *arguments)
    assert said.startswith(
        f"batvit eval: {data / 'dog' / '1.jpg'}: "
        "cannot be read as a picture (image file is truncated"
    )
    assert said.endswith("; remove it, or skip such files (--skip-unreadable)\n")
    assert not (tmp_path / "x.json").exists()


def test_eval_refuses_folders_and_class_maps_that_do_not_fit(refuses, weights, data, tmp_path):
    arguments = (
        "eval",
        NAME,
        *SMALL,
        "--checkpoint",
        weights,
        "--json",
        tmp_path / "x.json",
        "--data",
    )
    assert f"{tmp_path / 'nowhere'}: no such folder" in refuses(*arguments, tmp_path / "nowhere")
    # before weights are downloaded, which cannot be had here
    assert f"{tmp_path / 'nowhere'}: no such folder" in refuses(
        "eval", NAME, "--data", tmp_path / "nowhere"
    )
    (tmp_path / "empty").mkdir()
    assert "holds no pictures; expected one folder a class" in refuses(
        *arguments, tmp_path / "empty"
    )
    names = tmp_path / "map.txt"
    for content, said in (
        (
            b"bird\ncat\ncow\n",
            "1 of its 3 folders are not named in the class map, the first is 'dog'",
        ),
        (
            b"bird\ncat\ndog\ncow\n",
            "names 4 classes, the model has 3 classes; give the class map of this model",
        ),
        (b"bird\ncat\ndog\ncat\n", "names 'cat' twice"),
        (b"\x80\x04\x95", "not a text file"),
    ):
        names.write_bytes(content)
        assert f"{names}: " in (line := refuses(*arguments, data, "--class-map", names))
        assert said in line
    (tmp_path / "map.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "made")))
    assert "a class map is a .txt file" in refuses(
        *arguments, data, "--class-map", tmp_path / "map.pkl"
    )
    assert not (tmp_path / "made").exists()
    noise().save(data / "x.jpg")
    assert "x.jpg lies beside the class folders; put each picture into" in refuses(*arguments, data)
    (data / "x.jpg").rename(data / "cat" / "x.jpg")
    (data / "cow").mkdir()
    noise().save(data / "cow" / "x.jpg")
    assert "has 4 folders, the model has 3 classes; give --class-map FILE" in refuses(
        *arguments, data
    )
    assert not (tmp_path / "x.json").exists()


def test_eval_refuses_checkpoints_that_do_not_fit(refuses, weights, data, tmp_path):
    arguments = ("eval", NAME, "--data", data, "--checkpoint")
    short = tmp_path / "short.safetensors"
    short.write_bytes(weights.read_bytes()[:100_000])
    assert f"{short}: not a readable checkpoint (" in refuses(*arguments, short)
    torch.save({"a": torch.ones(9)}, tmp_path / "short.pth")
    cut(tmp_path / "short.pth")
    assert "short.pth: not a readable checkpoint (" in refuses(*arguments, tmp_path / "short.pth")
    torch.save({"a": Payload(tmp_path / "made")}, tmp_path / "code.pth")
    said = refuses(*arguments, tmp_path / "code.pth")
    assert (
        "code.pth: refused, because it holds more than tensors (posix.mkdir) and could run code; "
        "save the state" in said
    )
    assert not (tmp_path / "made").exists()
    assert (
        "head.weight has shape (3, 192), the model needs (1000, 192); give the model, number"
        in refuses(*arguments, weights)
    )
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    said = refuses(*arguments, tmp_path / "other.safetensors")
    assert (
        "missing, the first is 'cls_token'; 1 unexpected, the first is 'a'; "
        "give the model that the weights are of" in said
    )


def test_eval_without_weights_and_network_says_to_give_a_file(refuses, data):
    said = refuses("eval", NAME, "--data", data)
    assert said.startswith(f"batvit eval: no pretrained weights of {NAME} could be had (")
    assert said.endswith("); give --checkpoint FILE\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda:99"], "--device cuda:99 cannot be used here ("),
        (["--device", "meta"], "--device meta cannot be used here ("),
        (["--device", "abacus"], "--device abacus cannot be used here ("),
        (["--device", "mps:7"], "give another, such as cpu"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--threads", "0"], "--threads: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "0"], "--batch-size: expected an integer of 1 or more, got '0'"),
        (["--batch-size", "many"], "--batch-size: expected an integer of 1 or more, got 'many'"),
        (["--workers", "-1"], "--workers: expected an integer of 0 or more, got '-1'"),
    ],
)
def test_eval_refuses_what_cannot_run(refuses, tmp_path, arguments, said):
    assert said in (line := refuses("eval", NAME, "--data", tmp_path, *arguments))
    assert len(line) < 300
