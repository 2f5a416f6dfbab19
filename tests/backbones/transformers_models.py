"""Every class of transformers that is a plain Vision Transformer inside, as a tiny model.

Of those that are refused, the reason.
"""

from functools import partial
from importlib import import_module

import transformers
from families import SMALL, TEXT, masked_autoencoder

LANGUAGE = {
    "model_type": "llama",
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": 99,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STILL = {"pos_embed_rescale": None, "num_register_tokens": 2}
NO_BIAS = {"use_relative_position_bias": False, "use_absolute_position_embeddings": True}
DEPTH = {
    "reassemble_hidden_size": 48,
    "neck_hidden_sizes": [8, 8, 8, 8],
    "fusion_hidden_size": 8,
    "patch_size": 16,
}


def named(model):
    """A class of transformers, or of one of its files."""
    folder, _, name = model.rpartition(".")
    if not folder:
        return getattr(transformers, name)
    return getattr(import_module(f"transformers.models.{folder}.modeling_{folder}"), name)


def of(model, **settings):
    """A maker of a class by its configuration."""

    def make(depth=4):
        kind = named(model)
        return kind(kind.config_class(**(SMALL | {"num_hidden_layers": depth} | settings)))

    return make


def beside_texts(model, *, vision=None, text=None, **settings):
    """A maker of a class whose configuration holds one of images and one of texts."""

    def make(depth=4):
        kind = getattr(transformers, model).config_class
        pictures = SMALL | {"num_hidden_layers": depth} | (vision or {})
        config = kind(vision_config=pictures, text_config=TEXT | (text or {}), **settings)
        return getattr(transformers, model)(config)

    return make


def in_language(model, *, vision=None, text=None, **settings):
    """A maker of a language model that reads images."""
    return beside_texts(model, vision=vision, text=LANGUAGE | (text or {}), **settings)


def around_backbone(model, backbone=None, **settings):
    """A maker of a model around DINOv2 as its backbone."""

    def make(depth=4):
        inside = transformers.Dinov2Config(
            **SMALL,
            num_hidden_layers=depth,
            out_indices=[1, 2, 3, 4],
            reshape_hidden_states=False,
            **(backbone or {}),
        )
        config = getattr(transformers, model).config_class(backbone_config=inside, **settings)
        return getattr(transformers, model)(config)

    return make


def pair(model, depth=4):
    """An encoder of images before a decoder of texts."""
    images = transformers.ViTConfig(**SMALL, num_hidden_layers=depth)
    texts = transformers.BertConfig(**TEXT, is_decoder=True, add_cross_attention=True)
    if model == "VisionEncoderDecoderModel":
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(images, texts)
    else:
        texts = transformers.BertConfig(**TEXT)
        config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
            images, texts, projection_dim=16
        )
    return getattr(transformers, model)(config)


def wrapped_timm(model, depth=4):
    config = transformers.TimmWrapperConfig(
        architecture="vit_base_patch16_224",
        model_args={"img_size": 96, "depth": depth, "embed_dim": 48, "num_heads": 3},
        num_labels=7,
    )
    return getattr(transformers, model)(config)


CODES = {
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
    "latent_channels": 8,
    "embed_dim": 8,
    "num_embeddings": 16,
}
SIDES = {"image_size": (96, 96)}


def queried(model):
    """A maker of a language model that asks an image by a few queries."""
    queries = TEXT | {"encoder_hidden_size": 48}
    return in_language(model, qformer_config=queries, num_query_tokens=4)


