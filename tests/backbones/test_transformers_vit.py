"""What is particular to models of transformers: pipelines, training, text towers, image sizes."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from families import SMALL, family, of_transformers, of_two_towers, pictures
from PIL import Image

import batvit
from batvit.backbones.registry import anatomy_of
from batvit.testing.run_contract import randomised


def vit(**settings):
    return randomised(
        of_transformers("ViTForImageClassification", "ViTConfig", 4, num_labels=5, **settings)
    )


def run(model, x, **arguments):
    with torch.no_grad():
        return model(pixel_values=x, **arguments)


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


def test_models_that_share_a_configuration_do_not_forget():
    first = vit()
    second = transformers.ViTForImageClassification(first.config).eval()
    batvit.patch(first, keep_rate=0.5)
    batvit.unpatch(second)
    assert first.config.batvit["keep_rate"] == 0.5


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
