"""The Pareto front: against the definition."""

import random

import pytest

from batvit.measure.pareto import pareto_front


def front_of(points):
    return pareto_front(points, cost=lambda point: point[0], loss=lambda point: point[1])


def beats(point, other):
    """As cheap and as good, and better in one of both."""
    return point != other and point[0] <= other[0] and point[1] <= other[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_all_that_nothing_beats_the_cheapest_first(seed):
    draw = random.Random(seed)
    points = [(draw.randrange(8), draw.randrange(8)) for _ in range(20)]
    best = {point for point in points if not any(beats(other, point) for other in points)}
    assert front_of(points) == sorted(best)


def test_of_equal_items_the_first_counts():
    items = [(1, 2, "first"), (1, 2, "second"), (3, 2, "dearer"), (1, 3, "worse")]
    assert front_of(items) == [(1, 2, "first")]


def test_the_front_of_nothing_is_nothing():
    assert front_of([]) == []
