"""One picture: what is read, and what is refused by name."""

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batvit.data.pictures import UnreadableError, open_picture, picture_suffixes


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


# grey with more than 8 bits


RAMP = (0, 1, 128, 129, 300, 32768, 65278, 65407, 65535)
EXPECTED = [0, 0, 0, 1, 1, 128, 254, 255, 255]


def tiff(values, bits, *, white_is_zero=False, kind=1):
    """A row of grey values as TIFF, from the bytes up: Pillow writes fewer kinds than it reads."""
    if bits == 12:
        content = int("".join(f"{value:012b}" for value in values), 2).to_bytes(
            len(values) * 12 // 8, "big"
        )
    else:
        code = {16: "H", 32: "f" if kind == 3 else "i"}[bits]
        content = struct.pack(f"<{len(values)}{code}", *values)
    entries = [
        *((256, len(values)), (257, 1), (258, bits), (259, 1), (262, 0 if white_is_zero else 1)),
        *((273, 8), (277, 1), (278, 1), (279, len(content)), (339, kind)),
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    return head + content + struct.pack("<H", len(entries)) + table + bytes(4)


def written(mode, kind):
    file = io.BytesIO()
    values = np.array([RAMP], dtype=np.uint16)
    image = Image.fromarray(values)
    if mode == "I":
        image = Image.fromarray(values.astype(np.int32))
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [written("I;16", "PNG"), written("I;16", "TIFF"), written("I", "PPM"), tiff(RAMP, 16)],
    ids=["png", "tiff", "ppm", "tiff by hand"],
)
def test_sixteen_bits_are_rescaled_to_eight(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    picture = np.asarray(open_picture(tmp_path / "x.png"))
    assert picture[0, :, 0].tolist() == EXPECTED
    assert (picture == picture[:, :, :1]).all()


def test_twelve_bits_are_rescaled_to_eight(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff((0, 2048, 4095, 16), 12))
    assert np.asarray(open_picture(tmp_path / "x.tif"))[0, :, 0].tolist() == [0, 128, 255, 1]


def test_sixteen_bits_with_white_as_zero_are_no_negative(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(RAMP, 16, white_is_zero=True))
    picture = np.asarray(open_picture(tmp_path / "x.tif"))
    assert picture[0, :, 0].tolist() == [255 - value for value in EXPECTED]


@pytest.mark.parametrize(
    "content",
    [
        tiff((0.0, 0.5, 1.0), 32, kind=3),
        tiff((0, 70_000, -5), 32, kind=2),
        b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0, 1),
    ],
    ids=["float tiff", "32-bit tiff", "pfm"],
)
def test_values_without_a_range_are_refused(tmp_path, content):
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(UnreadableError, match="no defined range; save it with 8 or 16 bits"):
        open_picture(tmp_path / "x.tif")


# as timm and torchvision


def test_the_colours_under_what_is_transparent_are_taken(tmp_path):
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert open_picture(tmp_path / "x.png").getpixel((0, 0)) == (200, 0, 0)


def test_a_palette_with_transparency_is_taken_without_a_word(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "x.png", transparency=bytes([255, 0]))
    assert open_picture(tmp_path / "x.png").getpixel((0, 0)) == (10, 20, 30)


def test_the_orientation_that_a_camera_notes_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise((40, 32)).save(tmp_path / "x.jpg", exif=exif)
    assert open_picture(tmp_path / "x.jpg").size == (40, 32)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tiff"])
def test_of_several_pictures_the_first_is_taken(tmp_path, suffix):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("white", "black"))
    first.save(tmp_path / f"x{suffix}", save_all=True, append_images=[second])
    assert open_picture(tmp_path / f"x{suffix}").getpixel((4, 4)) == (255, 255, 255)


# what would take too much


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (80_000_000, 1), (51, 1)])
def test_a_picture_that_would_be_huge_once_resized_is_refused(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png_header(*size))
    with pytest.raises(
        UnreadableError, match=f"it is {size[0]} x {size[1]} pixels and would be huge once resized"
    ):
        open_picture(tmp_path / "x.png")


def test_a_long_picture_is_read(tmp_path):
    noise((50, 1)).save(tmp_path / "x.png")
    assert open_picture(tmp_path / "x.png").size == (50, 1)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "circle"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        noise().save(path)
        os.truncate(path, 2**33)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    said = {"huge": "is too large, 8,192 MiB", "circle": "Too many levels"}
    with pytest.raises(UnreadableError, match=said.get(kind, "is no regular file")) as error:
        open_picture(path)
    assert message(error).count("x.png") == 1


def test_every_format_has_its_suffixes():
    assert {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".webp"} <= {
        *picture_suffixes()
    }
    assert not {".eps", ".svg", ".heic", ".txt"} & {*picture_suffixes()}
