"""The plot of a benchmark: what is in it, and that it is the same each time."""

import pytest

from batvit.measure.clock import Quartiles
from batvit.measure.plot import plot_speedup
from batvit.measure.speed import SpeedComparison, Timing
from batvit.storage.figures import save


def comparison(batch, speedup, compiled=None):
    other = None if compiled is None else one_mode(batch, compiled, compile_mode="default")
    return one_mode(batch, speedup, when_compiled=other)


def one_mode(batch, speedup, **settings):
    timings = Timing(batch, 10 * speedup, 0.1, 1.0, 1.0), Timing(batch, 10.0, 0.1, 1.0, 1.0)
    speedups = Quartiles(speedup - 0.1, speedup, speedup + 0.2)
    return SpeedComparison(
        *timings,
        3000,
        2000,
        10,
        rounds=3,
        speedups=speedups,
        reduction_share=0.1,
        **settings,
    )


def test_a_line_a_mode_with_its_spread_between_two_dashed_lines():
    figure = plot_speedup([comparison(16, 1.4, 1.3), comparison(1, 1.1, 0.9)])
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["eager", "compiled", "MACs", "dense"]
    assert list(lines["eager"].get_xdata()) == [1, 16]
    assert list(lines["eager"].get_ydata()) == pytest.approx([1.1, 1.4])
    assert list(lines["compiled"].get_ydata()) == pytest.approx([0.9, 1.3])
    assert [set(lines[name].get_ydata()) for name in ("MACs", "dense")] == [{1.5}, {1}]
    assert {lines[name].get_linestyle() for name in ("MACs", "dense")} == {"--"}
    ends = [
        end for bars in axes.collections for segment in bars.get_segments() for end in segment[:, 1]
    ]
    assert ends == pytest.approx([1.0, 1.3, 1.3, 1.6, 0.8, 1.1, 1.2, 1.5])
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_transform().base == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "16"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(lines)


def test_one_batch_size_without_compiling_is_drawn_too():
    (axes,) = plot_speedup([comparison(8, 1.2)]).axes
    assert [line.get_label() for line in axes.lines] == ["eager", "MACs", "dense"]


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_it_is_the_same_bytes_each_time(tmp_path, suffix, start):
    contents = set()
    for i in range(2):
        path = save(
            plot_speedup([comparison(1, 1.1, 0.9), comparison(2, 1.4, 1.3)]),
            tmp_path / f"{i}{suffix}",
        )
        contents.add(path.read_bytes())
    assert len(contents) == 1
    assert contents.pop().startswith(start)


def test_nothing_found_is_refused():
    with pytest.raises(ValueError, match="comparisons is empty"):
        plot_speedup([])
