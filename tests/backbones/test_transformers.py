"""What is particular to transformers: saving, pipelines, training, attention implementations, masks, text towers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import transformers
from families import SMALL, family, of_transformers, of_two_towers, pictures
from PIL import Image
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import reductions
from batvit.testing.run_contract import randomised


def vit(**settings):
    return randomised(
        of_transformers("ViTForImageClassification", "ViTConfig", 4, num_labels=5, **settings)
    )


def run(model, x, **arguments):
    with torch.no_grad():
        return model(pixel_values=x, **arguments)


def test_a_saved_model_is_found_again(tmp_path):
    model = batvit.patch(vit(), keep_rate=0.5, blocks=(1, 3), weight="size")
    x = pictures(model)
    expected = run(model, x).logits
    model.save_pretrained(tmp_path)
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


def processor():
    return transformers.ViTImageProcessor(size={"height": 96, "width": 96})


def noise(side=128):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    )


def test_in_a_pipeline():
    model = vit()
    classify = transformers.pipeline(
        "image-classification", model=model, image_processor=processor(), device="cpu"
    )
    before = classify(noise())
    batvit.patch(model, keep_rate=1.0)
    assert [row["label"] for row in classify(noise())] == [row["label"] for row in before]
    batvit.patch(model, keep_rate=0.3)
    with batvit.trace(model) as trace:
        after = classify(noise())
    assert [row["score"] for row in after] != [row["score"] for row in before]
    assert trace.sites[-1].origin.groups == batvit.info(model).blocks[-1].tokens_out


class Pictures(torch.utils.data.Dataset):
    """Eight pictures of five classes."""

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return {
            "pixel_values": torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(i)),
            "labels": i % 5,
        }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_the_trainer(tmp_path, checkpointing):
    model = batvit.patch(vit(), mode="paper", keep_rate=0.5)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    # 5.23 has a new name for it
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    name = (
        "activation_checkpointing"
        if "activation_checkpointing" in known
        else "gradient_checkpointing"
    )
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **{name: checkpointing},
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model=model, args=settings, train_dataset=Pictures(), eval_dataset=Pictures()
    )
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert any(not torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    assert batvit.config_of(batvit.load(tmp_path / "saved")) == batvit.config_of(model)


@pytest.mark.parametrize(
    "name", ["hf_vit", "hf_dinov2", "hf_dinov3", "hf_clip_vision", "hf_siglip_vision"]
)
def test_eager_and_sdpa_agree(name):
    model = batvit.patch(family(name), keep_rate=0.5)
    x = pictures(model)
    results = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        assert model.config._attn_implementation == implementation
        results.append(run(model, x)[0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_importance_is_the_class_row_of_the_eager_attention():
    model = batvit.patch(family("hf_dinov3"), keep_rate=0.5, blocks=(1,))
    model.set_attn_implementation("eager")
    site = reductions(model)[1]
    importance, captured = site.importance, []
    site.importance = lambda *args: captured.append(importance(*args)) or captured[-1]
    found = run(model, pictures(model), output_attentions=True).attentions
    assert len(found) == 5
    torch.testing.assert_close(captured[0], found[1][:, :, 0, site.prefix :].mean(1))


def test_an_attention_that_takes_no_sizes_is_refused():
    model = vit()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match=r"flash_attention_2.*size_aware=False"):
        batvit.patch(model, keep_rate=0.5)
    assert batvit.config_of(model) is None


def test_an_attention_that_takes_no_sizes_may_not_be_set_afterwards():
    transformers.AttentionInterface.register("another", sdpa_attention_forward)
    model = batvit.patch(vit(), keep_rate=0.5)
    model.set_attn_implementation("another")
    with pytest.raises(
        ValueError, match=r"size_aware adds to the attention logits, which .*'another' cannot take"
    ):
        run(model, pictures(model))
    batvit.patch(model, keep_rate=0.5, size_aware=False)
    assert run(model, pictures(model)).logits.isfinite().all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("size_aware", [False, True])
def test_padding_is_seen_by_nobody(implementation, size_aware):
    model = randomised(
        of_transformers("ViTModel", "ViTConfig", 4, attn_implementation=implementation)
    )
    x = pictures(model)
    mask = torch.ones(2, 37, dtype=torch.long)
    mask[0, 20:] = 0
    mask[1, 5:9] = 0
    expected = run(model, x, attention_mask=mask).last_hidden_state[:, 0]
    batvit.patch(model, keep_rate=1.0, size_aware=size_aware)
    found = run(model, x, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    batvit.patch(model, keep_rate=0.5, size_aware=size_aware)
    with batvit.trace(model) as trace:
        reduced = run(model, x, attention_mask=mask).last_hidden_state
    assert reduced.isfinite().all()
    assert trace.sites[-1].size.sum(1).tolist() == [19, 32]
    # what the padding shows changes nothing
    other = x.clone()
    other[0, :, 64:] += 3
    again = run(model, other, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(again[0, 0], reduced[0, 0], rtol=1e-4, atol=1e-4)


def test_diversity_of_images_of_another_size():
    model = randomised(of_transformers("ViTModel", "ViTConfig", 4))
    larger = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    dense = batvit.diversity_by_block(model, larger)
    found = batvit.diversity_by_block(batvit.patch(model, keep_rate=0.5), larger)
    assert len(found) == len(dense) == 4
    assert 0 < found[-1] != dense[-1] > 0


def test_texts_go_through_untouched():
    model = randomised(of_two_towers("CLIPModel", "CLIP", 4))
    x, words = pictures(model), torch.arange(8).reshape(2, 4)
    with torch.no_grad():
        texts, images = model.get_text_features(words), model.get_image_features(x)
        batvit.patch(model, keep_rate=0.5)
        assert torch.equal(model.get_text_features(words).pooler_output, texts.pooler_output)
        assert not torch.equal(model.get_image_features(x).pooler_output, images.pooler_output)
        assert model(input_ids=words, pixel_values=x).logits_per_image.shape == (2, 2)


def test_beit_is_refused_with_the_reason():
    model = transformers.BeitModel(transformers.BeitConfig(**(SMALL | {"num_hidden_layers": 2})))
    with pytest.raises(TypeError, match=r"BeitModel: its relative position bias"):
        batvit.patch(model)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("Siglip2VisionModel", "Siglip2VisionConfig"),
        ("SwinModel", "SwinConfig"),
        ("BertModel", "BertConfig"),
    ],
)
def test_others_are_refused_by_name(model, config):
    settings = (
        {"image_size": 96}
        if model == "SwinModel"
        else {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2}
    )
    made = getattr(transformers, model)(getattr(transformers, config)(**settings))
    with pytest.raises(TypeError, match=rf"{model}.*of transformers: ViT, DeiT, DINOv2"):
        batvit.patch(made)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_mask_of_pairs_is_refused(kind):
    model = batvit.patch(randomised(of_transformers("ViTModel", "ViTConfig", 4)), keep_rate=1.0)
    pairs = torch.block_diag(torch.ones(20, 20), torch.ones(17, 17)).expand(2, 1, 37, 37)
    mask = pairs.bool() if kind == torch.bool else pairs - 1
    with pytest.raises(ValueError, match=r"got one of pairs of tokens, \(2, 1, 37, 37\)"):
        run(model, pictures(model), attention_mask=mask)


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


def test_models_that_share_a_configuration_do_not_forget():
    first = vit()
    second = transformers.ViTForImageClassification(first.config).eval()
    batvit.patch(first, keep_rate=0.5)
    batvit.unpatch(second)
    assert first.config.batvit["keep_rate"] == 0.5


def test_another_checkpointing_function_works():
    model = batvit.patch(vit().train(), keep_rate=0.5)

    def checkpoint(function, *args):
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)

    model._set_gradient_checkpointing(True, checkpoint)
    model(pixel_values=pictures(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.vit.layers.parameters())


def test_a_model_around_a_backbone_is_counted():
    backbone = transformers.Dinov2Config(
        **SMALL, num_hidden_layers=4, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=48,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        patch_size=16,
    )
    model = batvit.patch(transformers.DepthAnythingForDepthEstimation(config).eval(), keep_rate=0.5)
    assert batvit.info(model).mac_ratio > 1
    assert run(model, torch.randn(1, 3, 96, 96)).predicted_depth.shape == (1, 96, 96)


def test_random_scales_of_dinov3_are_kept():
    model = of_transformers("DINOv3ViTModel", "DINOv3ViTConfig", 4).train()
    x = pictures(model)
    results = []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        results.append(model(x).last_hidden_state)
        batvit.patch(model, keep_rate=1.0)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["hf_vit", "hf_deit", "hf_clip", "hf_dinov2", "hf_dinov3"])
def test_other_image_sizes(name):
    model = anatomy_of(batvit.patch(family(name), keep_rate=0.5)).tower
    x = pictures(model, size=(128, 128))
    found = batvit.info(model, image_size=(128, 128))
    assert found.blocks[0].tokens_in == 64
    with batvit.trace(model) as trace:
        run(model, x, **anatomy_of(model, (128, 128)).arguments)
    assert trace.grid == (8, 8)
    assert f"{found.macs / 1e9:.4f} G MACs" in str(trace)
