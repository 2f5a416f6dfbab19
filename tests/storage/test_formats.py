import pytest

from batvit.storage.formats import FIGURE_FORMATS, PICTURE_FORMATS, check_format


@pytest.mark.parametrize(
    ("name", "formats", "found"),
    [
        ("a.PNG", PICTURE_FORMATS, "PNG"),
        ("a.jpeg", PICTURE_FORMATS, "JPEG"),
        ("a.svg", FIGURE_FORMATS, "svg"),
    ],
)
def test_a_suffix_says_the_format(tmp_path, name, formats, found):
    assert check_format(tmp_path / name, formats, kind="pictures") == found


@pytest.mark.parametrize("name", ["a.bmp", "a", ".png"])
def test_another_suffix_is_refused(tmp_path, name):
    said = r"figures are \.png, \.svg, \.pdf, got .*change the suffix"
    with pytest.raises(ValueError, match=said):
        check_format(tmp_path / name, FIGURE_FORMATS, kind="figures")
