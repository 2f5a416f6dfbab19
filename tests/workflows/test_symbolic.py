"""``torch.jit.script`` and ``torch.fx``, which read a model's code: refused in one clear line."""

import pytest
import torch
import transformers
from small_models import LAYERS, MODELS, SIZE
from timm.models import create_feature_extractor as timm_feature_extractor
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import batvit

pytestmark = [
    # symbols are given where tensors are expected
    pytest.mark.unchecked,
    # torch's own: scripting is old, and it says what of the dense model it does not read
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SCRIPTED = MODELS | {
    "transformers": lambda: transformers.ViTModel(transformers.ViTConfig(**SIZE, **LAYERS)),
}


def inside(model):
    return nn.Sequential(nn.Identity(), model)


READERS = {
    "symbolic_trace": fx.symbolic_trace,
    "inside a larger model": lambda model: fx.symbolic_trace(inside(model)),
    "torchvision's features": lambda model: create_feature_extractor(model, ["conv_proj"]),
    "torchvision's names": get_graph_node_names,
    "timm's features": lambda model: timm_feature_extractor(model, ["conv_proj"]),
}


def reduced(make):
    return batvit.patch(make().eval(), keep_rate=0.5, blocks=(1,))


@pytest.mark.parametrize("around", [lambda model: model, inside], ids=["alone", "inside"])
@pytest.mark.parametrize("name", SCRIPTED)
def test_script_names_what_to_do_instead(name, around):
    model = reduced(SCRIPTED[name])
    with pytest.raises(TypeError, match=r"^torch.jit.script cannot .* batvit.unpatch the model$"):
        torch.jit.script(around(model))


@pytest.mark.parametrize("name", ["timm", "torchvision", "open_clip"])
def test_after_unpatch_a_model_is_scripted(name):
    model = MODELS[name]().eval()
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = model(images)
        scripted = torch.jit.script(batvit.unpatch(batvit.patch(model, keep_rate=0.5, blocks=(1,))))
        assert torch.equal(scripted(images), expected)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", MODELS)
def test_fx_names_what_to_do_instead(name, reader):
    model = reduced(MODELS[name])
    with pytest.raises(TypeError, match=r"^torch.fx cannot trace .* batvit.unpatch the model$"):
        READERS[reader](model)


@torch.no_grad()
def test_after_unpatch_features_are_extracted():
    model = MODELS["torchvision"]().eval()
    images = torch.randn(2, 3, 48, 48)
    batvit.unpatch(batvit.patch(model, keep_rate=0.5, blocks=(1,)))
    features = create_feature_extractor(model, ["heads"])(images)
    assert torch.equal(features["heads"], model(images))


@torch.no_grad()
def test_masks_are_still_refused_as_masks():
    model = reduced(MODELS["timm"])
    with pytest.raises(ValueError, match="takes no attn_mask"):
        model(torch.randn(1, 3, 48, 48), attn_mask=torch.zeros(37, 37))
