from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from batvit.storage import figures


def drawn():
    figure = Figure()
    figure.add_subplot().plot([3.0, 2.0], label="dense")
    return figure


class TestSave:
    @pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".jpg", ".jpeg"])
    def test_pictures(self, tmp_path, suffix):
        picture = Image.effect_noise((40, 30), 80).convert("RGB")
        path = figures.save(picture, tmp_path / f"groups{suffix}")
        with Image.open(path) as found:
            assert found.format == figures.PICTURE_FORMATS[suffix.lower()]
            assert found.size == picture.size
            assert suffix.startswith(".j") or found.convert("RGB").tobytes() == picture.tobytes()
        assert list(tmp_path.iterdir()) == [path]

    def test_transparent_pictures_can_be_jpegs(self, tmp_path):
        assert figures.save(Image.new("RGBA", (4, 4)), str(tmp_path / "a.jpg")).is_file()

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

    @pytest.mark.parametrize("name", ["groups.svg", "groups.gif", "groups"])
    def test_unknown_suffixes_of_pictures(self, tmp_path, name):
        with pytest.raises(
            ValueError, match=rf"{name}: pictures are \.png, .*got '{Path(name).suffix}'"
        ):
            figures.save(Image.new("RGB", (4, 4)), tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_unknown_suffix_of_a_figure_is_refused_before_rendering(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Figure, "savefig", lambda *args, **kwargs: pytest.fail("rendered"))
        with pytest.raises(ValueError, match=r"figures are \.png, \.svg, \.pdf, got '\.jpg'"):
            figures.save(Figure(), tmp_path / "curves.jpg")
        with pytest.raises(FileNotFoundError, match="create it first"):
            figures.save(Figure(), tmp_path / "missing" / "curves.png")

    def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(self, tmp_path, monkeypatch):
        path = figures.save(Image.new("RGB", (4, 4)), tmp_path / "a.webp")
        before = path.read_bytes()
        with pytest.raises(Exception, match="16383"):
            figures.save(Image.new("RGB", (20_000, 1)), path)
        monkeypatch.setattr(
            Path, "replace", lambda *args: (_ for _ in ()).throw(OSError("disk full"))
        )
        with pytest.raises(OSError, match="disk full"):
            figures.save(Image.new("RGB", (9, 9)), path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
