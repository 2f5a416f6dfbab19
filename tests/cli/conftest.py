"""What tests of several commands start from."""

import json

import numpy as np
import pytest
import timm
import torch
from command_runs import NAME, ends, noise
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Weights for three classes, and four pictures of each."""
    root = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3, img_size=96)
    save_file(model.state_dict(), root / "vit.safetensors")
    for i, label in enumerate(("bird", "cat", "dog")):
        (root / "data" / label).mkdir(parents=True)
        for j in range(4):
            pixels = np.random.default_rng(4 * i + j).integers(
                0, 256, (100, 100, 3), dtype=np.uint8
            )
            Image.fromarray(pixels).save(root / "data" / label / f"{j}.png")
    model = (
        "test_vit",
        "--checkpoint",
        str(root / "vit.safetensors"),
        "--num-classes",
        "3",
        "--img-size",
        "96",
    )
    return (
        *model,
        "--data",
        str(root / "data"),
        "--device",
        "cpu",
        "--threads",
        "1",
        "--batch-size",
        "5",
    )


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "deit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(NAME, num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def data(tmp_path):
    """Two pictures of each of three classes."""
    for i, label in enumerate(("bird", "cat", "dog")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for j in range(2):
            noise(2 * i + j).save(tmp_path / "data" / label / f"{j}.jpg")
    return tmp_path / "data"


@pytest.fixture
def refuses(capsys):
    """Check that a command ends with 2 and one line on standard error alone; give the line."""

    def check(*arguments):
        assert ends(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert err.startswith("batvit")
        return err

    return check


@pytest.fixture
def writes(capsys, tmp_path):
    """Run a command that must work; give what it prints and the JSON it writes."""

    def check(*arguments):
        path = tmp_path / "result.json"
        assert ends(*arguments, "--json", path) == 0
        out, err = capsys.readouterr()
        return out, err, json.loads(path.read_text())

    return check


@pytest.fixture
def synthetic_clock(monkeypatch):
    """Let what is timed take so many milliseconds, as drawn; the processor does the work anyway."""

    def install(draw):
        now = [0.0]

        def read(x):
            now[0] += draw() / 1e3
            return now[0]

        monkeypatch.setattr("batvit.measure.clock._now", read)

    return install
