"""Where a run stands, and what becomes of it in JSON."""

import json

from batvit.training.progress import Epoch, Progress


def epoch(number, top1):
    return Epoch(number, 1.0, 0.5, top1, 90.0, 1e-3, 2.0, 100.0)


def test_the_best_epoch_is_the_earliest_of_equals():
    history = [epoch(1, 70.0), epoch(2, 80.0), epoch(3, 80.0), epoch(4, 75.0)]
    assert Progress(history=history).best.epoch == 2


def test_it_survives_json():
    progress = Progress(
        update=7, history=[epoch(1, 70.0)], losses=[0.25, 0.5], lr=1e-4, seconds=3.0
    )
    again = Progress.from_dict(json.loads(json.dumps(progress.to_dict())))
    assert again == progress
    assert isinstance(again.history[0], Epoch)
