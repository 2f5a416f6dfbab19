"""What each model made of each picture, beside the dense model: kept in order, so that a pass can be left and taken up."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data.loading import placed
from batvit.measure.accuracy import best_classes
from batvit.storage.files import write_atomic

DENSE = "dense"
KINDS = ("top1", "top5", "same", "kl")
Key = TypeVar("Key")


@dataclass
class Outcomes:
    """For each model and picture: right, among the first five, of the dense model's class, and the divergence from it."""

    values: dict[str, Tensor]
    """model to (4, S), in the order of ``KINDS``; NaN for what was not seen yet"""
    digests: Mapping[str, str]
    """model to what tells it, and what it is shown, from all others"""
    failed: dict[str, Exception] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, digests: Mapping[str, str], samples: int) -> "Outcomes":
        """What was kept of these very models and pictures; of others, nothing.

        Args:
            path: of the file; it need not be there.
            digests: of the dense model and of the others, by name.
            samples: how many pictures there are.

        Raises:
            ValueError: if the file cannot be read.
        """
        try:
            kept = safetensors.torch.load(path.read_bytes()) if path.is_file() else {}
        except Exception as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); remove it, and the pictures are looked at again"
            ) from error
        values = {name: torch.full((len(KINDS), samples), torch.nan) for name in digests}
        for name, unseen in values.items():
            held = kept.get(_column(name, digests[name]))
            if held is not None and (held.shape, held.dtype) == (unseen.shape, unseen.dtype):
                values[name] = held
        return cls(values, digests)

    def save(self, path: Path) -> None:
        """Keep what was seen so far, whole or not at all."""
        columns = {
            _column(name, self.digests[name]): column for name, column in self.values.items()
        }
        write_atomic(path, safetensors.torch.save(columns))

    def of(self, name: str) -> dict[str, Tensor]:
        """The outcomes of one model by kind, (S,) each."""
        return dict(zip(KINDS, self.values[name], strict=True))

    def seen(self, name: str) -> int:
        """How many pictures, from the first on, a model has seen."""
        unseen = self.values[name].isnan().any(dim=0)
        return int(unseen.int().argmax()) if unseen.any() else len(unseen)

    def watch(
        self,
        dense: nn.Module,
        models: Mapping[str, nn.Module],
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        start: int = 0,
    ) -> Iterator[int]:
        """Run every model on the batches it has not seen yet; gives the number of pictures seen after each.

        A model that fails, in whatever way, is left out from then on.

        Args:
            dense: what all are compared with; it runs wherever another does.
            models: by name.
            batches: pictures (B, 3, H, W) and labels (B,), always in the same order.
            start: how many pictures come before the first batch.

        Raises:
            ValueError: if the dense model's logits are not finite.
        """
        before = {name: self.seen(name) for name in (DENSE, *models)}
        for images, labels in batches:
            place = slice(start, start := start + len(labels))
            due = [name for name in models if before[name] < start and name not in self.failed]
            if due or before[DENSE] < start:
                with torch.inference_mode():
                    truth = finite_logits(dense, images)
                    self.values[DENSE][:, place] = _judge(truth, truth, labels)
                    for name in due:
                        with collect_errors(self.failed, name):
                            self.values[name][:, place] = _judge(
                                finite_logits(models[name], images, name), truth, labels
                            )
            yield start


@contextmanager
def collect_errors(failed: dict[Key, Exception], key: Key) -> Iterator[None]:
    """Keep what one of many fails with, so that the others go on."""
    try:
        yield
    except Exception as error:
        # its traceback would hold what was computed
        failed[key] = error.with_traceback(None)


def finite_logits(model: nn.Module, images: Tensor, name: str = "the dense model") -> Tensor:
    """Logits (B, classes) in fp32 on the CPU.

    Raises:
        ValueError: if they are not finite.
    """
    logits: Tensor = model.eval()(placed(images, model)).float().cpu()
    if not logits.isfinite().all():
        raise ValueError(
            f"{name}: logits are not finite; run it in fp32 or bf16, or check its weights"
        )
    return logits


def _column(name: str, digest: str) -> str:
    return f"{name} {digest}"


def _judge(found: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
    """(4, B): the kinds of outcome, for logits (B, classes) of a model and of the dense one."""
    best = best_classes(found)
    hits = best == labels.cpu().unsqueeze(1)
    same = best[:, 0] == best_classes(truth)[:, 0]
    own, its = (functional.log_softmax(logits, dim=1) for logits in (found, truth))
    kl = functional.kl_div(own, its, log_target=True, reduction="none").sum(dim=1)
    if not kl.isfinite().all():
        raise ValueError("the divergence from the dense model is not finite")
    return torch.stack((hits[:, 0].float(), hits.any(dim=1).float(), same.float(), kl))
