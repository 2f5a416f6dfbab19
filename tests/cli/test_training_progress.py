"""A bar in a terminal that makes way for what is printed."""

import pytest
from rich.console import Console

from batvit.cli import console, training_progress
from batvit.training import Epoch, Step


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setattr(console, "stderr", Console(stderr=True, force_terminal=True, width=80))


def test_a_process_without_progress_shows_no_bar(monkeypatch, capsys):
    monkeypatch.setattr("batvit.training.loop.fit", lambda **arguments: [])
    assert training_progress.fit_shown(title="training") == []
    assert "training" not in capsys.readouterr().err


def test_the_bar_shows_updates_and_makes_way_for_epochs(monkeypatch, capsys):
    epoch = Epoch(1, 2.0, 1.5, 50.0, 80.0, 1e-3, 9.0, 70.0)

    def fit(model, *, on_epoch, progress, output):
        assert (model, output) == ("model", "run")
        progress(Step(1, 2, 0.25, 1e-3, 70.0))
        on_epoch(epoch)
        return [epoch]

    monkeypatch.setattr("batvit.training.loop.fit", fit)
    epochs = []
    found = training_progress.fit_shown(
        "model", title="teaching", on_epoch=epochs.append, output="run"
    )
    assert found == epochs == [epoch]
    err = capsys.readouterr().err
    assert "teaching" in err
    assert "1/2" in err
    assert "updates, loss 0.250, 70.0 images/s" in err


def test_nothing_need_be_printed_after_an_epoch(monkeypatch):
    epoch = Epoch(1, 0.5, 0.4, 70.0, 90.0, 1e-3, 2.0, 70.0)

    def fit(**given):
        given["on_epoch"](epoch)
        return [epoch]

    monkeypatch.setattr("batvit.training.loop.fit", fit)
    assert training_progress.fit_shown(title="training") == [epoch]
