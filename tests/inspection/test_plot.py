import matplotlib as mpl
import pytest

from batvit.inspection.plot import plot_diversity
from batvit.storage import figures


class TestPlotDiversity:
    def test_one_line_a_model_over_the_blocks(self):
        curves = {f"model {i}": [i + 3.0, 2.0, 1.0] for i in range(9)}
        figure = plot_diversity(curves)
        (axes,) = figure.axes
        assert axes.get_xlabel() == "block (from 0)"
        assert axes.get_ylabel() == "diversity r(X)"
        assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
        assert list(axes.lines[2].get_xdata()) == [0, 1, 2]
        assert list(axes.lines[2].get_ydata()) == [5, 2, 1]
        assert axes.get_ylim()[0] == 0
        assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 9

    def test_names_are_shown_as_they_are(self):
        names = ["_x", "$a$ $b", "dense"]
        legend = plot_diversity({name: [1.0] for name in names}).axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == names
        assert not any(text.get_parse_math() for text in legend.get_texts())

    def test_no_global_state_is_touched(self, tmp_path):
        before = dict(mpl.rcParams)
        figures.save(plot_diversity({"dense": [1.0]}), tmp_path / "curves.svg")
        assert dict(mpl.rcParams) == before

    @pytest.mark.parametrize(
        ("curves", "message"),
        [
            ({}, "curves is empty"),
            ({"dense": []}, "'dense'"),
            ({"bat": [1.0, float("nan")]}, r"'bat'.*\[1.0, nan\]"),
        ],
    )
    def test_errors(self, curves, message):
        with pytest.raises(ValueError, match=message):
            plot_diversity(curves)