CLASSES = ("ViT", "DeiT", "Dinov2", "Dinov2WithRegisters", "IJepa", "ViTMSN")
REDUCED = {
    **{f"{name}Model": of(f"{name}Model") for name in (*CLASSES, "ViTMAE", "Pixio")},
    **{f"{name}ForImageClassification": of(f"{name}ForImageClassification") for name in CLASSES},
    "ViTForMaskedImageModeling": of("ViTForMaskedImageModeling"),
    "DeiTForMaskedImageModeling": of("DeiTForMaskedImageModeling"),
    "DeiTForImageClassificationWithTeacher": of("DeiTForImageClassificationWithTeacher"),
    "ViTMAEModel": partial(masked_autoencoder, mask_ratio=0.0),
    "Dinov2Backbone": of("Dinov2Backbone", out_indices=[1, -1]),
    "Dinov2WithRegistersBackbone": of("Dinov2WithRegistersBackbone", out_indices=[1, -1]),
    "PixioBackbone": of("PixioBackbone", out_indices=[1, -1]),
    "BeitModel": of("BeitModel", **NO_BIAS),
    "BeitForImageClassification": of("BeitForImageClassification", **NO_BIAS),
    "BeitBackbone": of("BeitBackbone", out_indices=[1, -1], **NO_BIAS),
    "Data2VecVisionModel": of("Data2VecVisionModel", **NO_BIAS),
    "Data2VecVisionForImageClassification": of("Data2VecVisionForImageClassification", **NO_BIAS),
    "DINOv3ViTModel": of("DINOv3ViTModel", **STILL),
    "DINOv3ViTBackbone": of("DINOv3ViTBackbone", out_indices=[1, -1], **STILL),
    "Sapiens2Model": of("Sapiens2Model", **STILL),
    "Sapiens2Backbone": of("Sapiens2Backbone", out_indices=[1, -1], **STILL),
    "RadioModel": of("RadioModel", max_img_size=96),
    "Tipsv2VisionModel": of("Tipsv2VisionModel"),
    "Tipsv2VisionBackbone": of("Tipsv2VisionBackbone", out_indices=[1, -1]),
    "DPTModel": of("DPTModel"),
    "DPTForDepthEstimation": of(
        "DPTForDepthEstimation",
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    ),
    "DPTForSemanticSegmentation": of(
        "DPTForSemanticSegmentation",
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    ),
    "YolosModel": of(
        "YolosModel", use_mid_position_embeddings=False, num_detection_tokens=5, **SIDES
    ),
    "YolosForObjectDetection": of(
        "YolosForObjectDetection",
        use_mid_position_embeddings=False,
        num_detection_tokens=5,
        **SIDES,
    ),
    "VitPoseBackbone": of("VitPoseBackbone", out_indices=[1, -1]),
    "MgpstrModel": of("MgpstrModel", max_token_length=5, **SIDES),
    "MLCDVisionModel": of("MLCDVisionModel"),
    "Aimv2VisionModel": of("Aimv2VisionModel"),
    "FlavaImageModel": of("FlavaImageModel"),
    "InternVLVisionModel": of("InternVLVisionModel"),
    "QianfanOCRVisionModel": of("QianfanOCRVisionModel"),
    "JanusVisionModel": of("JanusVisionModel"),
    "ovis2.Ovis2VisionModel": of("ovis2.Ovis2VisionModel"),
    "Phi4MultimodalVisionModel": of("Phi4MultimodalVisionModel"),
    "kosmos2.Kosmos2VisionModel": of("kosmos2.Kosmos2VisionModel"),
    "GitVisionModel": of("GitVisionModel"),
    "Idefics3VisionTransformer": of("Idefics3VisionTransformer"),
    "SmolVLMVisionTransformer": of("SmolVLMVisionTransformer"),
    "idefics2.Idefics2VisionTransformer": of("idefics2.Idefics2VisionTransformer"),
    **{
        f"{name}VisionModel": of(f"{name}VisionModel")
        for name in (
            *("CLIP", "Siglip", "CLIPSeg", "AltCLIP", "ChineseCLIP", "MetaClip2", "OwlViT"),
            *("Owlv2", "Blip", "Blip2", "InstructBlip", "InstructBlipVideo"),
        )
    },
    **{
        f"{name}VisionModelWithProjection": of(f"{name}VisionModelWithProjection")
        for name in ("CLIP", "MetaClip2")
    },
    **{
        f"{name}Model": beside_texts(f"{name}Model")
        for name in ("CLIP", "Siglip", "AltCLIP", "ChineseCLIP", "MetaClip2", "CLIPSeg", "Aimv2")
    },
    **{
        f"{name}ForImageClassification": beside_texts(f"{name}ForImageClassification")
        for name in ("CLIP", "Siglip", "MetaClip2")
    },
    "OwlViTForObjectDetection": beside_texts("OwlViTForObjectDetection", projection_dim=48),
    "Owlv2ForObjectDetection": beside_texts("Owlv2ForObjectDetection", projection_dim=48),
    "CLIPSegForImageSegmentation": beside_texts("CLIPSegForImageSegmentation", extract_layers=[1]),
    "BlipModel": beside_texts("BlipModel"),
    "Tipsv2Model": beside_texts("Tipsv2Model"),
    "DepthAnythingForDepthEstimation": around_backbone("DepthAnythingForDepthEstimation", **DEPTH),
    "VisionEncoderDecoderModel": partial(pair, "VisionEncoderDecoderModel"),
    "VisionTextDualEncoderModel": partial(pair, "VisionTextDualEncoderModel"),
    "TimmWrapperModel": partial(wrapped_timm, "TimmWrapperModel"),
    "TimmWrapperForImageClassification": partial(wrapped_timm, "TimmWrapperForImageClassification"),
    "LlavaForConditionalGeneration": in_language(
        "LlavaForConditionalGeneration", vision={"model_type": "clip_vision_model"}
    ),
    "PaliGemmaForConditionalGeneration": in_language(
        "PaliGemmaForConditionalGeneration", text={"model_type": "gemma"}, projection_dim=48
    ),
    "Idefics3ForConditionalGeneration": in_language("Idefics3ForConditionalGeneration"),
    "SmolVLMForConditionalGeneration": in_language("SmolVLMForConditionalGeneration"),
    "InternVLForConditionalGeneration": in_language("InternVLForConditionalGeneration"),
    "JanusForConditionalGeneration": in_language("JanusForConditionalGeneration", vq_config=CODES),
    "GitForCausalLM": of("GitForCausalLM", vision_config=SMALL | {"num_hidden_layers": 4}),
    "BlipForConditionalGeneration": beside_texts("BlipForConditionalGeneration"),
    "Blip2ForImageTextRetrieval": queried("Blip2ForImageTextRetrieval"),
    "Blip2ForConditionalGeneration": queried("Blip2ForConditionalGeneration"),
    "InstructBlipForConditionalGeneration": queried("InstructBlipForConditionalGeneration"),
    "BeitForSemanticSegmentation": of(
        "BeitForSemanticSegmentation", out_indices=[1, 2, 3, 4], **NO_BIAS
    ),
    "Data2VecVisionForSemanticSegmentation": of(
        "Data2VecVisionForSemanticSegmentation", out_indices=[2, 3, 4, 5], **NO_BIAS
    ),
    "ViTMAEForPreTraining": of("ViTMAEForPreTraining", decoder_num_hidden_layers=1, mask_ratio=0.0),
    "FlavaModel": of(
        "FlavaModel",
        image_config=SMALL | {"num_hidden_layers": 4},
        text_config=TEXT,
        multimodal_config=TEXT,
    ),
}
"""class to what makes a model of it, of so many layers"""

