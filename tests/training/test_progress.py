"""How far a run is."""

import json

from batvit.training.progress import Epoch, Progress


def epoch(number, top1):
    return Epoch(number, 2.0, 1.5, top1, 80.0, 1e-3, 9.0, 70.0)


def test_the_best_epoch_is_the_earliest_of_the_most_accurate():
    progress = Progress(history=[epoch(1, 40.0), epoch(2, 60.0), epoch(3, 60.0), epoch(4, 50.0)])
    assert progress.best.epoch == 2


def test_it_is_the_same_after_json():
    progress = Progress(7, [epoch(1, 40.0)], [2.5, 2.25], 1e-4, 3.0)
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
    assert Progress.from_dict(Progress().to_dict()) == Progress()
