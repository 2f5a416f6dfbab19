"""Pictures in tar shards: to train on in another order each epoch, to count each once."""

import gc
import io
import json
import os
import struct
import tarfile
import warnings
import zlib

import pytest
import torch
from PIL import Image
from timm.models import VisionTransformer
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from batvit.data.pictures import UnreadableError
from batvit.data.sources import find
from batvit.data.tar_shards import Shards
from batvit.training import TrainConfig
from batvit.training.batches import Batching, Part
from batvit.training.inputs import PartOfBatches, prepare

LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def png(label, shade):
    file = io.BytesIO()
    Image.new(
        "RGB", (8, 8), tuple(channel - shade if channel else 0 for channel in COLOURS[label])
    ).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path):
    pytest.importorskip("webdataset", reason="needs webdataset")
    root = tmp_path / "shards"
    root.mkdir()
    info = {"splits": {}}
    for split, number in (("train", 12), ("val", 7)):
        names = [f"{split}-{k}.tar" for k in range(2)]
        for k, name in enumerate(names):
            with tarfile.open(root / name, "w") as tar:
                for i in range(k, number, 2):
                    for suffix, content in (("png", png(i % 3, i)), ("cls", str(i % 3).encode())):
                        entry = tarfile.TarInfo(f"{i:04d}.{suffix}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
        lengths = [len(range(k, number, 2)) for k in range(2)]
        info["splits"][split] = {
            "name": split,
            "num_samples": number,
            "filenames": names,
            "shard_lengths": lengths,
        }
    (root / "_info.json").write_text(json.dumps(info))
    yield root
    # webdataset leaves its files open until they are collected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def shade(picture):
    """Which picture it is."""
    return 250 - int(picture.max())


def with_shades(found):
    found.train.transform = found.val.transform = lambda picture: torch.tensor(
        shade(pil_to_tensor(picture))
    )
    return found


@LEAVES_FILES_OPEN
@pytest.mark.parametrize("workers", [0, 2])
def test_shards_train_on_every_picture_in_another_order_each_epoch(shards, workers):
    found = with_shades(find(f"wds/{shards}"))
    assert found.classes is None
    batching = Batching(found.train.stream(4), TrainConfig(batch_size=4, workers=workers))
    assert batching.updates == 3
    first, again, second = (
        [i for images, _ in batching.epoch(n) for i in images.tolist()] for n in (1, 1, 2)
    )
    assert first == again
    assert first != second
    assert len(first) == len(second) == 12
    assert set(first) <= set(range(12))
    if workers == 0:
        assert sorted(first) == list(range(12))
    # from the second update on
    assert [i for images, _ in batching.epoch(1, done=1) for i in images.tolist()] == first[4:]
    labels = [
        (int(i), int(label))
        for images, labels in batching.epoch(1)
        for i, label in zip(images, labels, strict=True)
    ]
    assert all(label == i % 3 for i, label in labels)


@LEAVES_FILES_OPEN
@pytest.mark.parametrize("workers", [0, 1])
def test_shards_have_the_same_random_views_from_the_middle_of_an_epoch_on(shards, workers):
    found = find(f"wds/{shards}")
    found.train.transform = lambda picture: torch.rand(3)
    batching = Batching(found.train.stream(4), TrainConfig(batch_size=4, workers=workers))
    whole, rest = (
        torch.cat([images for images, _ in batching.epoch(1, done=done)]) for done in (0, 1)
    )
    assert len(whole.unique()) == 36
    assert torch.equal(rest, whole[4:])


@LEAVES_FILES_OPEN
def test_shards_are_counted_once_by_all_processes_together(shards):
    found = with_shades(find(f"wds/{shards}"))
    whole = [i for images, _ in DataLoader(found.val.whole(), 2) for i in images.tolist()]
    assert sorted(whole) == list(range(7))
    parts = [
        [
            i
            for images, _ in PartOfBatches(DataLoader(found.val.whole(), 2), Part(rank, 3))
            for i in images.tolist()
        ]
        for rank in range(3)
    ]
    assert sorted(i for part in parts for i in part) == list(range(7))
    assert all(parts)


@LEAVES_FILES_OPEN
@pytest.mark.parametrize(("processes", "shares"), [(2, [4, 3]), (7, [1] * 7), (8, [7] * 8)])
def test_every_process_counts_something_of_few_shards(shards, processes, shares):
    found = with_shades(find(f"wds/{shards}"))
    config = TrainConfig(batch_size=8 * processes)
    model = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=3
    )
    parts = [prepare(found, model, config, Part(rank, processes))[1] for rank in range(processes)]
    assert [sum(len(labels) for _, labels in part) for part in parts] == shares


