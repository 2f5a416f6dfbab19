"""Loss and accuracy over the epochs: what is drawn, and that it is the same each time."""

import pytest

from batvit.storage.figures import CURVE_COLOURS, save
from batvit.training.logs import CurvePoint, TrainingCurve
from batvit.training.plot import plot_curves


def curve(name, *values, first=1):
    """From pairs of training loss and top-1."""
    return TrainingCurve(
        name,
        tuple(
            CurvePoint(first + i, loss, None, top1, None, None)
            for i, (loss, top1) in enumerate(values)
        ),
    )


def drawn(axes):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_loss_and_accuracy_are_side_by_side_with_the_best_in_the_legend():
    figure = plot_curves(
        [
            curve("bat-0.6", (3.0, 60.0), (2.0, 71.24), (1.0, 70.0)),
            curve("dense", (2.5, 65.0), first=5),
        ]
    )
    left, right = figure.axes
    assert drawn(left) == [([1, 2, 3], [3.0, 2.0, 1.0]), ([5], [2.5])]
    assert drawn(right) == [([1, 2, 3], [60.0, 71.24, 70.0]), ([5], [65.0])]
    assert (left.get_xlabel(), left.get_ylabel()) == ("epoch", "training loss")
    assert (right.get_xlabel(), right.get_ylabel()) == ("epoch", "top-1 (%)")
    assert legend_of(figure) == ["bat-0.6 (71.2)", "dense (65.0)"]
    assert [[line.get_color() for line in axes.lines] for axes in figure.axes] == [
        list(CURVE_COLOURS[:2])
    ] * 2
    assert [handle.get_color() for handle in figure.legends[0].legend_handles] == list(
        CURVE_COLOURS[:2]
    )
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_what_a_run_has_not_is_left_out():
    figure = plot_curves(
        [curve("none", (3.0, None)), curve("some", (None, 50.0), (2.0, None), (None, 40.0))]
    )
    left, right = figure.axes
    assert drawn(left) == [([1], [3.0]), ([2], [2.0])]
    assert drawn(right) == [([], []), ([1, 3], [50.0, 40.0])]
    assert legend_of(figure) == ["none", "some (50.0)"]


def test_no_two_of_many_runs_are_alike():
    figure = plot_curves([curve(str(i), (1.0, 1.0)) for i in range(56)])
    for axes in figure.axes:
        assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 56
    assert len(legend_of(figure)) == 56


@pytest.mark.parametrize(
    "name", ["_hidden", "a $x^ b$", r"$\nonsense{$", "", "two\nlines", "long" * 40]
)
def test_a_name_is_shown_as_it_is(tmp_path, name):
    figure = plot_curves([curve(name, (1.0, 1.0)), curve("other", (1.0, 1.0))])
    assert legend_of(figure) == [f"{name} (1.0)", "other (1.0)"]
    shown = save(figure, tmp_path / "a.svg").read_text()
    assert "nonsense" not in name or r"<!-- $\nonsense{$ (1.0) -->" in shown


def test_curves_are_the_same_bytes_each_time(tmp_path):
    for suffix in (".png", ".svg", ".pdf"):
        paths = [
            save(plot_curves([curve("a", (2.0, 1.0), (1.0, 3.0))]), tmp_path / f"{i}{suffix}")
            for i in range(2)
        ]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_no_curve_is_refused():
    with pytest.raises(ValueError, match="curves is empty; give what read_curve returns"):
        plot_curves([])
