"""What a BATConfig refuses, each with the value, what is allowed, and what to do."""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batvit.config import BATConfig

CHOICES: dict[str, tuple[str, ...]] = {
    "similarity": ("tokens", "keys"),
    "matching": ("bipartite", "greedy"),
    "weight": ("importance", "size", "importance_size"),
}

SWITCHES = ("size_aware", "keep_norm", "gradual", "prefix_only")


def check(config: "BATConfig") -> None:
    """Refuse every value that no model could be patched with."""
    from batvit.plans import PLANS

    if config.keep_rate is not None and config.tokens is not None:
        raise ValueError(f"give keep_rate or tokens, not both; got {config.keep_rate} and {config.tokens}")
    rates = config.keep_rate if isinstance(config.keep_rate, tuple) else (config.keep_rate,)
    if not rates:
        raise ValueError("keep_rate must name a rate, got (); give one number, or one a site")
    for rate in rates if config.tokens is None else ():
        if not _number("keep_rate", rate) or rate is None or not 0 < rate <= 1:
            raise ValueError(f"keep_rate must lie in (0, 1], got {rate}; 1 keeps everything, 0.7 is usual")
    _integers("tokens", config.tokens, least=1, remedy="at least one token must go on at every site")
    _integers("blocks", config.blocks, least=0, remedy="blocks count from 0")
    if config.tokens and any(late > early for early, late in zip(config.tokens, config.tokens[1:], strict=False)):
        raise ValueError(f"tokens cannot grow from site to site, got {config.tokens}")
    if config.blocks and any(late <= early for early, late in zip(config.blocks, config.blocks[1:], strict=False)):
        raise ValueError(f"blocks must rise and not repeat, got {config.blocks}; sort them and name each once")
    lengths = {len(v) for v in (config.keep_rate, config.tokens, config.blocks) if isinstance(v, tuple)}
    if len(lengths) > 1:
        raise ValueError(
            f"one value a site: blocks={config.blocks}, keep_rate={config.keep_rate}, tokens={config.tokens} differ in length"
        )
    _share("centres", config.centres, most=1.0)
    _share("pairs", config.pairs, most=0.5)
    _integers("align", (config.align,), least=1, remedy="1 aligns nothing")
    _integers("neighbours", None if config.neighbours is None else (config.neighbours,), least=1, remedy="a high one takes all")
    if not _number("size_power", config.size_power) or not 0 < config.size_power <= 2:
        raise ValueError(f"size_power must lie in (0, 2], got {config.size_power}; 1 counts every patch, size_aware=False none")
    if not _number("importance_power", config.importance_power) or not 0 <= config.importance_power <= 2:
        raise ValueError(f"importance_power must lie in [0, 2], got {config.importance_power}; 0 leaves importance out")
    for name in SWITCHES:
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"{name} must be True or False, got {getattr(config, name)!r}")
    if config.gradual and isinstance(config.keep_rate, tuple):
        raise ValueError(f"gradual takes one keep rate, got {config.keep_rate}; give one number, or gradual=False")
    for name, allowed in (CHOICES | {"method": tuple(PLANS)}).items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _number(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    # a huge integer has no float
    return isinstance(value, int) or math.isfinite(value)


def _integers(name: str, values: Any, *, least: int, remedy: str) -> None:
    if values is None:
        return
    if not isinstance(values, tuple) or not values:
        raise TypeError(f"{name} must be a tuple of integers, one a site, got {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must hold integers, got {value!r} ({type(value).__name__})")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}; {remedy}")


def _share(name: str, value: Any, *, most: float) -> None:
    if not _number(name, value) or value < 0:
        raise ValueError(f"{name} must be a count from 0 up (int) or a share in 0.0 .. {most} (float), got {value}")
    if isinstance(value, float) and value > most:
        raise ValueError(f"{name} as a share must lie in 0.0 .. {most}, got {value}; a count is an int")
