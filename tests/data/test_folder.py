"""Folders of pictures: what is read, in which order, with which labels, and what is refused."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from batvit.data.folder import image_folder, read_class_map, unlabelled
from batvit.data.pictures import UnreadableError


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


def folder(root, files=("a/1.png", "a/2.png", "b/1.jpg")):
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=i).save(path)
    return root


# class maps


def test_a_class_map_is_one_name_a_line(tmp_path):
    path = tmp_path / "map.txt"
    path.write_bytes("\ufeffcat\r\n\r\n dog \r\nzebra".encode())
    assert read_class_map(path) == ("cat", "dog", "zebra")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("map.pkl", b"cat", r"map.pkl: a class map is a .txt file"),
        ("map.csv", b"cat", r"map.csv: a class map is a .txt file"),
        ("map.txt", b"", r"map.txt: is empty; a class map has one folder name a line"),
        ("map.txt", b"\n \n", r"map.txt: is empty"),
        ("map.txt", b"cat\ndog\ncat\n", r"map.txt: names 'cat' twice"),
        ("map.txt", b"\xff\xfe\x00\x80", r"map.txt: not a text file"),
    ],
)
def test_what_is_no_class_map_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_class_map(tmp_path / name)


def test_a_missing_class_map_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"map.txt: no such file"):
        read_class_map(tmp_path / "map.txt")


# folders


def test_labels_are_folders_in_natural_order(tmp_path):
    found = image_folder(
        folder(tmp_path, ("10/x.png", "2/b.png", "2/a10.png", "2/a9.png", "cat/x.jpg"))
    )
    assert found.classes == ("2", "10", "cat")
    assert [(path.relative_to(tmp_path).as_posix(), label) for path, label in found.samples] == [
        ("2/a9.png", 0),
        ("2/a10.png", 0),
        ("2/b.png", 0),
        ("10/x.png", 1),
        ("cat/x.jpg", 2),
    ]
    assert (len(found), found.skipped) == (5, ())
    image, label = found[3]
    assert (image.mode, label) == ("RGB", 1)


def test_labels_are_those_of_the_class_map(tmp_path):
    (tmp_path / "map.txt").write_text("zebra\nb\nc\na\n")
    found = image_folder(folder(tmp_path / "data"), class_map=tmp_path / "map.txt", num_classes=4)
    assert [label for _, label in found.samples] == [3, 3, 1]
    assert found.classes == ("zebra", "b", "c", "a")


def test_names_that_sort_alike_have_one_order(tmp_path):
    # timm's natural order sees no difference between these, and a set of names has another order in
    # every process
    names = ("CAT", "CAt", "CaT", "Cat", "cAT", "cAt", "caT", "cat")
    found = image_folder(
        folder(tmp_path, [f"{name}/{number}.png" for name in names for number in ("1", "01")])
    )
    assert found.classes == names
    assert [path.name for path, _ in found.samples] == ["01.png", "1.png"] * 8


def test_a_relative_root_and_other_files_do_not_matter(tmp_path, monkeypatch):
    folder(tmp_path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "a" / "notes.txt").write_text("about")
    monkeypatch.chdir(tmp_path)
    assert len(image_folder(".")) == 3
    assert len(image_folder(f"{tmp_path}/")) == 3


def test_what_other_programs_hide_there_is_no_class(tmp_path):
    root = folder(
        tmp_path / ".data", ("cat/a.png", "cat/._a.png", "dog/a.png", ".ipynb_checkpoints/a.png")
    )
    pictures = image_folder(root)
    assert pictures.classes == ("cat", "dog")
    assert [label for _, label in pictures.samples] == [0, 1]
    assert len(unlabelled(root)) == 2


def test_a_folder_that_does_not_fit_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        image_folder(tmp_path / "nowhere")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="empty: holds no pictures; expected one folder a class"):
        image_folder(tmp_path / "empty")
    with pytest.raises(
        ValueError,
        match=r"beside: 1.png lies beside the class folders; put each picture into the folder",
    ):
        image_folder(folder(tmp_path / "beside", ("a/1.png", "1.png")))
    # timm would call every picture of Tiny-ImageNet's own layout an "images"
    root = folder(tmp_path / "deep", ("train/n01/1.png", "train/n02/1.png"))
    with pytest.raises(
        ValueError, match=f"lies deeper than one folder a class; .*such as {root / 'train'}"
    ):
        image_folder(root)
    assert image_folder(root / "train").classes == ("n01", "n02")


def test_classes_that_do_not_fit_are_refused_with_a_remedy(tmp_path):
    root, names = folder(tmp_path / "data"), tmp_path / "map.txt"
    with pytest.raises(
        ValueError, match=r"data: has 2 folders, the model has 1000 classes; give class_map=FILE"
    ):
        image_folder(root, num_classes=1000)
    names.write_text("a\nc\n")
    with pytest.raises(
        ValueError, match=r"1 of its 2 folders are not named in the class map, the first is 'b'"
    ) as error:
        image_folder(root, class_map=names)
    assert message(error).startswith(f"{names}: does not fit {root}: ")
    names.write_text("a\nb\nc\n")
    with pytest.raises(
        ValueError,
        match=r"map.txt: names 3 classes, the model has 1000 classes; give the class map of this",
    ):
        image_folder(root, class_map=names, num_classes=1000)


def test_files_that_are_no_pictures_are_counted_and_named(tmp_path):
    root = folder(tmp_path)
    (root / "a" / "0.jpg").write_text("hello")
    (root / "b" / "bomb.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(
        UnreadableError,
        match=r"2 of 5 files cannot be read .*, the first is .*a/0.jpg; .*skip_unreadable=True",
    ):
        image_folder(root)


def test_files_that_are_no_pictures_or_cut_short_are_skipped_on_request(tmp_path):
    root = folder(tmp_path, ("a/1.jpg", "a/2.jpg", "b/1.jpg"))
    (root / "a" / "0.jpg").write_text("hello")
    cut(root / "b" / "1.jpg")
    found = image_folder(root, skip_unreadable=True)
    assert found.skipped == (root / "a" / "0.jpg", root / "b" / "1.jpg")
    assert [path.name for path, _ in found.samples] == ["1.jpg", "2.jpg"]
    # a class that lost all its pictures keeps its label
    assert found.classes == ("a", "b")


def test_without_labels_pictures_may_lie_anywhere(tmp_path):
    root = folder(tmp_path, ("a/1.jpg", "a/2.jpg", "b/1.jpg"))
    shutil.copy(root / "a" / "1.jpg", root / "0.jpg")
    (root / "b" / "deep").mkdir()
    shutil.copy(root / "a" / "1.jpg", root / "b" / "deep" / "1.jpg")
    (root / "b" / "2.jpg").write_text("hello")
    with pytest.raises(UnreadableError, match=r"1 of 6 files cannot be read as pictures"):
        unlabelled(root)
    found = unlabelled(root, skip_unreadable=True)
    assert [str(path.relative_to(root)) for path, _ in found.samples] == [
        "0.jpg",
        "a/1.jpg",
        "a/2.jpg",
        "b/1.jpg",
        "b/deep/1.jpg",
    ]
    assert {label for _, label in found.samples} == {0}
    assert found.skipped == (root / "b" / "2.jpg",)
    (root / "none").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        unlabelled(root / "none")


def test_a_folder_without_any_readable_picture_is_refused(tmp_path):
    root = folder(tmp_path, ("a/1.jpg",))
    cut(root / "a" / "1.jpg")
    with pytest.raises(
        ValueError, match=r"none of the 1 files can be read as a picture, the first is .*1.jpg"
    ):
        image_folder(root, skip_unreadable=True)


# nothing is left out in silence


@pytest.mark.parametrize("suffix", ["webp", "GIF", "tiff", "bmp", "ppm", "jfif"])
def test_every_format_that_is_decoded_is_found(tmp_path, suffix):
    kind = {"jfif": "JPEG", "GIF": "GIF"}.get(suffix)
    for name in ("ant/1.png", f"bee/1.{suffix}", "cat/1.png"):
        (tmp_path / name).parent.mkdir()
        noise().save(tmp_path / name, kind if name.startswith("bee") else None)
    found = image_folder(tmp_path)
    assert found.classes == ("ant", "bee", "cat")
    assert [label for _, label in found.samples] == [0, 1, 2]
    assert len(unlabelled(tmp_path)) == 3
    assert found.others == ()


def test_a_class_without_pictures_keeps_its_label_and_is_counted(tmp_path):
    root = folder(tmp_path, ("ant/1.png", "cat/1.png"))
    (root / "bee").mkdir()
    (root / "bee" / "1.heic").write_text("x")
    found = image_folder(root, num_classes=3)
    assert [label for _, label in found.samples] == [0, 2]
    assert found.others == (root / "bee" / "1.heic",)
    with pytest.raises(ValueError, match="has 3 folders, the model has 2 classes"):
        image_folder(root, num_classes=2)
    (tmp_path / "map.txt").write_text("ant\ncat\n")
    with pytest.raises(ValueError, match=r"1 of its 3 folders are not named .* is 'bee'"):
        image_folder(root, class_map=tmp_path / "map.txt")


def test_other_files_are_told(tmp_path):
    root = folder(tmp_path)
    (root / "b" / "notes.txt").write_text("about")
    (root / "a" / ".hidden").write_text("x")
    (root / "README").write_text("about")
    expected = (root / "README", root / "b" / "notes.txt")
    assert image_folder(root).others == expected
    assert unlabelled(root).others == expected
    for picture in root.rglob("*.[pj]*g"):
        picture.unlink()
    with pytest.raises(ValueError, match=r"no pictures, the first of its 2 files is .*README; exp"):
        image_folder(root)


@pytest.mark.parametrize("where", ["a/again", "again", "a/deeper/again"])
def test_a_link_that_leads_back_is_refused(tmp_path, where):
    root = folder(tmp_path / "data")
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(root)
    for read in (image_folder, unlabelled):
        with pytest.raises(ValueError, match=r"again: leads to the same folder as .*data; remove"):
            read(root)


def test_folders_that_link_to_one_another_are_refused_at_once(tmp_path):
    # the ways through twenty such folders are a million
    root = folder(tmp_path / "data", ("a/1.png",))
    for i in range(20):
        (tmp_path / str(i)).mkdir()
    for i in range(19):
        for name in ("x", "y"):
            (tmp_path / str(i) / name).symlink_to(tmp_path / str(i + 1))
    (root / "b").symlink_to(tmp_path / "0")
    with pytest.raises(ValueError, match="leads to the same folder as"):
        unlabelled(root)


def test_a_class_may_be_a_link_and_must_lead_somewhere(tmp_path):
    root = folder(tmp_path / "data", ("a/1.png",))
    folder(tmp_path / "elsewhere", ("1.png",))
    (root / "b").symlink_to(tmp_path / "elsewhere")
    assert image_folder(root).classes == ("a", "b")
    for target in ("c", "gone"):
        (root / "c").symlink_to(target)
        with pytest.raises(ValueError, match="c: is a link that leads nowhere; remove it"):
            image_folder(root)
        (root / "c").unlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "circle", "ratio", "float"])
def test_what_cannot_be_read_is_skipped_on_request(tmp_path, kind):
    root = folder(tmp_path)
    path = root / "a" / "0.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "ratio":
        path.write_bytes(png_header(60_000, 1))
    elif kind == "float":
        Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(path, "TIFF")
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(UnreadableError, match=r"1 of 4 files cannot be read .* is .*a/0.png"):
        image_folder(root)
    assert image_folder(root, skip_unreadable=True).skipped == (path,)


def test_a_class_map_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "map.txt")
    with pytest.raises(OSError, match=r"map.txt: is no regular file; name another"):
        read_class_map(tmp_path / "map.txt")


@pytest.mark.parametrize(
    ("number", "chosen"), [(None, "012345"), (3, "024"), (4, "0134"), (6, "012345"), (9, "012345")]
)
def test_pictures_are_taken_evenly(tmp_path, number, chosen):
    pictures = image_folder(folder(tmp_path, [f"a/{i}.png" for i in range(6)]))
    found = pictures.evenly(number)
    assert "".join(path.stem for path, _ in found.samples) == chosen
    assert len(pictures) == 6
