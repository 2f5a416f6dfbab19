import pytest
from matplotlib.figure import Figure

from batvit.storage import figures


def drawn():
    figure = Figure()
    figure.add_subplot().plot([3.0, 2.0], label="dense")
    return figure


class TestSave:
    @pytest.mark.parametrize(
        ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
    )
    def test_figures_are_the_same_bytes_each_time(self, tmp_path, suffix, start):
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            assert figures.save(drawn(), path) == path
        first, second = (path.read_bytes() for path in paths)
        assert first.startswith(start)
        assert first == second

    def test_unknown_suffix_of_a_figure_is_refused_before_rendering(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: pytest.fail("rendered"))
        with pytest.raises(ValueError, match=r"figures are \.png, \.svg, \.pdf, got '\.jpg'"):
            figures.save(Figure(), tmp_path / "curves.jpg")
        with pytest.raises(FileNotFoundError, match="create it first"):
            figures.save(Figure(), tmp_path / "missing" / "curves.png")
