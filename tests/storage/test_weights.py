"""Weights from files: all of them or none, and never code."""

import os
import pickle
import re
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from batvit.storage.weights import load_weights, read_weights, weights_digest


def linear():
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False))


class Payload:
    """Pickled, it is a call: unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# reading


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_are_loaded_whatever_wrapped_the_model(tmp_path, suffix, prefix):
    source, model = linear(), linear()
    path = tmp_path / f"weights{suffix}"
    state = {prefix + key: value for key, value in source.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    load_weights(model, path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), source.parameters(), strict=True)
    )


def test_a_training_checkpoint_gives_its_averaged_weights(tmp_path):
    source, averaged, model = linear(), linear(), linear()
    states = {
        "state_dict": source.state_dict(),
        "state_dict_ema": averaged.state_dict(),
        "epoch": 3,
        "optimizer": {"lr": 0.1},
    }
    torch.save(states, tmp_path / "last.pth")
    load_weights(model, str(tmp_path / "last.pth"))
    assert torch.equal(model[0].weight, averaged[0].weight)
    del states["state_dict_ema"]
    torch.save(states, tmp_path / "last.pth")
    load_weights(model, tmp_path / "last.pth")
    assert torch.equal(model[0].weight, source[0].weight)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_missing_file_is_named(tmp_path, name):
    for path, remedy in ((tmp_path / name, "$"), (tmp_path, "; it is a folder, name a file in it")):
        with pytest.raises(FileNotFoundError, match=f"^{path}: no such file{remedy}"):
            read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(linear().state_dict(), path)
    else:
        torch.save(linear().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError,
        match=f"^{path}: not a readable checkpoint .*; give a .safetensors or .pth file$",
    ):
        read_weights(path)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    for write in (
        lambda: torch.save({"a": Payload(made)}, path),
        lambda: path.write_bytes(pickle.dumps(Payload(made))),
    ):
        write()
        with pytest.raises(
            ValueError,
            match=r"weights.pth: refused, because it holds more than tensors \(.+\) "
            "and could run code; save the state",
        ):
            read_weights(path)
        assert not made.exists()
    # the payload is real
    pickle.loads(path.read_bytes())
    assert made.is_dir()


def test_a_whole_model_is_no_state_dict(tmp_path):
    torch.save(linear(), tmp_path / "model.pth")
    with pytest.raises(
        ValueError, match=r"model.pth: refused, because it holds more than tensors \(torch\.nn\."
    ):
        read_weights(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "odd",
    [torch.eye(2).to_sparse(), torch.empty(2, device="meta"), torch.ones(2, dtype=torch.complex64)],
)
def test_a_tensor_that_cannot_be_copied_is_refused_by_name(tmp_path, odd):
    torch.save({"weight": torch.ones(2), "bias": odd}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError,
        match=r"x.pth: 'bias' is sparse, complex or without values; give .* plain tensors",
    ):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "thing",
    [[1, 2], torch.ones(2), "text", 3, {"a": 1}, {"a": torch.ones(2), "b": "x"}, {"model": None}],
)
def test_what_is_no_state_dict_is_refused(tmp_path, thing):
    torch.save(thing, tmp_path / "x.pth")
    with pytest.raises(
        ValueError,
        match=r"x.pth: (not a readable checkpoint|'[ab]' is no tensor; give a file that holds a)",
    ):
        read_weights(tmp_path / "x.pth")


@given(
    st.binary(max_size=64),
    st.sampled_from(["x.pth", "x.safetensors"]),
    st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]),
)
def test_any_bytes_are_refused_by_name(tmp_path_factory, content, name, start):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(start + content)
    with pytest.raises(ValueError, match=f"^{path}: "):
        read_weights(path)


@given(st.sampled_from([".pth", ".safetensors"]), st.data())
def test_any_damage_gives_tensors_or_an_error_that_names_the_file(tmp_path_factory, suffix, data):
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    if suffix == ".safetensors":
        save_file(linear().state_dict(), path)
    else:
        torch.save(linear().state_dict(), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert all(isinstance(value, torch.Tensor) for value in read_weights(path).values())
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either is right


def test_an_archive_that_says_it_has_more_parts_is_refused_by_name(tmp_path):
    path = tmp_path / "parts.pth"
    torch.save(linear().state_dict(), path)
    content = bytearray(path.read_bytes())
    # the number of parts stands at the end of the locator of zip64
    content[content.rindex(b"PK\x06\x07") + 16] = 2
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
        read_weights(path)


# keys and shapes


def test_keys_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path):
    model = linear()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = tmp_path / "x.safetensors"
    for change, said in (
        ({"0.bias": None}, "1 missing, the first is '0.bias'; give the model that"),
        (
            {"2.weight": torch.ones(1), "3.weight": torch.ones(1)},
            "2 unexpected, the first is '2.weight'; give",
        ),
        (
            {"0.weight": None, "head": torch.ones(1)},
            "1 missing, the first is '0.weight'; 1 unexpected, the first is 'head'; give",
        ),
        (
            {"0.weight": torch.ones(2, 4)},
            r"0\.weight has shape \(2, 4\), the model needs \(2, 3\); give the model, number of",
        ),
    ):
        state = {
            key: value
            for key, value in (linear().state_dict() | change).items()
            if value is not None
        }
        save_file(state, path)
        with pytest.raises(ValueError, match=f"^{path}: .*{said}"):
            load_weights(model, path)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_digest_tells_weights_from_others():
    def linear():
        torch.manual_seed(0)
        return torch.nn.Linear(3, 2)

    first = weights_digest(linear())
    assert first == weights_digest(linear())
    changed = linear()
    with torch.no_grad():
        changed.bias[1] += 1e-6
    others = {weights_digest(changed), weights_digest(linear().bfloat16())}
    others.add(weights_digest(torch.nn.Sequential(linear())))
    assert len(others) == 3
    assert first not in others


def rezipped(path, kind, *, copies=1):
    """The archive that torch wrote, packed anew."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        for i in range(copies - 1):
            archive.writestr(f"archive/data/{i + 1000}", bytes(10**6))
    return path


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path, kind, monkeypatch):
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "x.pth")
    read_weights(tmp_path / "x.pth")
    rezipped(tmp_path / "x.pth", kind)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match=r"x.pth: refused, .* would unpack to 40\d,\d\d\d; save"):
        read_weights(tmp_path / "x.pth")


