"""What tests of the search share: small models and their costs, a loss, and a whole tuning."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from batvit import tune as room
from batvit.backbones.registry import anatomy_of
from batvit.budget import macs_of
from batvit.data.folder import image_folder
from batvit.measure.clock import Quartiles
from batvit.reduction.site import config_of
from batvit.tune.cost_model import CostModel, Sample, count_samples
from batvit.tune.finalists import PresetMatch
from batvit.tune.objective import Score, TuningSet
from batvit.tune.search import Search
from batvit.tune.space import Candidate, varied_configs
from batvit.tune.trials import open_study

WEIGHTS = (0.02, 0.3, 0.18, 0.18, 0.5, 0.02, 0.01, 0.02, 0.02, 0.02, 0.0)


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="session")
def candidate():
    """One for the small model."""
    return Candidate(3, 1, 3, 1.0, 0.5, 0.1, 2, "tokens", "size", True)


@pytest.fixture(scope="session")
def counted(model):
    """MACs of as many configurations as a cost model needs."""
    return count_samples(model, varied_configs(anatomy_of(model), 13))


@pytest.fixture(scope="session")
def cost(model, counted):
    return CostModel.fit(model, counted)


@pytest.fixture(scope="session")
def deep():
    """Twelve small blocks, as many as the starting points are for."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=192, depth=12, embed_dim=12, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="session")
def cost_of_deep(deep):
    return CostModel(12, anatomy_of(deep).patches, 1, WEIGHTS)


@pytest.fixture(scope="session")
def tuning_set():
    """Makes a tuning set of random pictures."""

    def make(model, *, labelled=False, samples=6):
        draw = torch.Generator().manual_seed(1)
        batches = []
        for _ in range(samples // 3):
            images = torch.randn(3, 3, 96, 96, generator=draw)
            labels = torch.randint(0, 4, (3,), generator=draw)
            batches.append((images, labels))
        return TuningSet.of(model, batches, labelled=labelled)

    return make


@pytest.fixture(scope="session")
def data(model, tuning_set):
    return tuning_set(model)


@pytest.fixture
def stub(monkeypatch):
    """Lets a function of the configuration be the loss, and ten times that the drop.

    The function may raise. By default the loss grows as the tokens left in the end become few.
    """

    def left_over(config):
        return 1 / config.tokens[-1]

    def patch(loss_of=left_over):
        def score(model, data, report=lambda step, loss: None):
            loss = float(loss_of(config_of(model)))
            report(0, loss)
            return Score(torch.tensor([loss]), torch.tensor([10 * loss]))

        monkeypatch.setattr("batvit.tune.search.score", score)

    return patch


@pytest.fixture
def search(deep, cost_of_deep, tmp_path):
    """Opens the same search on no pictures, new or as it was left."""

    def opened(goal, seed=0, folder=tmp_path):
        no_pictures = TuningSet([], None, [])
        return Search(deep, no_pictures, cost_of_deep, goal, open_study(folder, seed=seed))

    return opened


# whole tunings, of a small model on few pictures


@pytest.fixture(scope="session")
def small():
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=3, img_size=96).eval()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Four pictures of each of three classes."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for label in ("bird", "cat", "dog"):
        (root / label).mkdir()
        for i in range(4):
            pixels = draw.integers(0, 256, (100, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return image_folder(root)


@pytest.fixture(scope="session")
def small_macs(small):
    """MACs of the small model with a configuration, or without: each counted once."""
    known = {}

    def count(model, config):
        if config not in known:
            known[config] = macs_of(small, config)
        return known[config]

    return count


@pytest.fixture(scope="session")
def small_counted(small, small_macs):
    configs = varied_configs(anatomy_of(small), 13)
    return [
        Sample(config, small_macs(small, config) / small_macs(small, None)) for config in configs
    ]


@pytest.fixture
def tune(small, pictures, small_macs, small_counted, monkeypatch):
    """Tunes the small model on six pictures; nothing is counted twice, or timed for long."""
    monkeypatch.setattr("batvit.budget.macs_of", small_macs)
    # so small a model takes the time that it takes: one attempt, and any outcome will do
    monkeypatch.setattr("batvit.budget.TIME_TOLERANCE", 1e9)
    monkeypatch.setattr("batvit.budget.ATTEMPTS", 1)
    monkeypatch.setattr("batvit.tune.parts.count_samples", lambda dense, configs: small_counted)
    monkeypatch.setattr("batvit.tune.parts.ROUNDS", 1)
    monkeypatch.setattr("batvit.tune.verification.ROUNDS", 1)

    def run(folder, *, dense=small, pictures=pictures, **arguments):
        values = {"samples": 6, "batch_size": 5} | arguments
        return room.run(dense, pictures, folder, **values)

    return run


@pytest.fixture
def slower(monkeypatch, small, small_macs, small_counted):
    """Time is what MACs promise, and when measured after the first, a twentieth more."""

    def share(config):
        return 1.05 * small_macs(small, config) / small_macs(small, None)

    def benchmark(dense, reduced, images, *, rounds):
        config = config_of(reduced)
        speedup = 1 / share(config)
        return SimpleNamespace(
            speedup=speedup,
            speedups=Quartiles(speedup, speedup, speedup),
            unsteady=False,
            macs=small_macs(small, config),
            dense_macs=small_macs(small, None),
        )

    def time_samples(dense, configs, images, *, rounds=7, part=0):
        if part == 0:
            return small_counted
        return [Sample(config, share(config), part) for config in configs]

    monkeypatch.setattr("batvit.tune.verification.benchmark", benchmark)
    monkeypatch.setattr("batvit.tune.parts.time_samples", time_samples)
    # three parts, however few the trials are
    monkeypatch.setattr("batvit.tune.parts.FIRST_TRIALS", 1)


@pytest.fixture
def alone(monkeypatch):
    """No preset is brought to the same cost."""

    def preset_at_same(dense, tuned, measure, *, timed):
        return PresetMatch(None, None, [])

    monkeypatch.setattr("batvit.tune.verification.preset_at_same", preset_at_same)
