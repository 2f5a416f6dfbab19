"""The named configurations, and the paper's counts."""

from collections.abc import Sequence
from typing import Any

# image tokens after blocks 4, 7, 10 at 14 x 14 patches. No source gives them: they were fitted to
# the MACs in the authors' training logs, and reproduce each within 0.5 % (docs/algorithm.md).
PAPER_TOKENS: dict[float, tuple[int, ...]] = {
    0.7: (138, 97, 68),
    0.6: (116, 69, 41),
    0.5: (102, 53, 28),
    0.4: (84, 36, 15),
    0.3: (61, 19, 6),
    0.2: (42, 9, 2),
}
PAPER_PATCHES = 196

TRAINING_FREE = {
    "weight": "importance",
    "size_aware": True,
    "keep_norm": True,
    "centres": 0.5,
    "neighbours": 2,
    "align": 16,
}
GRADUAL = TRAINING_FREE | {
    "spread_sites": True,
    "centres": 0.6,
    "importance_power": 0.25,
    "pairs": 0.02,
    "size_power": 0.8,
    "prefix_only": True,
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"weight": "importance", "size_aware": False},
    "training-free": TRAINING_FREE,
    "gradual": GRADUAL,
}
DEFAULT_MODE = "training-free"
DEFAULT_KEEP_RATE = 0.7


def as_in_paper(keep_rate: Any, blocks: Any) -> Any:
    """Return a keep rate of the paper's table as the three rates that give the paper's counts.

    Any other keep rate, and any for another number of sites than three, is returned as it is.
    """
    three_sites = blocks is None or (isinstance(blocks, Sequence) and len(blocks) == 3)
    in_table = isinstance(keep_rate, float) and keep_rate in PAPER_TOKENS
    if not (in_table and three_sites):
        return keep_rate
    rates = []
    before = PAPER_PATCHES
    for after in PAPER_TOKENS[keep_rate]:
        rates.append(after / before)
        before = after
    return tuple(rates)
