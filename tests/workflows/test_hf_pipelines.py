"""transformers' own pipelines, generate, and save_pretrained, on reduced models."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import batvit
from batvit.testing.run_contract import randomised

sys.path.append(str(Path(__file__).parents[1] / "backbones"))
from transformers_models import REDUCED

FIELDS = {"keep_rate": 0.5, "blocks": (1, 2)}
SIDES = {"height": 96, "width": 96}


def model_of(name):
    torch.manual_seed(0)
    return randomised(REDUCED[name]())


def noise():
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tokenizer():
    """A tokenizer of few words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = {word: i for i, word in enumerate(["<pad>", "<unk>", "a", "cat", "dog", "photo"])}
    own = Tokenizer(WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="<pad>", unk_token="<unk>", model_max_length=16
    )


def shape_of(output):
    """The output with every number left out but those that are shapes."""
    if isinstance(output, dict):
        return {key: shape_of(value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return [shape_of(value) for value in output]
    if isinstance(output, torch.Tensor | np.ndarray):
        return tuple(output.shape)
    return output.size if isinstance(output, Image.Image) else type(output)


def processor(kind=transformers.ViTImageProcessor):
    return kind(size=SIDES)


PIPELINES = {
    "image-classification": ("ViTForImageClassification", {}),
    "image-feature-extraction": ("Dinov2Model", {}),
    "depth-estimation": ("DPTForDepthEstimation", {}),
}


@pytest.mark.parametrize("task", PIPELINES)
def test_pipelines_give_the_shapes_of_the_dense_model(task):
    name, settings = PIPELINES[task]
    model = model_of(name)
    kind = transformers.DPTImageProcessor if "DPT" in name else transformers.ViTImageProcessor
    run = transformers.pipeline(task, model=model, image_processor=processor(kind), device="cpu")
    dense = run(noise(), **settings)
    batvit.patch(model, **FIELDS)
    with batvit.trace(model) as trace:
        reduced = run(noise(), **settings)
    assert len(trace.sites) == 2
    assert shape_of(reduced) == shape_of(dense)


def test_zero_shot_classification():
    model = model_of("CLIPModel")
    run = transformers.pipeline(
        "zero-shot-image-classification",
        model=model,
        image_processor=transformers.CLIPImageProcessor(size=SIDES, crop_size=SIDES),
        tokenizer=tokenizer(),
        device="cpu",
    )
    dense = run(noise(), candidate_labels=["cat", "dog"])
    batvit.patch(model, **FIELDS)
    with batvit.trace(model) as trace:
        reduced = run(noise(), candidate_labels=["cat", "dog"])
    assert len(trace.sites) == 2
    assert {row["label"] for row in reduced} == {row["label"] for row in dense} == {"cat", "dog"}


def test_zero_shot_detection():
    model = model_of("OwlViTForObjectDetection")
    run = transformers.pipeline(
        "zero-shot-object-detection",
        model=model,
        image_processor=processor(transformers.OwlViTImageProcessor),
        tokenizer=tokenizer(),
        device="cpu",
    )
    dense = run(noise(), candidate_labels=["cat", "dog"], threshold=0.0)
    batvit.patch(model, **FIELDS)
    reduced = run(noise(), candidate_labels=["cat", "dog"], threshold=0.0)
    # every patch is a box, for each label
    assert len(reduced) == len(dense) == 2 * 36
    assert reduced[0].keys() == dense[0].keys()
    assert {row["label"] for row in reduced} <= {"cat", "dog"}


# language models


def asked(model, images, tokens):
    """What a language model is asked: placeholders of an image, and words."""
    config = model.config
    place = getattr(config, "image_token_index", None) or config.image_token_id
    words = torch.tensor([[1, *[place] * tokens, 3, 4]])
    return {
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
        "pixel_values": images,
        "max_new_tokens": 3,
        "min_new_tokens": 3,
        "do_sample": False,
    }


LANGUAGE = {
    "LlavaForConditionalGeneration": (36, {"image_token_id": 98}),
    "PaliGemmaForConditionalGeneration": (36, {"image_token_id": 98}),
    "Idefics3ForConditionalGeneration": (9, {"image_token_id": 98}),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_take_as_many_placeholders_as_before(name):
    tokens, settings = LANGUAGE[name]
    model = model_of(name)
    for key, value in settings.items():
        setattr(model.config, key, value)
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    if "Idefics" in name:
        images = images[:, None]
    inputs = asked(model, images, tokens)
    dense = model.generate(**inputs)
    batvit.patch(model, **FIELDS)
    with batvit.trace(model) as trace:
        reduced = model.generate(**inputs)
    assert reduced.shape == dense.shape
    assert len(trace.sites) == 2
    with torch.no_grad():
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask", "pixel_values")}
        logits = model(**inputs).logits
        batvit.unpatch(model)
        assert (model(**inputs).logits - logits).abs().max() > 0


# saved and loaded

KINDS = (
    *("Pixio", "InternVLVision", "MLCDVision", "BlipVision", "Blip2Vision", "FlavaImage"),
    *("Data2VecVision", "Beit", "Yolos", "Mgpstr", "Dinov2"),
)


@pytest.mark.parametrize("name", [*(f"{kind}Model" for kind in KINDS), "VitPoseBackbone"])
def test_each_kind_is_saved_and_loaded(name, tmp_path):
    model = batvit.patch(model_of(name), **FIELDS)
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    loaded = batvit.load(tmp_path)
    assert batvit.config_of(loaded) == batvit.config_of(model)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0][0], model(x)[0][0])


@pytest.mark.parametrize("name", ["LlavaForConditionalGeneration", "CLIPSegModel"])
def test_a_tower_inside_is_saved_and_loaded(name, tmp_path):
    model = batvit.patch(model_of(name), **FIELDS)
    model.save_pretrained(tmp_path)
    assert batvit.config_of(batvit.load(tmp_path)) == batvit.config_of(model)
