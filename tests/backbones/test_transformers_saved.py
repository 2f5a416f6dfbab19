"""Models of transformers that were saved while they were patched."""

import json

import pytest
import torch
import transformers
from families import of_two_towers, pictures
from saved_vit import vit

import batvit
from batvit.testing.run_contract import randomised


def run(model, x, **arguments):
    with torch.no_grad():
        return model(pixel_values=x, **arguments)


def test_a_saved_model_is_found_again(tmp_path):
    model = batvit.patch(vit(), keep_rate=0.5, blocks=(1, 3), weight="size")
    x = pictures(model)
    expected = run(model, x).logits
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"batvit\.load"):
        dense = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert batvit.config_of(dense) is None
    torch.testing.assert_close(
        run(dense, x).logits, run(batvit.unpatch(model), x).logits, rtol=0, atol=0
    )
    loaded = batvit.load(tmp_path)
    assert type(loaded) is transformers.ViTForImageClassification
    assert batvit.config_of(loaded) == batvit.BATConfig.preset(
        "training-free", keep_rate=0.5, blocks=(1, 3), weight="size"
    )
    torch.testing.assert_close(run(loaded, x).logits, expected, rtol=0, atol=0)
    assert (
        run(batvit.load(tmp_path, dtype=torch.bfloat16), x.bfloat16()).logits.dtype
        == torch.bfloat16
    )


def test_what_was_not_saved_patched_is_refused(tmp_path):
    model = batvit.unpatch(batvit.patch(vit(), keep_rate=0.5))
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no BAT configuration.*batvit\.patch"):
        batvit.load(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("batvit", {"keep_rate": 7.0}, r"keep_rate must lie in \(0, 1\], got 7\.0"),
        ("batvit", {"colour": "blue"}, "colour"),
        ("architectures", ["os"], "class of this model is os"),
        ("architectures", ["set_seed"], "class of this model is set_seed"),
        ("architectures", None, "class of this model is none"),
    ],
)
def test_a_configuration_is_not_trusted(tmp_path, entry, value, said):
    batvit.patch(vit(), keep_rate=0.5).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {entry: value}))
    with pytest.raises(ValueError, match=said):
        batvit.load(tmp_path)


def test_two_towers_are_found_again(tmp_path):
    model = batvit.patch(randomised(of_two_towers("CLIPModel", "CLIP", 4)), keep_rate=0.4)
    model.save_pretrained(tmp_path)
    assert batvit.config_of(batvit.load(tmp_path)) == batvit.config_of(model)
    batvit.unpatch(model.vision_model)
    assert not hasattr(model.vision_model.config, "batvit")
    folder = tmp_path / "outer" / "inner"
    batvit.patch(model, keep_rate=0.3).save_pretrained(folder)
    assert batvit.config_of(batvit.load(folder.parent, subfolder="inner")).keep_rate == 0.3


@pytest.mark.parametrize("wrong", [{"keep_rate": "0.5"}, {"keep": 0.5}])
def test_a_saved_reduction_that_is_not_valid_is_named(tmp_path, wrong):
    batvit.patch(vit(), keep_rate=0.5).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(saved | {"batvit": wrong}))
    with pytest.raises(
        ValueError, match=r"the BAT configuration in its config.json is not valid: (.|\n)*keep"
    ):
        batvit.load(tmp_path)