WINDOWS = "attention stays within windows"
HALVED = "halves its grid on the way"
PACKED = "packs the patches of all images into one sequence"
FLATTENED = "takes flattened patches with their positions beside them"
QUERIES = "puts queries among its tokens"
MIXED = "texts and patches go through the same layers"
BIAS = "relative position bias is a table over pairs of patches"
REFUSED = {
    "SwinModel": WINDOWS,
    "LwDetrViTBackbone": WINDOWS,
    "RfDetrDinov2Backbone": WINDOWS,
    "SamVisionModel": "adds relative positions of the grid, and stays within windows",
    "VitDetModel": "adds relative positions of the grid, and stays within windows",
    "got_ocr2.GotOcr2VisionEncoder": "adds relative positions of the grid",
    "Sam3ViTModel": "rotary positions are those of a grid",
    "HieraModel": HALVED,
    "PvtModel": HALVED,
    "SegformerModel": HALVED,
    "Sam2VisionModel": HALVED,
    "PixtralVisionModel": PACKED,
    "qwen2_vl.Qwen2VisionTransformerPretrainedModel": PACKED,
    "qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel": PACKED,
    "Siglip2VisionModel": FLATTENED,
    "Siglip2Model": FLATTENED,
    "Pix2StructVisionModel": FLATTENED,
    "kosmos2_5.Kosmos2_5VisionModel": FLATTENED,
    "MllamaVisionModel": "attends to all tiles of an image",
    "Llama4VisionModel": "class token stands last",
    "EomtForUniversalSegmentation": QUERIES,
    "ViltModel": MIXED,
    "LayoutLMv3Model": MIXED,
    "BridgeTowerModel": MIXED,
    "XCLIPVisionModel": "carry messages between the frames of a video",
    "GroupViTVisionModel": "groups its own tokens",
    "SegGptModel": "average what several prompts give",
    "ImageGPTModel": "codes of a picture one after the other",
    "PerceiverForImageClassificationLearned": "few latent tokens",
    "DepthProModel": "cuts an image into pieces",
    "ZoeDepthForDepthEstimation": BIAS,
    "YolosModel": "use_mid_position_embeddings=False can be reduced",
}
"""class to words of the sentence that refuses it, as its configuration is by default"""


def is_there(name):
    """Whether this version of transformers has a class."""
    try:
        return named(name) is not None
    except (AttributeError, ImportError):
        return False
