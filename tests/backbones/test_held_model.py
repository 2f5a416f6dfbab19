"""Models that a library wrapped around another one find it themselves."""

import peft
import pytest
import timm
import torch
import transformers
from families import of_transformers, pictures
from transformers_models import REDUCED

import batvit
from batvit.backbones.registry import adapter_of, anatomy_of
from batvit.testing.run_contract import randomised

# peft asks transformers for what it is about to rename
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
TIMM = {"img_size": 96, "depth": 4, "embed_dim": 48, "num_heads": 3}


def adapted(model, targets):
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=targets)).eval()


def vit():
    return of_transformers("ViTModel", "ViTConfig", 4)


def deit():
    return timm.create_model("deit_tiny_patch16_224", **TIMM)


HELD = {
    "peft around transformers": lambda: adapted(vit(), ["q_proj"]),
    "peft around timm": lambda: adapted(
        timm.create_model("deit_tiny_patch16_224", **TIMM), ["qkv"]
    ),
    "transformers around timm": REDUCED["TimmWrapperModel"],
    "peft around transformers around timm": lambda: adapted(REDUCED["TimmWrapperModel"](), ["qkv"]),
}


@pytest.mark.parametrize("what", HELD)
def test_the_model_inside_is_reduced_and_restored(what):
    model = randomised(HELD[what]())
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (dense, *_) = torch.utils._pytree.tree_leaves(model(x))
        assert batvit.patch(model, keep_rate=0.5) is model
        assert batvit.config_of(model).keep_rate == 0.5
        assert batvit.info(model).mac_ratio > 1.1
        with batvit.trace(model) as trace:
            (reduced, *_) = torch.utils._pytree.tree_leaves(model(x))
        assert trace.sites[-1].origin.groups == batvit.info(model).blocks[-1].tokens_out
        assert reduced.shape == dense.shape
        assert not torch.equal(reduced, dense)
        (again, *_) = torch.utils._pytree.tree_leaves(batvit.unpatch(model)(x))
    assert torch.equal(again, dense)
    assert batvit.config_of(model) is None


def test_the_adapter_is_that_of_the_model_inside():
    model = REDUCED["TimmWrapperModel"]()
    assert anatomy_of(model).tower is model.timm_model
    assert adapter_of(model).matches(model)
    assert adapter_of(model).reduced_classes() == adapter_of(model.timm_model).blocks


def test_a_wrapped_model_of_timm_is_saved_and_loaded(tmp_path):
    model = randomised(REDUCED["TimmWrapperForImageClassification"]())
    batvit.patch(model, keep_rate=0.5, blocks=(1,)).save_pretrained(tmp_path)
    loaded = batvit.load(tmp_path)
    assert batvit.config_of(loaded) == batvit.config_of(model)
    x = pictures(model)
    with torch.no_grad():
        assert torch.equal(loaded(x).logits, model(x).logits)
    batvit.unpatch(model)
    assert not hasattr(model.config, "batvit")


def test_a_module_of_the_users_is_told_where_the_model_is():
    with pytest.raises(TypeError, match=r"Sequential holds a model .*: patch its 0 instead"):
        batvit.patch(torch.nn.Sequential(vit()))


def test_a_wrapper_around_another_model_is_refused():
    config = transformers.TimmWrapperConfig(architecture="resnet10t", num_labels=3)
    with pytest.raises(TypeError, match="TimmWrapperModel: no adapter knows this class"):
        batvit.patch(transformers.TimmWrapperModel(config))
