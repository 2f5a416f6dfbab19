from pathlib import Path

import pytest
from PIL import Image

from batvit.storage.formats import PICTURE_FORMATS
from batvit.storage.pictures import save_picture


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".jpg", ".jpeg"])
def test_pictures(tmp_path, suffix):
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    path = save_picture(picture, tmp_path / f"groups{suffix}")
    with Image.open(path) as found:
        assert found.format == PICTURE_FORMATS[suffix.lower()]
        assert found.size == picture.size
        assert suffix.startswith(".j") or found.convert("RGB").tobytes() == picture.tobytes()
    assert list(tmp_path.iterdir()) == [path]


def test_transparent_pictures_can_be_jpegs(tmp_path):
    assert save_picture(Image.new("RGBA", (4, 4)), str(tmp_path / "a.jpg")).is_file()


@pytest.mark.parametrize("name", ["groups.svg", "groups.gif", "groups"])
def test_unknown_suffixes_of_pictures(tmp_path, name):
    with pytest.raises(
        ValueError, match=rf"{name}: pictures are \.png, .*got '{Path(name).suffix}'"
    ):
        save_picture(Image.new("RGB", (4, 4)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = save_picture(Image.new("RGB", (4, 4)), tmp_path / "a.webp")
    before = path.read_bytes()
    with pytest.raises(Exception, match="16383"):
        save_picture(Image.new("RGB", (20_000, 1)), path)
    monkeypatch.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_picture(Image.new("RGB", (9, 9)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