def test_shards_that_are_not_there_or_not_counted_are_refused(shards, tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        Shards(tmp_path / "none", "train")
    with pytest.raises(ValueError, match="split 'test' could not be opened"):
        Shards(shards, "test")
    with pytest.raises(
        ValueError,
        match=r"does not say how many pictures it has; write _info.json, or give the number",
    ):
        Shards(shards, "val-{0..1}.tar")
    assert Shards(shards, "val-{0..1}.tar|7").size == 7


@pytest.mark.parametrize(
    "split",
    [
        "train-{0000..99999999}.tar|9",
        "{a..z}{a..z}{a..z}.tar|9",
        "x{" + ",".join(map(str, range(200_000))) + "}.tar",
        "{0..99999999999999999999999999999999}.tar",
        "{" * 20 + "a,b" + "},c" * 19 + "}{0..99999}.tar",
    ],
)
def test_a_pattern_for_too_many_shards_is_refused(shards, split):
    with pytest.raises(ValueError, match="stands for more than 100,000 shards; correct"):
        Shards(shards, split)


def test_a_pattern_with_many_names_is_taken(shards):
    names = ",".join(str(i) for i in range(2))
    assert Shards(shards, f"val-{{{names}}}.tar|7").size == 7


@pytest.mark.parametrize("number", [-5, 2.5, "7"])
def test_a_number_of_pictures_that_is_none_is_refused(shards, number):
    info = json.loads((shards / "_info.json").read_text())
    info["splits"]["val"]["num_samples"] = number
    (shards / "_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=f"split 'val' has {number!r} pictures; correct"):
        Shards(shards, "val")


def test_a_negative_number_after_the_split_is_refused(shards):
    with pytest.raises(ValueError, match="has -5 pictures; correct the number"):
        Shards(shards, "val-{0..1}.tar|-5")


@pytest.mark.parametrize("name", ["_info.json", "val-1.tar"])
def test_a_pipe_among_the_shards_is_refused(shards, name):
    (shards / name).unlink()
    os.mkfifo(shards / name)
    with pytest.raises(OSError, match=f"{name}: is no regular file; name another"):
        Shards(shards, "val" if name != "_info.json" else "val-{0..1}.tar|7")


def write_shard(shards, content):
    with tarfile.open(shards / "one.tar", "w") as tar:
        for name, part in (("a.png", content), ("a.cls", b"1")):
            entry = tarfile.TarInfo(name)
            entry.size = len(part)
            tar.addfile(entry, io.BytesIO(part))


def saved(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def bomb():
    """A PNG whose header says more pixels than it has, and than Pillow only warns of."""
    content = bytearray(saved(Image.new("L", (8, 8)), "PNG"))
    content[16:24] = struct.pack(">II", 10_000, 10_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@LEAVES_FILES_OPEN
def test_grey_pictures_in_shards_are_read_as_those_in_folders(shards):
    write_shard(shards, saved(Image.new("I;16", (8, 8), 32768), "TIFF"))
    ((picture, label),) = Shards(shards, "one.tar|1", transform=pil_to_tensor).whole()
    assert (picture.shape, picture.unique().tolist(), label) == ((3, 8, 8), [128], 1)


@LEAVES_FILES_OPEN
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: saved(Image.new("F", (8, 8)), "TIFF"), "its values, fractions"),
        (lambda: saved(Image.new("L", (51, 1)), "PNG"), "it is 51 x 1 pixels"),
        (lambda: saved(Image.new("RGB", (8, 8)), "EPS"), "it is none of BMP, GIF"),
        (bomb, "exceeds limit"),
        (lambda: b"no picture", "it is none of BMP, GIF"),
    ],
)
def test_a_picture_that_a_folder_refuses_is_refused_in_a_shard(shards, content, why):
    write_shard(shards, content())
    found = Shards(shards, "one.tar|1", transform=pil_to_tensor)
    with pytest.raises(UnreadableError, match=rf"one.tar: a.png: cannot be read .*{why}"):
        list(found.whole())
