"""Reduced classes that are made from a table are found by their names."""

import pickle
import subprocess
import sys

import pytest
from families import of_transformers
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

import batvit
from batvit.backbones import transformers_blocks
from batvit.backbones.transformers_blocks import family_of, reduced_class, reduced_classes


def clip():
    return of_transformers("CLIPVisionModel", "CLIPVisionConfig", 4)


def test_a_class_is_made_once_and_found_by_its_name():
    made = reduced_class(family_of(CLIPEncoderLayer))
    assert made is transformers_blocks.ReducedCLIPEncoderLayer
    assert made is reduced_class(family_of(made))
    assert made in reduced_classes()
    assert made.own_class() is CLIPEncoderLayer
    assert made.__module__ == transformers_blocks.__name__


def test_a_pickled_model_is_read_by_another_process(tmp_path):
    file = tmp_path / "model.pickle"
    file.write_bytes(pickle.dumps(batvit.patch(clip(), keep_rate=0.5)))
    code = (
        f"import pickle, batvit\nmodel = pickle.load(open({str(file)!r}, 'rb'))\n"
        "print(batvit.config_of(model).keep_rate, type(model.encoder.layers[3]).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0.5", "ReducedCLIPEncoderLayer"]


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="ReducedSwinLayer"):
        _ = transformers_blocks.ReducedSwinLayer


def test_what_is_no_known_layer_has_no_family():
    assert family_of(type(clip())) is None
