"""Models of transformers that cannot be reduced say why, in one line."""

import pytest
import torch
import transformers
from families import SMALL
from transformers_models import BIAS, REFUSED, is_there, named

import batvit
from batvit.backbones.transformers_refusals import BY_FOLDER

BIAS_FIELDS = ("use_relative_position_bias", "use_shared_relative_position_bias")


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_is_said(name):
    if not is_there(name):
        pytest.skip(f"this version of transformers has no {name}")
    kind = named(name)
    with torch.device("meta"):
        model = kind(kind.config_class())
    with pytest.raises(TypeError, match=REFUSED[name]) as error:
        batvit.patch(model)
    message = str(error.value)
    assert message.startswith(f"cannot reduce the tokens of {kind.__module__}.{kind.__name__}: ")
    assert "\n" not in message
    assert len(message) < 320
    # the families are listed on request alone
    assert "DINOv2" not in message


@pytest.mark.parametrize("field", BIAS_FIELDS)
@pytest.mark.parametrize("family", ["Beit", "Data2VecVision"])
def test_a_position_bias_is_refused_only_if_there_is_one(family, field):
    config = getattr(transformers, f"{family}Config")
    model = getattr(transformers, f"{family}Model")
    settings = SMALL | {"num_hidden_layers": 4}
    with pytest.raises(TypeError, match=f"{family}Model: its {BIAS}.*without one can be reduced"):
        batvit.patch(model(config(**settings, **{field: True})))
    dense = model(config(**settings, **{field: False}))
    assert batvit.config_of(batvit.patch(dense, keep_rate=0.5)) is not None


def test_experts_are_refused():
    config = transformers.VitPoseBackboneConfig(
        **SMALL, num_hidden_layers=2, num_experts=2, part_features=8
    )
    with pytest.raises(TypeError, match="choose an expert by the data set"):
        batvit.patch(transformers.VitPoseBackbone(config))


def test_a_refused_tower_inside_is_named_by_its_reason():
    images = transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1], num_heads=[2])
    texts = transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(images, texts)
    with pytest.raises(TypeError, match="VisionEncoderDecoderModel: its attention stays within"):
        batvit.patch(transformers.VisionEncoderDecoderModel(config))


def test_what_is_no_vision_transformer_is_not_known():
    config = transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    with pytest.raises(TypeError, match="BertModel: no adapter knows this class"):
        batvit.patch(transformers.BertModel(config))


def test_no_folder_has_two_reasons():
    folders = " ".join(BY_FOLDER.values()).split()
    assert len(folders) == len(set(folders))
