"""Which adapter knows a model, and what is refused when none does."""

import subprocess
import sys

import pytest
import timm
import torch
from families import family
from torch import nn

import batvit
from batvit.backbones import registry


def small(name, **settings):
    return timm.create_model(name, depth=4, embed_dim=48, num_heads=3, **settings).eval()


def test_supported_names_models_that_can_be_patched():
    found = batvit.supported()["timm"]
    assert set(found) >= {
        "DeiT",
        "DINOv2",
        "SigLIP image tower",
        "CLIP image tower",
        "MAE",
        "EVA, EVA-02",
        "DINOv3",
        "LV-ViT",
    }
    for example in found.values():
        batvit.patch(small(example))


def test_a_library_of_an_unknown_version_is_named(monkeypatch):
    monkeypatch.setattr(registry, "LIBRARIES", {"timm": ("timm_vit", "timm_of_tomorrow")})
    assert batvit.config_of(batvit.patch(small("deit_tiny_patch16_224"))) is not None
    with pytest.raises(
        TypeError, match=r"timm 1\..* is of a version that batvit does not know: .*timm_of_tomorrow"
    ):
        batvit.patch(timm.create_model("resnet10t"))


def test_adapters_are_imported_only_when_their_library_is():
    code = (
        "import sys, timm, batvit\n"
        "batvit.patch(timm.create_model('test_vit'))\n"
        "names = ('transformers', 'open_clip', 'batvit.backbones.timm_vit')\n"
        "print(*(name in sys.modules for name in names))"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == ["False", "False", "True"]


@pytest.mark.unchecked
@pytest.mark.parametrize("thing", [None, "deit", lambda x: x])
def test_what_is_no_module_is_refused(thing):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        batvit.patch(thing)


def test_a_compiled_model_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"then torch\.compile"):
        batvit.patch(torch.compile(small("deit_tiny_patch16_224")))


def test_a_wrapped_model_is_named():
    with pytest.raises(
        TypeError, match="DataParallel holds a model that can be reduced: patch its module instead"
    ):
        batvit.patch(nn.DataParallel(family("vit")))
    with pytest.raises(TypeError, match=r"patch its 0\.inner instead"):
        batvit.patch(nn.Sequential(nn.ModuleDict({"inner": family("vit")})))


def test_both_libraries_are_among_the_supported():
    found = batvit.supported()
    assert found["torchvision"] == {"ViT": "vit_b_16"}
    assert "CLIP" in found["open_clip"]
