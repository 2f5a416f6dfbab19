"""Where tokens are reduced, to how many, and how: one frozen value that travels with a model."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batvit.checks import (
    check_choice,
    check_integers,
    check_interval,
    check_share_or_count,
    check_switch,
)
from batvit.config.presets import DEFAULT_KEEP_RATE, DEFAULT_MODE, PRESETS, as_in_paper
from batvit.storage.files import read_json, write_atomic

SPREAD_DEPTH = 3
DEFAULT_SITES = 3
PER_SITE = ("keep_rate", "tokens", "blocks")
USUAL_FIELDS = ("keep_rate", "tokens", "blocks", "align", "prefix_only", "method")
"""what most users set; the other fields are for research"""
CHOICES: dict[str, tuple[str, ...]] = {
    "similarity": ("tokens", "keys"),
    "matching": ("bipartite", "greedy"),
    "weight": ("importance", "size", "importance_size"),
}
SWITCHES = ("spread_sites", "prefix_only", "size_aware", "keep_norm")
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, kw_only=True)
class BATConfig:
    """Which blocks reduce their tokens, how many go on, and how they are chosen and combined.

    Counts of tokens never include prefix tokens (class, distillation, registers), which bypass the
    reduction. Every field is checked on creation. What depends on the model (depth, number of
    patches), and whether ``method`` names a plan, is checked by :func:`batvit.patch` before the
    model is touched.

    Raises:
        ValueError, TypeError: naming the field, the value received, what is allowed, what to do.

    Examples:
        >>> batvit.BATConfig(keep_rate=0.5).sites(depth=12)
        (3, 6, 9)
        >>> batvit.BATConfig(keep_rate=1.5)
        Traceback (most recent call last):
            ...
        ValueError: keep_rate must lie in (0, 1], got 1.5; 1 keeps everything, 0.7 is usual
    """

    # the six that most users set

    keep_rate: float | tuple[float, ...] | None = None
    """share of the image tokens that goes on at each site, in (0, 1]; one number, or one a site;
    0.7 unless tokens are given"""
    tokens: tuple[int, ...] | None = None
    """image tokens after each site, instead of a keep rate"""
    blocks: tuple[int, ...] | None = None
    """the blocks that reduce, counted from 0; by default three sites at the quarters of the depth
    (3, 6, 9 of 12)"""
    align: int = 1
    """round what a keep rate leaves, with the prefix, to a multiple of this; of half of it, or
    less, where few are left"""
    prefix_only: bool = False
    """let prefix tokens alone through the last MLP where the head reads no others: same logits,
    fewer MACs, no patch left"""
    method: str = "bat"
    """the plan that decides what becomes of each token: bat, or a peer to compare with"""

    # the others, to tinker with

    spread_sites: bool = False
    """reduce in all blocks of the middle half, or in those given, by the same share each, so that
    in the end as many tokens are left as three sites would leave"""
    centres: float | int = 0.3
    """clusters of inattentive tokens: a share of the outgoing tokens (float; at least one cluster)
    or a count (int)"""
    pairs: float | int = 0.1
    """merges among the attentive tokens: a share of them, at most 0.5 (float), or a count (int)"""
    similarity: str = "tokens"
    """what similarity is measured on: the tokens after attention, or the keys of the attention"""
    matching: str = "bipartite"
    """how pairs are found: bipartite (one step) or greedy (exact pairs, one step each)"""
    importance_power: float = 0.0
    """multiply the score that makes a token a centre with its importance to this power; 0 leaves it
    out"""
    neighbours: int | None = None
    """density of a token over this many nearest tokens, itself included; over all where there are
    fewer, or if None"""
    weight: str = "importance"
    """what members of a group are weighted by: importance, size, or importance_size (their
    product)"""
    keep_norm: bool = False
    """give a merged token the weighted mean length of its members, as a mean of unlike tokens is
    shorter than they are"""
    size_aware: bool = False
    """add log(size) to the attention logits after the first site, so that a merged token counts for
    what it holds"""
    size_power: float = 1.0
    """with size_aware, let a merged token count for its size to this power"""

    def __post_init__(self) -> None:
        for name in PER_SITE:
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                # the way around a frozen dataclass
                object.__setattr__(self, name, tuple(value))
        if self.keep_rate is None and self.tokens is None:
            object.__setattr__(self, "keep_rate", DEFAULT_KEEP_RATE)
        self._check_counts()
        self._check_choices()

    @classmethod
    def preset(cls, mode: str = DEFAULT_MODE, **fields: Any) -> "BATConfig":
        """Return a named configuration, with any field set otherwise.

        Args:
            mode: ``paper`` is steps 1 to 6 of the paper, for fine-tuning and reproduction.
                ``training-free`` makes the attention size-aware and takes more clusters, for a
                pretrained model as it is. ``gradual`` spreads that over more sites, which keeps
                more accuracy for the same MACs and costs time at small batches.
            fields: of this class. In ``paper`` a keep rate of the paper's table stands for the
                token counts that give the paper's MACs
                (:data:`batvit.config.presets.PAPER_TOKENS`); any other is taken as it is.

        Raises:
            ValueError, TypeError: if there is no such preset, or a field is refused.
        """
        name = mode.replace("_", "-") if isinstance(mode, str) else mode
        if name not in PRESETS:
            raise ValueError(f"mode must be one of {', '.join(PRESETS)}, got {mode!r}")
        fields = PRESETS[name] | fields
        if name == "paper" and fields.get("tokens") is None and not fields.get("spread_sites"):
            rate = fields.get("keep_rate")
            if rate is None:
                rate = DEFAULT_KEEP_RATE
            fields["keep_rate"] = as_in_paper(rate, fields.get("blocks"))
        return cls.from_dict(fields)

    def sites(self, depth: int) -> tuple[int, ...]:
        """Return the blocks that reduce in a model of ``depth`` blocks, counted from 0.

        Raises:
            ValueError: if a block is out of range, or the model has too few.
        """
        if self.blocks is not None:
            if self.blocks[-1] >= depth:
                raise ValueError(
                    f"blocks must lie in 0 .. {depth - 1} for a model of {depth} blocks, "
                    f"got {self.blocks[-1]}"
                )
            return self.blocks
        if self.spread_sites and self._site_count is None:
            if depth < SPREAD_DEPTH:
                raise ValueError(
                    f"spread_sites needs {SPREAD_DEPTH} blocks or more, the model has {depth}; "
                    "give blocks=(…)"
                )
            # earlier, class attention does not know yet who matters
            return tuple(range(depth // 4, depth * 3 // 4))
        sites = self._site_count or DEFAULT_SITES
        if depth <= sites:
            raise ValueError(
                f"{sites} default sites need more than {sites} blocks, the model has {depth}; "
                "give blocks=(…)"
            )
        return tuple(depth * (i + 1) // (sites + 1) for i in range(sites))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Any) -> "BATConfig":
        """Return the configuration that :meth:`to_dict` gave; missing fields have their default.

        Raises:
            TypeError: if ``fields`` is no dictionary.
            ValueError, TypeError: if a name is unknown, or a value is refused.
        """
        if not isinstance(fields, dict):
            raise TypeError(f"a BATConfig is a JSON object, found {type(fields).__name__}")
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(names))
        if unknown:
            raise ValueError(
                f"unknown field {unknown[0]!r} in a BATConfig; the fields are {', '.join(names)}"
            )
        fields = dict(fields)
        for name in PER_SITE:
            # JSON has lists for tuples
            if isinstance(fields.get(name), list):
                fields[name] = tuple(fields[name])
        return cls(**fields)

    def with_fields(self, **fields: Any) -> "BATConfig":
        """Return a copy with fields set otherwise.

        A keep rate takes the place of tokens, and tokens that of a keep rate. A keep rate given
        here is taken as it is, also where the paper's totals stood.
        """
        values = self.to_dict()
        if fields.get("tokens") is not None:
            values["keep_rate"] = None
        if fields.get("keep_rate") is not None:
            values["tokens"] = None
        return self.from_dict(values | fields)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all; OSError if that cannot be."""
        return write_atomic(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "BATConfig":
        """Read what :meth:`save` wrote; OSError or ValueError says what is wrong with the file."""
        fields = read_json(path)
        try:
            return cls.from_dict(fields)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @staticmethod
    def path_beside(checkpoint: str | Path) -> Path:
        """Return where the configuration of a checkpoint is kept.

        That of ``model.safetensors`` is ``model.batvit.json``.
        """
        path = Path(checkpoint)
        name = path.stem if path.suffix in CHECKPOINT_SUFFIXES else path.name
        return path.with_name(f"{name}.batvit.json")

    @classmethod
    def beside(cls, checkpoint: str | Path) -> "BATConfig | None":
        """Return the configuration saved beside a checkpoint, or None."""
        path = cls.path_beside(checkpoint)
        return cls.load(path) if path.is_file() else None

    @property
    def _site_count(self) -> int | None:
        """Return how many sites the values that are given one a site stand for."""
        for value in (self.blocks, self.tokens, self.keep_rate):
            if isinstance(value, tuple):
                return len(value)
        return None

    def _check_counts(self) -> None:
        """Refuse sites and counts that no model could be patched with."""
        if self.keep_rate is not None and self.tokens is not None:
            raise ValueError(
                f"give keep_rate or tokens, not both; got {self.keep_rate} and {self.tokens}"
            )
        if self.tokens is None:
            self._check_keep_rate()
        else:
            self._check_tokens()
        if self.blocks is not None:
            self._check_blocks()
        per_site = (self.keep_rate, self.tokens, self.blocks)
        lengths = {len(value) for value in per_site if isinstance(value, tuple)}
        if len(lengths) > 1:
            raise ValueError(
                f"one value a site: blocks={self.blocks}, keep_rate={self.keep_rate}, "
                f"tokens={self.tokens} differ in length"
            )
        if self.spread_sites and isinstance(self.keep_rate, tuple):
            raise ValueError(
                f"spread_sites takes one keep rate, got {self.keep_rate}; "
                "give one number, or spread_sites=False"
            )

    def _check_keep_rate(self) -> None:
        rates = self.keep_rate if isinstance(self.keep_rate, tuple) else (self.keep_rate,)
        if not rates:
            raise ValueError("keep_rate must name a rate, got (); give one number, or one a site")
        for rate in rates:
            check_interval("keep_rate", rate, "(0, 1]", remedy="1 keeps everything, 0.7 is usual")

    def _check_tokens(self) -> None:
        assert self.tokens is not None
        remedy = "at least one token must go on at every site"
        check_integers("tokens", self.tokens, least=1, remedy=remedy)
        if list(self.tokens) != sorted(self.tokens, reverse=True):
            raise ValueError(f"tokens cannot grow from site to site, got {self.tokens}")

    def _check_blocks(self) -> None:
        assert self.blocks is not None
        check_integers("blocks", self.blocks, least=0, remedy="blocks count from 0")
        if list(self.blocks) != sorted(set(self.blocks)):
            raise ValueError(
                f"blocks must rise and not repeat, got {self.blocks}; sort them and name each once"
            )

    def _check_choices(self) -> None:
        """Refuse values that no plan takes; which plans there are is not known here."""
        check_share_or_count("centres", self.centres, largest_share=1.0)
        check_share_or_count("pairs", self.pairs, largest_share=0.5)
        check_integers("align", (self.align,), least=1, remedy="1 aligns nothing")
        if self.neighbours is not None:
            check_integers("neighbours", (self.neighbours,), least=1, remedy="a high one takes all")
        remedy = "1 counts every patch, size_aware=False none"
        check_interval("size_power", self.size_power, "(0, 2]", remedy=remedy)
        remedy = "0 leaves importance out"
        check_interval("importance_power", self.importance_power, "[0, 2]", remedy=remedy)
        for name in SWITCHES:
            check_switch(name, getattr(self, name))
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        if not isinstance(self.method, str):
            raise TypeError(
                f"method must be the name of a plan, got {self.method!r} "
                f"({type(self.method).__name__})"
            )
