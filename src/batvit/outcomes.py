"""What each model made of each picture, beside the dense model: kept in order, so that a pass can be left and taken up."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from batvit.data import placed
from batvit.files import write_atomic

DENSE = "dense"
KINDS = ("top1", "top5", "same", "kl")


@dataclass
class Outcomes:
    """For each model and picture: right, among the first five, of the dense model's class, and the divergence from it."""

    values: dict[str, Tensor]
    """model to (4, S), in the order of ``KINDS``; NaN for what was not seen yet"""
    seen: int = 0
    failed: dict[str, Exception] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, names: Iterable[str], samples: int) -> "Outcomes":
        """What was kept of these models and this many pictures; nothing, if it was of others."""
        known = [DENSE, *names]
        if path.is_file():
            try:
                kept = safetensors.torch.load(path.read_bytes())
            except Exception as error:
                raise ValueError(
                    f"{path}: cannot be read ({error}); remove it, and the pictures are looked at again"
                ) from error
            seen = int(kept.pop("seen"))
            if sorted(kept) == sorted(known) and all(held.shape == (len(KINDS), samples) for held in kept.values()):
                return cls(kept, seen)
        return cls({name: torch.full((len(KINDS), samples), torch.nan) for name in known})

    def save(self, path: Path) -> None:
        """Keep what was seen so far, whole or not at all."""
        write_atomic(path, safetensors.torch.save(self.values | {"seen": torch.tensor(self.seen)}))

    def of(self, name: str) -> dict[str, Tensor]:
        """The outcomes of one model by kind, (S,) each."""
        return dict(zip(KINDS, self.values[name], strict=True))

    def watch(
        self, dense: nn.Module, models: Mapping[str, nn.Module], batches: Iterable[tuple[Tensor, Tensor]]
    ) -> Iterator[int]:
        """Run all models on every batch that was not seen yet; gives the number of pictures seen after each.

        A model that fails is left out from then on.

        Args:
            dense: what all are compared with.
            models: by name.
            batches: pictures (B, 3, H, W) and labels (B,), of one size but for the last, always in the same order.
        """
        start, skipped = 0, self.seen
        for images, labels in batches:
            start, first = start + len(labels), start
            if start <= skipped:
                continue
            place = slice(first, start)
            with torch.inference_mode():
                truth = functional.log_softmax(_logits(dense, images), dim=1)
                self.values[DENSE][:, place] = _judge(truth, truth, labels)
                for name, model in models.items():
                    if name not in self.failed:
                        try:
                            found = functional.log_softmax(_logits(model, images), dim=1)
                            self.values[name][:, place] = _judge(found, truth, labels)
                        except (RuntimeError, ValueError) as error:
                            self.failed[name] = error
            self.seen = start
            yield start


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model.eval()(placed(images, model)).float().cpu()
    if not logits.isfinite().all():
        raise ValueError("logits are not finite")
    return logits


def _judge(found: Tensor, truth: Tensor, labels: Tensor) -> Tensor:
    """(4, B): the kinds of outcome, for log-probabilities (B, classes) of a model and of the dense one."""
    best = found.topk(min(5, found.shape[1]), dim=1).indices
    hits = best == labels.cpu().unsqueeze(1)
    same = best[:, 0] == truth.argmax(dim=1)
    kl = functional.kl_div(found, truth, log_target=True, reduction="none").sum(dim=1)
    return torch.stack((hits[:, 0].float(), hits.any(dim=1).float(), same.float(), kl))
