"""What nothing else beats: the Pareto front of cost and quality."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def pareto_front(
    items: Iterable[Item], *, cost: Callable[[Item], float], loss: Callable[[Item], float]
) -> list[Item]:
    """Return the items that no other beats in both cost and loss, the cheapest first.

    Of items that are equal in both, the first one counts.

    >>> points = [(1.0, 3.0), (2.0, 4.0), (3.0, 1.0)]
    >>> pareto_front(points, cost=lambda point: point[0], loss=lambda point: point[1])
    [(1.0, 3.0), (3.0, 1.0)]
    """
    front: list[Item] = []
    for item in sorted(items, key=lambda item: (cost(item), loss(item))):
        if not front or loss(item) < loss(front[-1]):
            front.append(item)
    return front
