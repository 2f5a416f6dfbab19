"""Per-image scores of every model, saved so that an interrupted pass can resume."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.compare.failures import collect_errors
from batvit.compare.rows import DENSE
from batvit.measure.accuracy import best_classes, check_labels, hits
from batvit.measure.logits import divergence, finite_logits
from batvit.storage.files import write_atomic

SCORES_FILE = "scores.safetensors"


class ImageScores(NamedTuple):
    """One model's scores, one for each picture (S,), float32; NaN where it was not run yet."""

    top1: Tensor
    """1 where the most likely class is right, else 0"""
    top5: Tensor
    """1 where one of the five most likely classes is right, else 0"""
    agreement: Tensor
    """1 where the most likely class is the dense model's, else 0"""
    kl: Tensor
    """divergence of the dense model's distribution to its own, in nats"""

    @property
    def done(self) -> int:
        """The number of pictures, from the first on, that the model was run on."""
        missing = torch.stack(self).isnan().any(dim=0)
        return int(missing.int().argmax()) if missing.any() else len(missing)


@dataclass
class Scores:
    """The scores of the dense model, named "dense", and of others beside it."""

    by_model: dict[str, ImageScores]
    digests: Mapping[str, str]
    """model to what tells it, and what it is shown, from all others"""
    errors: dict[str, Exception] = field(default_factory=dict)
    """what a model failed with"""

    @classmethod
    def load(cls, path: Path, digests: Mapping[str, str], samples: int) -> "Scores":
        """Read what was saved of these very models and pictures; of others, nothing.

        Args:
            path: of the file; it need not be there.
            digests: of the dense model and of the others, by name.
            samples: how many pictures there are.

        Raises:
            ValueError: if the file cannot be read.
        """
        try:
            saved = safetensors.torch.load(path.read_bytes()) if path.is_file() else {}
        except Exception as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); remove it, and the pictures are looked at again"
            ) from error
        by_model = {}
        for name, digest in digests.items():
            scores = saved.get(_column(name, digest))
            shape = (len(ImageScores._fields), samples)
            if scores is None or scores.shape != shape or scores.dtype != torch.float32:
                scores = torch.full(shape, torch.nan)
            by_model[name] = ImageScores(*scores)
        return cls(by_model, digests)

    def save(self, path: Path) -> None:
        """Write what is known so far, whole or not at all."""
        columns = {}
        for name, scores in self.by_model.items():
            columns[_column(name, self.digests[name])] = torch.stack(scores)
        write_atomic(path, safetensors.torch.save(columns))

    def update(
        self,
        dense: nn.Module,
        models: Mapping[str, nn.Module],
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        start: int = 0,
    ) -> Iterator[int]:
        """Run every model on the batches that it was not run on yet.

        A model that fails, in whatever way, is left out from then on.

        Args:
            dense: what all are compared with; it runs wherever another does.
            models: by name.
            batches: pictures (B, 3, H, W) and labels (B,), always in the same order.
            start: how many pictures come before the first batch.

        Yields:
            After each batch, how many pictures are done.

        Raises:
            ValueError: if the dense model's logits are not finite, or a label is no class of it.
        """
        done = {name: self.by_model[name].done for name in (DENSE, *models)}
        for images, labels in batches:
            end = start + len(labels)
            due = [name for name in models if done[name] < end and name not in self.errors]
            if due or done[DENSE] < end:
                self._score(
                    dense,
                    {name: models[name] for name in due},
                    images,
                    labels.cpu(),
                    slice(start, end),
                )
            start = end
            yield end

    def _score(
        self,
        dense: nn.Module,
        models: Mapping[str, nn.Module],
        images: Tensor,
        labels: Tensor,
        place: slice,
    ) -> None:
        """Score one batch, whose pictures have this place among all."""
        reference = finite_logits(dense, images, name="the dense model")
        check_labels("the dense model", labels, reference.shape[1])
        self._set(DENSE, place, score_logits(reference, reference, labels))
        for name, model in models.items():
            with collect_errors(self.errors, name):
                logits = finite_logits(model, images, name=name)
                self._set(name, place, score_logits(logits, reference, labels))

    def _set(self, name: str, place: slice, scores: ImageScores) -> None:
        for known, new in zip(self.by_model[name], scores, strict=True):
            known[place] = new


def score_logits(logits: Tensor, reference: Tensor, labels: Tensor) -> ImageScores:
    """Return the scores of a batch.

    Args:
        logits: of a model (B, classes), float32, on the CPU.
        reference: logits of the dense model, alike.
        labels: (B,), on the CPU.

    Raises:
        ValueError: if the divergence is not finite.
    """
    right = hits(logits, best_classes(reference)[:, 0], labels)
    kl = divergence(functional.log_softmax(logits, dim=1), functional.log_softmax(reference, dim=1))
    if not kl.isfinite().all():
        raise ValueError("the divergence from the dense model is not finite")
    return ImageScores(right.top1.float(), right.top5.float(), right.agreeing.float(), kl)


def _column(name: str, digest: str) -> str:
    return f"{name} {digest}"
