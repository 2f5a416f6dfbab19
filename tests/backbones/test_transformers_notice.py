"""A saved folder says that it is reduced: when transformers loads it, and in its model card."""

import subprocess
import sys
import warnings

import pytest
import transformers
from families import of_two_towers
from saved_vit import saved_reduced, vit

import batvit
from batvit.testing.run_contract import randomised

SOURCES = {
    "AutoModel": lambda folder: transformers.AutoModel.from_pretrained(folder),
    "its class": lambda folder: transformers.ViTForImageClassification.from_pretrained(folder),
    "with the loading info": lambda folder: transformers.AutoModel.from_pretrained(
        folder, output_loading_info=True
    ),
    "pipeline": lambda folder: transformers.pipeline(
        "image-classification",
        model=str(folder),
        image_processor=transformers.ViTImageProcessor(size={"height": 48, "width": 48}),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_reduced(tmp_path_factory.mktemp("saved") / "reduced")


def warned(load, folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(folder)
    return [str(each.message) for each in caught if "batvit" in str(each.message)]


@pytest.mark.parametrize("source", SOURCES)
def test_one_warning_names_the_call_that_loads_it_reduced(source, folder):
    (message,) = warned(SOURCES[source], folder)
    assert f"batvit.load('{folder}')" in message


def test_what_is_loaded_reduced_or_was_saved_dense_is_not_warned_of(folder, tmp_path):
    assert warned(batvit.load, folder) == []
    vit().save_pretrained(tmp_path)
    assert warned(transformers.AutoModel.from_pretrained, tmp_path) == []
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("order", ["import batvit, transformers", "import transformers, batvit"])
def test_the_order_of_imports_does_not_matter(order, folder):
    code = f"{order}\ntransformers.AutoModel.from_pretrained({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.count("load it with batvit.load(") == 1


def test_two_towers_are_told_of(tmp_path):
    batvit.patch(randomised(of_two_towers("CLIPModel", "CLIP", 4)), keep_rate=0.4).save_pretrained(
        tmp_path
    )
    assert len(warned(transformers.CLIPModel.from_pretrained, tmp_path)) == 1
    assert '"keep_rate": 0.4' in (tmp_path / "README.md").read_text()


# the model card
