"""Where tokens are reduced, to how many, and how: one frozen value that travels with a model."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batvit.checks import check
from batvit.files import read_json, write_atomic
from batvit.presets import DEFAULT_KEEP_RATE, DEFAULT_MODE, PRESETS, as_in_paper

GRADUAL_DEPTH = 3
PER_SITE = ("keep_rate", "tokens", "blocks")
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class Counts(NamedTuple):
    """What happens at one site: ``tokens_out = attentive - pairs + centres``."""

    block: int
    tokens_in: int
    attentive: int
    pairs: int
    centres: int
    tokens_out: int


@dataclass(frozen=True, kw_only=True)
class BATConfig:
    """Which blocks reduce their tokens, how many go on, and how they are chosen and combined.

    Counts of tokens never include prefix tokens (class, distillation, registers), which bypass the reduction.
    Every field is checked on creation; what depends on the model (depth, number of patches) is checked by
    :func:`batvit.patch` before the model is touched.

    Raises:
        ValueError, TypeError: naming the field, the value received, what is allowed, and what to do.
    """

    keep_rate: float | tuple[float, ...] | None = None
    """share of the image tokens that goes on at each site, in (0, 1]; one number, or one a site; 0.7 unless tokens are given"""
    tokens: tuple[int, ...] | None = None
    """image tokens after each site, instead of a keep rate"""
    blocks: tuple[int, ...] | None = None
    """the blocks that reduce, counted from 0; by default three sites at the quarters of the depth (3, 6, 9 of 12)"""
    gradual: bool = False
    """let many blocks keep the same share each, so that in the end as many tokens are left as three sites would leave"""
    align: int = 1
    """round what a keep rate leaves, with the prefix, to a multiple of this; of half of it, or less, where few are left"""
    method: str = "bat"
    """the plan that decides what becomes of each token: bat, or a peer to compare with"""
    centres: float | int = 0.3
    """clusters of inattentive tokens: a share of the outgoing tokens (float; at least one cluster) or a count (int)"""
    pairs: float | int = 0.1
    """merges among the attentive tokens: a share of them, at most 0.5 (float), or a count (int)"""
    similarity: str = "tokens"
    """what similarity is measured on: the tokens after attention, or the keys of the attention"""
    matching: str = "bipartite"
    """how pairs are found: bipartite (one step) or greedy (exact pairs, one step each)"""
    importance_power: float = 0.0
    """multiply the score that makes a token a centre with its importance to this power; 0 leaves it out"""
    neighbours: int | None = None
    """density of a token over this many nearest tokens, itself included; over all where there are fewer, or if None"""
    weight: str = "importance"
    """what members of a group are weighted by: importance, size, or importance_size (their product)"""
    keep_norm: bool = False
    """give a merged token the weighted mean length of its members, as a mean of unlike tokens is shorter than they are"""
    size_aware: bool = False
    """add log(size) to the attention logits after the first site, so that a merged token counts for what it holds"""
    size_power: float = 1.0
    """with size_aware, let a merged token count for its size to this power"""
    prefix_only: bool = False
    """let prefix tokens alone through the last MLP where the head reads no others: same logits, fewer MACs, no patch left"""

    def __post_init__(self) -> None:
        for name in PER_SITE:
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        if self.keep_rate is None and self.tokens is None:
            object.__setattr__(self, "keep_rate", DEFAULT_KEEP_RATE)
        check(self)

    @classmethod
    def preset(cls, mode: str = DEFAULT_MODE, **fields: Any) -> "BATConfig":
        """A named configuration, with any field set otherwise.

        ``paper`` is steps 1 to 6 of the paper, for fine-tuning and reproduction. ``training_free`` makes
        the attention size-aware and takes more clusters, for a pretrained model as it is; ``gradual`` spreads that over more
        sites, which keeps more accuracy for the same MACs and costs time at small batches. In ``paper`` a keep rate of
        the paper's table stands for the token counts that give the paper's MACs (:data:`batvit.presets.PAPER_TOKENS`);
        any other is taken as it is.
        """
        name = mode.replace("-", "_") if isinstance(mode, str) else mode
        if name not in PRESETS:
            raise ValueError(f"mode must be one of {', '.join(PRESETS)}, got {mode!r}")
        fields = PRESETS[name] | fields
        if name == "paper" and fields.get("tokens") is None and not fields.get("gradual"):
            rate = fields.get("keep_rate")
            fields["keep_rate"] = as_in_paper(DEFAULT_KEEP_RATE if rate is None else rate, fields.get("blocks"))
        return cls.from_dict(fields)

    def sites(self, depth: int) -> tuple[int, ...]:
        """The blocks that reduce in a model of ``depth`` blocks, counted from 0.

        Raises:
            ValueError: if a block is out of range.
        """
        if self.blocks is None and self.gradual and self._site_count is None:
            if depth < GRADUAL_DEPTH:
                raise ValueError(f"gradual needs {GRADUAL_DEPTH} blocks or more, the model has {depth}; give blocks=(…)")
            # earlier, class attention does not know yet who matters
            return tuple(range(depth // 4, depth * 3 // 4))
        if self.blocks is None:
            sites = self._site_count or 3
            if depth <= sites:
                raise ValueError(f"{sites} default sites need more than {sites} blocks, the model has {depth}; give blocks=(…)")
            return tuple(depth * (i + 1) // (sites + 1) for i in range(sites))
        if self.blocks[-1] >= depth:
            raise ValueError(f"blocks must lie in 0 .. {depth - 1} for a model of {depth} blocks, got {self.blocks[-1]}")
        return self.blocks

    def schedule(self, *, depth: int, patches: int, prefix: int = 0) -> tuple[Counts, ...]:
        """The counts at every site, for an image of ``patches`` tokens after ``prefix`` others: fixed, whatever it shows.

        Raises:
            ValueError: if a count does not fit the number of tokens.
        """
        counts: list[Counts] = []
        tokens, sites = patches, self.sites(depth)
        for i, block in enumerate(sites):
            fallen = (i + 1) / len(sites)
            counts.append(self._counts(block, tokens, self._tokens_out(i, block, tokens, prefix, patches, fallen)))
            tokens = counts[-1].tokens_out
        return tuple(counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> "BATConfig":
        """The inverse of :meth:`to_dict`. Unknown names are refused, and what is no dictionary (TypeError)."""
        if not isinstance(fields, dict):
            raise TypeError(f"a BATConfig is a JSON object, found {type(fields).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r} in a BATConfig; the fields are {', '.join(known)}")
        # JSON has lists for tuples
        several = {name: tuple(fields[name]) for name in PER_SITE if isinstance(fields.get(name), list)}
        return cls(**(fields | several))

    def with_fields(self, **fields: Any) -> "BATConfig":
        """A copy with fields set otherwise; a keep rate takes the place of tokens, and tokens that of a keep rate.

        A keep rate given here is taken as it is, also where the paper's totals stood.
        """
        given = self.to_dict()
        for one, other in (("tokens", "keep_rate"), ("keep_rate", "tokens")):
            if fields.get(one) is not None and other not in fields:
                given[other] = None
        return self.from_dict(given | fields)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all."""
        return write_atomic(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "BATConfig":
        """Read what :meth:`save` wrote."""
        fields = read_json(path)
        try:
            return cls.from_dict(fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @staticmethod
    def path_beside(checkpoint: str | Path) -> Path:
        """Where the configuration of a checkpoint is kept: ``model.safetensors`` has ``model.batvit.json``."""
        path = Path(checkpoint)
        name = path.stem if path.suffix in CHECKPOINT_SUFFIXES else path.name
        return path.with_name(f"{name}.batvit.json")

    @classmethod
    def beside(cls, checkpoint: str | Path) -> "BATConfig | None":
        """The configuration saved beside a checkpoint, or None."""
        path = cls.path_beside(checkpoint)
        return cls.load(path) if path.is_file() else None

    @property
    def _site_count(self) -> int | None:
        for value in (self.blocks, self.tokens, self.keep_rate):
            if isinstance(value, tuple):
                return len(value)
        return None

    def _counts(self, block: int, tokens: int, out: int) -> Counts:
        if out == tokens or self.method != "bat":
            return Counts(block, tokens, out, 0, 0, out)
        centres = self.centres if isinstance(self.centres, int) else max(1, round(self.centres * out))
        if centres > out:
            raise ValueError(f"block {block}: {centres} centres do not fit into {out} outgoing tokens; give fewer")
        if isinstance(self.pairs, int):
            pairs = self.pairs
        else:
            # pairs = share * attentive, and attentive = out - centres + pairs
            pairs = min(int(self.pairs * (out - centres) / (1 - self.pairs)), tokens - out)
        attentive = out - centres + pairs
        if 2 * pairs > attentive:
            raise ValueError(
                f"block {block}: {pairs} pairs need {2 * pairs} attentive tokens, there are {attentive}; give fewer pairs"
            )
        if tokens - attentive < centres or (centres == 0 and attentive < tokens):
            raise ValueError(
                f"block {block}: {attentive} attentive tokens of {tokens} leave {tokens - attentive} for {centres} centres; "
                "change centres or pairs"
            )
        return Counts(block, tokens, attentive, pairs, centres, out)

    def _tokens_out(self, site: int, block: int, tokens: int, prefix: int, patches: int, fallen: float) -> int:
        if self.tokens is None:
            rate = self.keep_rate[site] if isinstance(self.keep_rate, tuple) else self.keep_rate
            assert rate is not None
            share, before = rate, tokens
            if self.gradual:
                share, before = rate ** (3 * fallen), patches
            # a product such as 196 * (138 / 196) must not be rounded up by its last bit
            out = min(tokens, max(1, math.ceil(share * before - 1e-9)))
            return out if out == tokens else self._aligned(out, tokens, prefix)
        if self.tokens[site] > tokens:
            raise ValueError(f"block {block}: {self.tokens[site]} tokens cannot go on where {tokens} come in; lower tokens")
        return self.tokens[site]

    def _aligned(self, out: int, tokens: int, prefix: int) -> int:
        """The nearest count that makes prefix + count a multiple; ``out`` if the method can take ``tokens`` to none."""
        from batvit.plans import PLANS

        most, align = PLANS[self.method].most, self.align
        while align > 1 and 4 * align > prefix + out:
            align //= 2
        lower = (prefix + out) // align * align - prefix
        fitting = [n for n in (lower, lower + align) if 1 <= n < tokens and tokens - n <= most * tokens] or [out]
        # torch.compile looks into this, and min(…, key=…) ends its graph up to torch 2.11
        return fitting[0] if out - fitting[0] <= fitting[-1] - out else fitting[-1]