def test_an_archive_with_parts_that_nobody_asks_for_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.pth")
    rezipped(tmp_path / "x.pth", zipfile.ZIP_DEFLATED, copies=50)
    with pytest.raises(ValueError, match="would unpack to 49,"):
        read_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_numbers_stand_for_one_another(tmp_path, dtype):
    source, model = linear(), linear()
    save_file(source.to(dtype).state_dict(), tmp_path / "x.safetensors")
    load_weights(model, tmp_path / "x.safetensors")
    assert torch.equal(model[0].weight, source[0].weight.float())


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.bool, torch.uint8, torch.int64, torch.float8_e4m3fn]
)
def test_numbers_of_another_kind_are_refused(tmp_path, dtype):
    model = linear()
    before = model[0].weight.clone()
    state = {key: value.to(dtype) for key, value in linear().state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        ValueError, match=f"x.pth: '0.weight' is {name}, the model needs float32; give weights that"
    ):
        load_weights(model, tmp_path / "x.pth")
    assert torch.equal(model[0].weight, before)


def test_integers_of_the_model_are_integers_of_the_file(tmp_path):
    model = nn.BatchNorm1d(2)
    state = model.state_dict()
    torch.save(state | {"num_batches_tracked": torch.tensor(3, dtype=torch.int32)}, tmp_path / "x")
    load_weights(model, tmp_path / "x")
    assert model.num_batches_tracked == 3
    torch.save(state | {"num_batches_tracked": torch.tensor(3.0)}, tmp_path / "x")
    with pytest.raises(ValueError, match="'num_batches_tracked' is float32, the model needs int64"):
        load_weights(model, tmp_path / "x")


@pytest.mark.parametrize("kind", ["pipe", "device", "circle"])
def test_what_is_no_regular_file_is_refused(tmp_path, kind):
    path = tmp_path / "x.pth"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(OSError, match=r"x.pth: (is no regular file|cannot be read \(Too many)"):
        read_weights(path)
