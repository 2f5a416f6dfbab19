"""One picture: what is read, and what is refused by name."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batvit.data.pictures import UnreadableError, open_picture


def noise(size=(40, 32), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png_header(width, height):
    """The smallest file that says it is a PNG of that size."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def cut(path):
    """Leave a JPEG its header and half its pixels."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def message(error):
    return str(error.value)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(".jpg", m) for m in ("L", "CMYK")] + [(".png", m) for m in ("L", "1", "RGBA", "P")],
)
def test_every_kind_of_picture_is_given_as_rgb(tmp_path, suffix, mode):
    noise().convert(mode).save(tmp_path / f"x{suffix}")
    found = open_picture(tmp_path / f"x{suffix}")
    assert (found.mode, found.size) == ("RGB", (40, 32))


def test_the_content_decides_and_not_the_suffix(tmp_path):
    noise().save(tmp_path / "png.jpg", "PNG")
    assert np.array_equal(open_picture(tmp_path / "png.jpg"), noise())


def test_a_file_that_runs_a_program_to_be_decoded_is_refused(tmp_path):
    # Pillow hands EPS to Ghostscript
    noise().save(tmp_path / "x.jpg", "EPS")
    with pytest.raises(UnreadableError, match="none of BMP, GIF, JPEG"):
        open_picture(tmp_path / "x.jpg")


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(UnreadableError) as error:
        open_picture(tmp_path / "x.jpg")
    assert message(error).startswith(
        f"{tmp_path / 'x.jpg'}: cannot be read as a picture (it is none of BMP"
    )
    with pytest.raises(
        UnreadableError,
        match=r"nowhere.png: cannot be read as a picture \(No such file or directory\)",
    ):
        open_picture(tmp_path / "nowhere.png")
    with pytest.raises(UnreadableError, match="Is a directory"):
        open_picture(tmp_path)


def test_a_picture_that_is_cut_short_is_named(tmp_path):
    noise((64, 64)).save(tmp_path / "x.jpg")
    with pytest.raises(UnreadableError, match=r"x.jpg: .*truncated"):
        open_picture(cut(tmp_path / "x.jpg"))


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_a_decompression_bomb_is_refused_without_being_decoded(tmp_path, side):
    # Pillow warns of the first and refuses the second
    (tmp_path / "x.png").write_bytes(png_header(side, side))
    with pytest.raises(UnreadableError, match="decompression bomb"):
        open_picture(tmp_path / "x.png")


PICTURES = {kind: io.BytesIO() for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}
for _kind, _file in PICTURES.items():
    noise((16, 16)).save(_file, _kind)


@given(st.sampled_from(sorted(PICTURES)), st.data())
def test_any_damage_gives_a_picture_or_an_error_that_names_the_file(tmp_path_factory, kind, data):
    content = bytearray(PICTURES[kind].getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        mode = open_picture(path).mode
    except UnreadableError as error:
        said = str(error)
    else:
        said = ""
        assert mode == "RGB"
    assert not said or said.startswith(f"{path}: cannot be read as a picture (")


def test_messages_do_not_repeat_the_file(tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(UnreadableError) as error:
        open_picture(tmp_path / "x.jpg")
    assert len(re.findall(r"x\.jpg", message(error))) == 1
