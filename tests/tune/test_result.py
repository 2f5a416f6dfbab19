"""What a tuning found, as it is printed and written."""

import csv
import json

import pytest
import torch

from batvit.backbones.registry import anatomy_of
from batvit.config import BATConfig
from batvit.tune.finalists import Measured, Measurement
from batvit.tune.objective import Score
from batvit.tune.result import Checked, TimeErrors, Tuned, save_front
from batvit.tune.search import BEGIN
from batvit.tune.trials import Trial

TEXT = """\
the front: cost as a share of the dense model's, loss and drop on the pictures searched on
 cost    loss  drop  sites  tokens at the end
0.700  0.2000   3.0      3                  9
on 2 pictures held out
                    speed-up  G MACs    loss  drop
tuned                   1.50   0.800  0.1500  50.0
preset, equal time      1.40   0.900  0.2500   0.0
the target is held: asked 1.50, measured 1.50
predicted time within 1.0 % of the measured one; 5.0 % as the search had it"""


@pytest.fixture
def tuned(deep, tmp_path):
    config = BEGIN[0].at(9.0, anatomy_of(deep))
    trial = Trial(candidate=BEGIN[0], config=config, cost=0.7, loss=0.2, drop=3.0)
    mine = Score(torch.tensor([0.1, 0.2]), torch.tensor([0.0, 100.0]))
    other = Score(torch.tensor([0.2, 0.3]), torch.tensor([0.0, 0.0]))
    fast = Measurement(speedup=1.5, macs=800_000_000, dense_macs=1_200_000_000)
    preset = Measurement(speedup=1.4, macs=900_000_000, dense_macs=1_200_000_000)
    return Tuned(
        folder=tmp_path,
        model="deep",
        config=config,
        front=(trial,),
        samples=2,
        predicted=trial,
        tuned=Checked(Measured(config, fast, 0.66), mine),
        preset=Checked(Measured(BATConfig(), preset, 0.7), other),
        preset_at_same="time",
        differences=mine.compare_to(other),
        time_errors=TimeErrors(written=-0.01, fitted=0.05),
        sentences=("the target is held: asked 1.50, measured 1.50",),
    )


def test_it_is_printed_as_tables_and_sentences(tuned):
    assert str(tuned) == TEXT


def test_its_files_hold_all_that_was_found(tuned, tmp_path):
    tuned.save()
    assert BATConfig.load(tmp_path / "config.json") == tuned.config
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == json.loads(json.dumps(tuned.to_dict()))
    assert list(result) == [
        "model",
        "held_out",
        "predicted",
        "tuned",
        "preset_at_same",
        "preset",
        "difference",
        "time_error",
        "fitted_error",
        "config",
        "sentences",
    ]
    assert list(result["predicted"]) == ["config", "cost", "loss", "drop", "candidate"]
    speed = ("speedup", "speedup_low", "speedup_high", "unsteady")
    assert list(result["tuned"]) == ["config", "loss", "drop", *speed, "gmacs"]
    assert list(result["difference"]["loss"]) == ["mean", "low", "high"]


def test_the_front_is_a_table_of_configurations(tuned, tmp_path):
    save_front(tmp_path, tuned.front)
    with (tmp_path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["cost", "loss", "drop", "config"]
    assert BATConfig.from_dict(json.loads(rows[0]["config"])) == tuned.front[0].config
