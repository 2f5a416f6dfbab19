"""The demo's models: always the same, reduced as named, and written with what they need."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

import batvit
from batvit.testing import demo


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(demo.ARCHITECTURE, "embed_dim", 16)
    monkeypatch.setitem(demo.ARCHITECTURE, "depth", 4)
    monkeypatch.setattr(demo, "ROUNDS", 1)


@pytest.fixture
def data():
    train, val = demo.load_data()
    few = replace(val.dataset, scans=val.dataset.scans[:16], labels=val.dataset.labels[:16])
    return demo.Data(train, DataLoader(few, 8))


def untrained(model, train, val, config):
    """Stands for a training run."""
    model.seen = (len(train), len(val.dataset), config)
    return []


def test_a_new_model_is_always_the_same():
    first, second = demo.new_model().state_dict(), demo.new_model().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_is_told_the_number_of_epochs(data):
    model = demo.new_model()
    assert demo.train_dense(model, data, epochs=3, fit=untrained) == []
    assert model.seen == (len(data.train), 16, replace(demo.FROM_SCRATCH, epochs=3))


def test_models_are_reduced_as_they_are_named(data):
    dense = demo.new_model()
    free = demo.reduce_training_free(dense)
    tuned = demo.reduce_fine_tuned(dense, data, fit=untrained)
    assert batvit.config_of(dense) is None
    for rate in demo.KEEP_RATES:
        model = free[f"training-free, keep {rate}"]
        assert batvit.config_of(model) == batvit.BATConfig.preset(keep_rate=rate)
        model = tuned[f"fine-tuned, keep {rate}"]
        assert batvit.config_of(model) == batvit.BATConfig.preset("paper", keep_rate=rate)
        assert model.seen[2] == demo.FINE_TUNING


@pytest.mark.usefixtures("quiet")
def test_rows_are_in_the_order_of_the_models(data):
    dense = demo.new_model()
    rows = demo.compare_models({"dense": dense} | demo.reduce_training_free(dense), data)
    assert [row.name for row in rows] == [
        "dense",
        "training-free, keep 0.7",
        "training-free, keep 0.5",
    ]
    assert [row.accuracy.samples for row in rows] == [16, 16, 16]
    assert rows[0].speed is None
    assert rows[1].speed.macs > rows[2].speed.macs
    assert "speedup" not in rows[0].to_dict()
    assert rows[1].to_dict()["speedup"] > 0


@pytest.fixture
def quiet(monkeypatch):
    """Torch's profiler writes notes to standard error."""
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")


def test_weights_are_written_once(data, tmp_path):
    dense = demo.new_model()
    tuned = demo.reduce_fine_tuned(dense, data, fit=untrained)
    models = {"dense": dense} | demo.reduce_training_free(dense) | tuned
    demo.save_models(models, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "dense.safetensors",
        "fine-tuned-0.5.batvit.json",
        "fine-tuned-0.5.safetensors",
        "fine-tuned-0.7.batvit.json",
        "fine-tuned-0.7.safetensors",
    ]
