"""Folders of pictures: what is read, in which order, with which labels, and what is refused."""

import io
import re
import shutil
import struct
import zlib

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from batvit.data.folder import image_folder, read_class_map, unlabelled
from batvit.data.loading import data_config, loader, placed
from batvit.data.pictures import UnreadableError, open_picture


def noise(size=(40, 32), seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    )


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


def folder(root, files=("a/1.png", "a/2.png", "b/1.jpg")):
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise(seed=i).save(path)
    return root


def cut(path):
    """Leave a JPEG its header and half its pixels."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def tiny(**settings):
    return VisionTransformer(
        **(
            {"img_size": 32, "patch_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 1}
            | settings
        )
    )


def message(error):
    return str(error.value)


# one picture


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
        assert open_picture(path).mode == "RGB"
    except UnreadableError as error:
        assert str(error).startswith(f"{path}: cannot be read as a picture (")


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
    # timm's natural order sees no difference between these, and a set of names has another order in every process
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
        ValueError, match=r"data: has 2 folders, the model has 1000 classes; give --class-map FILE"
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
        match=r"2 of 5 files cannot be read as pictures, the first is .*a/0.jpg; .*--skip-un",
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


def test_what_shows_only_when_decoded_is_named_with_the_remedy(tmp_path):
    root = folder(tmp_path, ("a/1.jpg", "b/1.jpg"))
    cut(root / "b" / "1.jpg")
    found = image_folder(root)
    assert len(found) == 2
    with pytest.raises(
        UnreadableError,
        match=r"b/1.jpg: .*truncated.*; remove it, or skip such files \(--skip-unreadable\)",
    ):
        list(loader(found, tiny(), batch_size=2))


# batches


@pytest.mark.parametrize(
    "name", ["deit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"]
)
def test_transforms_are_those_of_timm_for_the_model(tmp_path, name):
    model = timm.create_model(name, depth=1, embed_dim=12, num_heads=1)
    pictures = image_folder(folder(tmp_path, ("a/1.png", "a/2.png", "b/3.png")))
    batches = list(loader(pictures, model, batch_size=2))
    transform = create_transform(**resolve_data_config({}, model=model))
    expected = torch.stack([transform(open_picture(path)) for path, _ in pictures.samples])
    assert [len(labels) for _, labels in batches] == [2, 1]
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1]


def test_batches_are_the_same_twice_and_with_workers(tmp_path):
    pictures = image_folder(folder(tmp_path))
    runs = [list(loader(pictures, tiny(), batch_size=2, workers=workers)) for workers in (0, 0, 1)]
    for run in runs[1:]:
        for (images, labels), (first_images, first_labels) in zip(run, runs[0], strict=True):
            assert torch.equal(images, first_images)
            assert torch.equal(labels, first_labels)


def test_the_size_is_that_of_the_model_as_it_is(tmp_path):
    model = tiny()
    pictures = image_folder(folder(tmp_path))
    assert next(iter(loader(pictures, model, batch_size=1)))[0].shape == (1, 3, 32, 32)
    model.set_input_size((64, 48))
    assert next(iter(loader(pictures, model, batch_size=2)))[0].shape == (2, 3, 64, 48)
    # a model that says nothing gets what timm takes for ImageNet
    assert data_config(nn.Linear(1, 1))["input_size"] == (3, 224, 224)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_batch_gets_the_type_and_device_of_the_weights(dtype):
    batch = placed(torch.ones(1, 3, 4, 4), nn.Linear(2, 2).to(dtype))
    assert (batch.dtype, batch.device.type) == (dtype, "cpu")
    assert placed(batch, nn.Linear(2, 2, device="meta")).is_meta


def test_a_batch_for_a_model_without_weights_stays_as_it_is():
    batch = torch.ones(1, 3, 4, 4)
    assert placed(batch, nn.Flatten()) is batch


def test_whole_numbers_as_weights_take_float32():
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    assert placed(torch.ones(1, 3, 4, 4, dtype=torch.float64), model).dtype == torch.float32


def test_messages_do_not_repeat_the_file(tmp_path):
    (tmp_path / "x.jpg").write_text("hello")
    with pytest.raises(UnreadableError) as error:
        open_picture(tmp_path / "x.jpg")
    assert len(re.findall(r"x\.jpg", message(error))) == 1
