"""What a search found: the configuration, the front, and how it does beside the preset."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batvit.config import BATConfig
from batvit.measure.tables import as_csv, as_text
from batvit.storage.files import write_atomic
from batvit.tune.finalists import Measured
from batvit.tune.objective import Difference, Score
from batvit.tune.trials import Trial

CONFIG = "config.json"
FRONT = "front.csv"
RESULT = "result.json"


class Checked(NamedTuple):
    """A configuration, measured, and scored on the pictures held out."""

    measured: Measured
    score: Score

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return self.measured.row(self.score)


class TimeErrors(NamedTuple):
    """Errors of the predicted time, relative to the measured one."""

    written: float
    """of what is written"""
    fitted: float
    """of the winner, by the cost as the search had it"""


@dataclass(frozen=True)
class Tuned:
    """What a search found. Printed, it is tables and sentences.

    Examples:
        As in the example of :func:`batvit.tune.run`:

        >>> tuned.model, tuned.samples
        ('VisionTransformer', 4)
        >>> batvit.config_of(batvit.patch(model, tuned.config)) == tuned.config
        True
    """

    folder: Path
    """where the files are"""
    model: str
    """the name of the model"""
    config: BATConfig
    """the best configuration: what was tuned, or the preset where that loses less"""
    front: tuple[Trial, ...]
    """what no other configuration beats in both cost and loss, the cheapest first"""
    samples: int
    """pictures held out"""
    predicted: Trial
    """the winner, as it was in the search"""
    tuned: Checked
    """the winner, with as many tokens as its cost has room for"""
    preset: Checked | None
    """the training-free preset, if it can be had at the same cost"""
    preset_at_same: str | None
    """the cost that is the same: "time" or "MACs" """
    differences: Mapping[str, Difference] | None
    """of loss and drop, tuned minus preset"""
    time_errors: TimeErrors | None
    """None where the cost is MACs, which are counted"""
    sentences: tuple[str, ...]
    """whether the goal is met, and how tuned and preset compare"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: what ``result.json`` holds."""
        values: dict[str, Any] = {
            "model": self.model,
            "held_out": self.samples,
            "predicted": self.predicted.to_dict(),
            "tuned": self.tuned.to_dict(),
            "preset_at_same": self.preset_at_same,
            "preset": None if self.preset is None else self.preset.to_dict(),
        }
        if self.differences is not None:
            differences = {}
            for name, difference in self.differences.items():
                differences[name] = difference._asdict()
            values["difference"] = differences
        if self.time_errors is not None:
            values["time_error"] = self.time_errors.written
            values["fitted_error"] = self.time_errors.fitted
        values["config"] = self.config.to_dict()
        values["sentences"] = list(self.sentences)
        return values

    def save(self) -> None:
        """Write the configuration and the result into the folder."""
        self.config.save(self.folder / CONFIG)
        write_atomic(self.folder / RESULT, json.dumps(self.to_dict(), indent=2) + "\n")

    def __str__(self) -> str:
        lines = [
            "the front: cost as a share of the dense model's, "
            "loss and drop on the pictures searched on",
            self._front_table(),
            f"on {self.samples} pictures held out",
            self._checked_table(),
            *self.sentences,
        ]
        if self.time_errors is not None:
            lines.append(
                f"predicted time within {100 * abs(self.time_errors.written):.1f} % of the "
                f"measured one; {100 * abs(self.time_errors.fitted):.1f} % as the search had it"
            )
        return "\n".join(lines)

    def _front_table(self) -> str:
        rows = []
        for trial in self.front:
            tokens = trial.config.tokens
            assert tokens is not None
            rows.append(
                (
                    f"{trial.cost:.3f}",
                    f"{trial.loss:.4f}",
                    f"{trial.drop:.1f}",
                    str(len(tokens)),
                    str(tokens[-1]),
                )
            )
        return as_text(("cost", "loss", "drop", "sites", "tokens at the end"), rows)

    def _checked_table(self) -> str:
        named = [("tuned", self.tuned)]
        if self.preset is not None:
            named.append((f"preset, equal {self.preset_at_same}", self.preset))
        rows = []
        for name, checked in named:
            measurement = checked.measured.measurement
            rows.append(
                (
                    name,
                    f"{measurement.speedup:.2f}{'?' if measurement.unsteady else ''}",
                    f"{measurement.macs / 1e9:.3f}",
                    f"{checked.score.loss:.4f}",
                    f"{checked.score.drop:.1f}",
                )
            )
        return as_text(("", "speed-up", "G MACs", "loss", "drop"), rows)


def save_front(folder: Path, front: tuple[Trial, ...]) -> None:
    """Write the front as a table, the cheapest configuration first."""
    rows = []
    for trial in front:
        rows.append(
            {
                "cost": trial.cost,
                "loss": trial.loss,
                "drop": trial.drop,
                "config": json.dumps(trial.config.to_dict()),
            }
        )
    write_atomic(folder / FRONT, as_csv(rows))
