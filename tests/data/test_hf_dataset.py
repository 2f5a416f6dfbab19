"""Pictures of a Hugging Face dataset."""

import io

import pytest
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from batvit.data.hf_dataset import HFDataset
from batvit.data.pictures import UnreadableError
from batvit.data.sources import find

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250))


def png(label, shade):
    file = io.BytesIO()
    Image.new(
        "RGB", (8, 8), tuple(channel - shade if channel else 0 for channel in COLOURS[label])
    ).save(file, "PNG")
    return file.getvalue()


def shade(picture):
    """Which picture it is."""
    return 250 - int(picture.max())


@pytest.fixture
def table(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "green", "blue"])}
    )
    (tmp_path / "table").mkdir()
    for split, number in (("train", 12), ("validation", 6)):
        rows = {
            "image": [{"bytes": png(i % 3, i), "path": None} for i in range(number)],
            "label": [i % 3 for i in range(number)],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(
            tmp_path / "table" / f"{split}.parquet"
        )
    return tmp_path / "table"


def test_a_table_gives_pictures_and_labels(table):
    found = find(f"hfds/{table}")
    assert found.classes == ("red", "green", "blue")
    assert (len(found.train), len(found.val)) == (12, 6)
    found.train.transform = pil_to_tensor
    for i in range(12):
        picture, label = found.train[i]
        assert (label, shade(picture)) == (i % 3, i)
        assert picture.float().mean(dim=(1, 2)).argmax() == label


def test_a_table_that_is_not_there_is_refused(table):
    with pytest.raises(ValueError, match=f"hfds/{table}: split 'test' could not be read"):
        HFDataset(str(table), "test")
    with pytest.raises(ValueError, match=r"are for image folders; leave them out"):
        find(f"hfds/{table}", skip_unreadable=True)


def test_a_corrupt_picture_of_a_table_is_named(table, tmp_path):
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red"])}
    )
    rows = {"image": [{"bytes": png(0, 1)[:40], "path": None}], "label": [0]}
    (tmp_path / "bad").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(
        tmp_path / "bad" / "train.parquet"
    )
    with pytest.raises(
        UnreadableError, match=f"hfds/{tmp_path}/bad, picture 0: cannot be read as a picture"
    ):
        HFDataset(str(tmp_path / "bad"), "train")[0]
