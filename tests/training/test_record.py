"""What a run leaves to be read, and that a run goes on only as it was begun."""

import json
import os

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from batvit.training import TrainConfig, fit
from batvit.training.progress import Epoch, Step
from batvit.training.record import Record, check_output

CONFIG = TrainConfig(epochs=3)
METADATA = {"model": "vit", "config": {"keep_rate": 0.5, "tokens": None}, "class_names": ("a", "b")}
DEFAULTS = {"keep_rate": 0.7, "tokens": None}


def begun(folder, metadata=METADATA, config=CONFIG):
    record = Record(folder)
    record.begin(config, metadata)
    return record


def epoch(number):
    return Epoch(number, 2.0, 1.5, 50.0, 80.0, 1e-3, 9.0, 70.0)


class Untouched(nn.Module):
    """A model that must not be run."""

    def forward(self, images):
        raise AssertionError


def test_a_folder_with_a_run_is_refused_and_stays_as_it_is(tmp_path):
    pictures = TensorDataset(torch.zeros(64, 3, 4, 4), torch.zeros(64, dtype=torch.long))
    (tmp_path / "log.jsonl").write_text("mine")
    with pytest.raises(
        FileExistsError,
        match=r"already holds a run \(log.jsonl\); go on with it by resume=True, or name another",
    ):
        fit(Untouched(), pictures, [], CONFIG, output=tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("log.jsonl", "mine")]


def test_an_output_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="it is a file; name a folder"):
        check_output(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        check_output(tmp_path / "nowhere" / "run")
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match="not writable"):
        check_output(tmp_path)


def test_a_run_may_go_on_as_it_was_begun(tmp_path):
    begun(tmp_path).check_same(CONFIG, METADATA, DEFAULTS)


@pytest.mark.parametrize(
    ("config", "metadata", "message"),
    [
        (TrainConfig(epochs=3, lr=1e-3), {}, "train.lr = 4e-05, and cannot go on with 0.001"),
        (CONFIG, {"model": "deit"}, "model = vit, and cannot go on with deit; give what it was"),
        (CONFIG, {"class_names": ["b", "a"]}, r"class_names\[0\] = a, and cannot go on with b"),
        (
            CONFIG,
            {"config": {"keep_rate": 0.6, "tokens": None}},
            "config.keep_rate = 0.5, and cannot go on with 0.6",
        ),
        (CONFIG, {"config": None}, "config = None|config.keep_rate = 0.5, and cannot go on with"),
    ],
)
def test_a_run_cannot_go_on_as_another(tmp_path, config, metadata, message):
    with pytest.raises(ValueError, match=f"{tmp_path}: begun with ({message})"):
        begun(tmp_path).check_same(config, METADATA | metadata, DEFAULTS)


def test_what_changes_only_how_fast_it_goes_may_change(tmp_path):
    faster = TrainConfig(epochs=3, workers=4, grad_accum_steps=2, compile=True, keep=7, log_every=1)
    record = begun(tmp_path, METADATA | {"data": "there", "processes": 1})
    record.check_same(faster, METADATA | {"data": "here", "processes": 8}, DEFAULTS)


def test_a_field_that_an_earlier_version_did_not_know_was_as_it_is_by_default(tmp_path):
    record = begun(tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    del content["train"]["distill_tau"], content["config"]["keep_rate"], content["model"]
    (tmp_path / "run.json").write_text(json.dumps(content))
    record.check_same(CONFIG, METADATA | {"config": DEFAULTS}, DEFAULTS)
    with pytest.raises(ValueError, match=r"train.distill_tau = 1.0, and cannot go on with 0.5"):
        record.check_same(
            TrainConfig(epochs=3, distill_tau=0.5), METADATA | {"config": DEFAULTS}, DEFAULTS
        )
    with pytest.raises(ValueError, match=r"config.keep_rate = 0.7, and cannot go on with 0.5"):
        record.check_same(CONFIG, METADATA, DEFAULTS)


@pytest.mark.parametrize("content", ["[]", "{}", '{"train": 3}'])
def test_what_is_no_record_of_a_run_is_not_gone_on_with(tmp_path, content):
    record = begun(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="begun with train"):
        record.check_same(CONFIG, METADATA, DEFAULTS)


def test_the_log_is_cut_back_to_what_was_saved(tmp_path):
    record = begun(tmp_path)
    for update in range(1, 5):
        record.add_step(Step(update, 6, 2.0, 1e-3, 70.0), 1 + (update - 1) // 2)
        if update % 2 == 0:
            record.add_epoch([epoch(number) for number in range(1, update // 2 + 1)], update)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"update": 1, "ep')
    record.truncate(3, 1)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["update"], "top1" in line) for line in lines] == [
        (1, False),
        (2, False),
        (2, True),
        (3, False),
    ]


def test_the_summary_counts_epochs_as_timm_does(tmp_path):
    begun(tmp_path).add_epoch([epoch(1), epoch(2)], 6)
    assert (tmp_path / "summary.csv").read_text().splitlines() == [
        "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr",
        "0,2.0,1.5,50.0,80.0,0.001",
        "1,2.0,1.5,50.0,80.0,0.001",
    ]
