"""Accuracy over speed: what is in the plot, and that it is the same each time."""

import pytest

from batvit.compare.plot import plot_pareto
from batvit.storage.figures import CURVE_COLOURS, save

DENSE = {
    "plan": "dense",
    "top1": 80.0,
    "agreement": 100.0,
    "step_time": 100.0,
    "latency_ms": 10.0,
    "gmacs": 1.2,
}


def reduced(plan, speedup, difference, at="macs", **fields):
    limits = {"difference_low": difference - 0.5, "difference_high": difference + 1.0}
    kept = {"top1": 80.0 + difference, "agreement": 97.0 + difference}
    costs = {"speedup": speedup, "latency_ms": 8.0, "gmacs": 0.6}
    return {"plan": plan, "at": at, "target": 0.5} | limits | kept | costs | fields


def points_of(figure):
    """Places and lines of what is drawn as a marker, dense aside."""
    (axes,) = figure.axes
    alone = [
        line for line in axes.lines if line.get_linestyle() == "None" and line.get_marker() != "*"
    ]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in alone], alone


def front_of(figure):
    (line,) = [line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-pre"]
    return line.get_xydata().tolist()


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_a_plan_has_a_colour_filled_at_equal_macs_and_hollow_at_equal_time():
    figure = plot_pareto(
        [reduced("tome", 1.5, -3.0), reduced("tome", 1.9, -2.0, "time"), reduced("bat", 1.8, -1.0)],
        DENSE,
    )
    places, lines = points_of(figure)
    assert places == [(1.5, 77.0), (1.9, 78.0), (1.8, 79.0)]
    assert [line.get_color() for line in lines] == [
        CURVE_COLOURS[0],
        CURVE_COLOURS[0],
        CURVE_COLOURS[1],
    ]
    assert [line.get_markerfacecolor() for line in lines] == [
        CURVE_COLOURS[0],
        "white",
        CURVE_COLOURS[1],
    ]
    assert legend_of(figure) == [
        "tome",
        "bat",
        "dense",
        "equal MACs",
        "equal time",
        "nothing is better in both",
    ]
    (axes,) = figure.axes
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[1.0, 80.0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "times as fast as dense, in batches",
        "top-1 (%)",
    )


def test_bat_is_larger_and_above():
    _, (bat, gradual, other) = points_of(
        plot_pareto(
            [
                reduced("bat", 1.8, -1.0),
                reduced("bat_gradual", 1.7, -1.0),
                reduced("batch", 1.5, -3.0),
            ],
            DENSE,
        )
    )
    assert bat.get_markersize() == gradual.get_markersize() > other.get_markersize()
    assert bat.get_zorder() == gradual.get_zorder() > other.get_zorder()


def test_bars_are_the_intervals_of_those_that_have_one():
    rows = [reduced("bat", 1.8, -1.0), reduced("tome", 1.5, -3.0, difference_low=None)]
    (axes,) = plot_pareto(rows, DENSE).axes
    assert [segment.tolist() for bars in axes.collections for segment in bars.get_segments()] == [
        [[1.8, 78.5], [1.8, 80.0]]
    ]


def test_the_front_joins_what_nothing_beats():
    rows = [
        reduced("a", 1.8, -1.0),
        reduced("b", 1.5, -3.0),
        reduced("c", 2.0, -2.0),
        reduced("d", 2.0, -4.0),
    ]
    assert front_of(plot_pareto(rows, DENSE)) == [[1.0, 80.0], [1.8, 79.0], [2.0, 78.0]]
    assert front_of(plot_pareto([reduced("a", 1.8, 0.5), reduced("b", 0.9, 2.0)], DENSE)) == [
        [0.9, 82.0],
        [1.8, 80.5],
    ]


def test_what_lacks_a_value_is_left_out():
    rows = [reduced("a", None, -1.0), reduced("b", 1.5, -3.0, top1=None), reduced("c", 2.0, -2.0)]
    figure = plot_pareto(rows, DENSE)
    assert points_of(figure)[0] == [(2.0, 78.0)]
    assert legend_of(figure)[:2] == ["c", "dense"]
    # where none was measured in turns, the two times say it
    assert points_of(plot_pareto([reduced("a", None, -1.0, step_time=50.0)], DENSE))[0] == [
        (2.0, 79.0)
    ]


def test_the_axis_is_finer_near_the_dense_model_and_says_what_is_lost():
    figure = plot_pareto([reduced("bat", 1.8, -1.0), reduced("random", 1.5, -40.0)], DENSE)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    height = {lost: axes.transData.transform((1, 80.0 - lost))[1] for lost in (0, 1, 20, 21)}
    assert height[0] - height[1] > 5 * (height[20] - height[21]) > 0
    shown = {
        round(label.get_position()[1], 3): label.get_text() for label in axes.get_yticklabels()
    }
    assert (shown[80.0], shown[79.0], shown[60.0]) == ("80.0", "(-1)  79.0", "(-20)  60.0")
    assert max(shown) <= 100


def test_no_two_of_sixteen_plans_are_alike():
    _, lines = points_of(plot_pareto([reduced(str(i), 1 + i / 10, -1.0) for i in range(16)], DENSE))
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 16


@pytest.mark.parametrize("name", ["_hidden", "a $x^ b$", r"$\nonsense{$", "two\nlines"])
def test_a_plan_is_named_as_it_is_the_same_bytes_each_time(tmp_path, name):
    rows = [reduced(name, 1.8, -1.0), reduced("other", 1.5, -3.0)]
    assert legend_of(plot_pareto(rows, DENSE))[:2] == [name, "other"]
    for suffix in (".png", ".svg"):
        paths = [save(plot_pareto(rows, DENSE), tmp_path / f"{i}{suffix}") for i in range(2)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_comparison_without_points_is_refused():
    with pytest.raises(ValueError, match="rows is empty; give what a comparison found"):
        plot_pareto([], DENSE)
