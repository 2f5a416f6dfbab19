"""Which group each token joins: the integers that every step returns and one function applies."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Assignment:
    """N tokens to M groups, for a batch of B images.

    ``index[b, n]`` is the group of token n of image b, in ``0 .. groups - 1``, or -1 when the token
    is pruned.
    ``groups`` (M) is a Python integer: it comes from the configuration, never from the data, so
    shapes stay fixed.
    ``drops`` says whether there may be pruned tokens. False, where it is known that there are none,
    lets what merges skip the look at every token.

    Invariant of every plan in this library: the map is *onto* (no group is empty). A plan that
    merges is also *total* (no token is lost).

    Examples:
        >>> assignment = batvit.Assignment.from_index(torch.tensor([0, 1, 1, -1]))
        >>> assignment
        Assignment(4 tokens -> 2 groups, batch 1, largest group 2, 1 pruned)
        >>> assignment.sizes.tolist()
        [[1, 2]]
    """

    index: Int64[Tensor, "batch tokens"]
    groups: int
    drops: bool = True

    @classmethod
    def from_index(cls, index: Tensor, groups: int | None = None) -> "Assignment":
        """Check a hand-made index and wrap it.

        Args:
            index: integers (B, N), -1 for pruned; a single image may be given as (N,).
            groups: M; by default the largest group number plus one.

        Raises:
            ValueError: if the index is not integral, has another shape, names a group out of range,
                or leaves a group empty.
        """
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise ValueError(
                f"index must hold integers, got {index.dtype}; convert it with .long()"
            )
        index = index.long()
        if index.dim() == 1:
            index = index.unsqueeze(0)
        if index.dim() != 2 or index.numel() == 0:
            raise ValueError(
                "index must have shape (batch, tokens) with at least one token, "
                f"got {tuple(index.shape)}"
            )
        low = int(index.min())
        high = int(index.max())
        if high < 0:
            raise ValueError("index prunes every token (all are -1); at least one must stay")
        if groups is None:
            groups = high + 1
        if groups < 1 or low < -1 or high >= groups:
            raise ValueError(f"group numbers must lie in -1 .. {groups - 1}, got {low} .. {high}")
        assignment = cls(index, groups, drops=low < 0)
        if not assignment.is_onto:
            raise ValueError(
                f"every one of the {groups} groups needs a token in every image; "
                "at least one is empty"
            )
        return assignment

    @classmethod
    def identity(cls, batch: int, tokens: int, device: torch.device | None = None) -> "Assignment":
        """Return the assignment in which every token is a group of its own."""
        return cls(torch.arange(tokens, device=device).expand(batch, tokens), tokens, drops=False)

    @classmethod
    def join(cls, order: Int64[Tensor, "batch tokens"], *parts: "Assignment") -> "Assignment":
        """Put together the assignments of disjoint subsets that cover all tokens.

        Args:
            order: the positions of the tokens (B, N): those of the first part, then those of the
                second, and so on.
            parts: for each subset the assignment of its tokens (n_i to m_i), N = sum n_i; none of
                them pruned.

        Returns:
            The assignment of all N tokens; groups are numbered one part after the other.
        """
        shifted = []
        groups = 0
        for part in parts:
            shifted.append(part.index + groups if groups else part.index)
            groups += part.groups
        index = order.scatter(1, order, torch.cat(shifted, dim=1))
        return cls(index, groups, drops=False)

    def then(self, later: "Assignment") -> "Assignment":
        """Compose: tokens to groups by ``self``, those groups to fewer groups by ``later``.

        Pruned stays pruned.

        Raises:
            ValueError: if ``later`` does not take the groups that ``self`` gives.
        """
        if (later.batch, later.tokens) != (self.batch, self.groups):
            raise ValueError(
                f"cannot compose: the first gives a batch of {self.batch} "
                f"with {self.groups} groups, the second takes {later.batch} with {later.tokens}"
            )
        if not self.drops:
            return Assignment(later.index.gather(1, self.index), later.groups, later.drops)
        index = later.index.gather(1, self.index.clamp(min=0))
        index = torch.where(self.index < 0, self.index, index)
        return Assignment(index, later.groups, drops=True)

    @property
    def batch(self) -> int:
        """B, the number of images."""
        return self.index.shape[0]

    @property
    def tokens(self) -> int:
        """N, the number of tokens that come in."""
        return self.index.shape[1]

    @property
    def kept(self) -> Bool[Tensor, "batch tokens"]:
        """False where a token is pruned."""
        return self.index >= 0

    @property
    def sizes(self) -> Int64[Tensor, "batch groups"]:
        """Return the number of tokens in each group (B, M)."""
        kept = self.kept.long()
        none = kept.new_zeros(self.batch, self.groups)
        return none.scatter_add(1, self.index.clamp(min=0), kept)

    @property
    def is_total(self) -> bool:
        """Return whether no token is lost. Reads the data, so it waits for the device."""
        return bool(self.kept.all())

    @property
    def is_onto(self) -> bool:
        """Return whether no group is empty. Reads the data, so it waits for the device."""
        return bool((self.sizes > 0).all())

    def __repr__(self) -> str:
        sizes = self.sizes
        pruned = self.batch * self.tokens - int(sizes.sum())
        return (
            f"Assignment({self.tokens} tokens -> {self.groups} groups, batch {self.batch}, "
            f"largest group {int(sizes.max())}, {pruned} pruned)"
        )
