"""Every family of transformers that can be reduced, a row each.

A family that repeats a known layer is one row. Its file is imported by transformers when a model of
it is made, never here; a family that the installed transformers lacks is not there.
"""

from dataclasses import dataclass

from batvit.backbones.transformers_common import ReducedLayer
from batvit.backbones.transformers_nested import NestedLayer, OutputLayer
from batvit.backbones.transformers_rotary import RotaryLayer, RotaryOfTokensLayer
from batvit.backbones.transformers_softmax import (
    BiasLayer,
    ProjectionOutputLayer,
    SharedProjectionLayer,
    SharedProjectionTupleLayer,
)
from batvit.reduction.block import Parts

VIT = Parts("layernorm_before", "attention", ("dropout",), "layernorm_after", "mlp", ("dropout",))
PIXIO = VIT._replace(after_attention=("dropout", "drop_path"), after_mlp=("dropout", "drop_path"))
BEIT = PIXIO._replace(
    after_attention=("dropout", "lambda_1", "drop_path"),
    after_mlp=("dropout", "lambda_2", "drop_path"),
)
INTERN = VIT._replace(after_attention=("lambda_1",), after_mlp=("dropout", "lambda_2"))
QIANFAN = VIT._replace(
    after_attention=("lambda_1", "drop_path1"), after_mlp=("dropout", "lambda_2", "drop_path2")
)
VITPOSE = VIT._replace(after_attention=(), after_mlp=())
NESTED = VITPOSE._replace(mlp="intermediate", after_mlp=("output",))
DATA2VEC = VIT._replace(
    after_attention=("lambda_1", "drop_path"),
    mlp="intermediate",
    after_mlp=("output", "lambda_2", "drop_path"),
)
DINO = Parts(
    *("norm1", "attention", ("layer_scale1", "drop_path")),
    *("norm2", "mlp", ("layer_scale2", "drop_path")),
)
CLIP = Parts("layer_norm1", "self_attn", (), "layer_norm2", "mlp", ())
AIM = Parts("rms_norm1", "attention", (), "rms_norm2", "ffn", ())
MGP = Parts("norm1", "attn", ("drop_path",), "norm2", "mlp", ("drop_path",))


@dataclass(frozen=True)
class Family:
    """A family of models with a layer of its own."""

    name: str
    """what it is called in the documents"""
    folder: str
    """its folder in ``transformers.models``"""
    layer: str
    """the class of its layers; that of their attention follows from it"""
    parts: Parts
    example: str
    """a model of it"""
    kind: type[ReducedLayer] = ReducedLayer
    """what the reduced layer derives from"""
    attention: str = ""
    """its class of attention, the inner one of two, where it is not named after the layer"""
    file: str = ""
    """the file of the layer, where it is not ``modeling_`` and the folder"""
    eager: str = "eager_attention_forward"
    """the function of that file that the attention falls back to, if it asks an interface"""

    @property
    def module(self) -> str:
        """The file of the layer, as Python names it."""
        return f"transformers.models.{self.folder}.{self.file or f'modeling_{self.folder}'}"


FAMILIES = (
    Family("ViT", "vit", "ViTLayer", VIT, "ViTForImageClassification"),
    Family("DeiT", "deit", "DeiTLayer", VIT, "DeiTForImageClassificationWithTeacher"),
    Family("ViT-MAE encoder", "vit_mae", "ViTMAELayer", VIT, "ViTMAEModel"),
    Family("ViT-MSN", "vit_msn", "ViTMSNLayer", VIT, "ViTMSNModel"),
    Family("I-JEPA", "ijepa", "IJepaLayer", VIT, "IJepaModel"),
    Family("Pixio", "pixio", "PixioLayer", PIXIO, "PixioModel"),
    Family("BEiT without a position bias", "beit", "BeitLayer", BEIT, "BeitModel"),
    Family(
        *("Data2Vec without a position bias", "data2vec", "Data2VecVisionLayer", DATA2VEC),
        *("Data2VecVisionModel", BiasLayer),
        file="modeling_data2vec_vision",
    ),
    Family("DINOv2", "dinov2", "Dinov2Layer", DINO, "Dinov2Model"),
    Family(
        *("DINOv2 with registers", "dinov2_with_registers", "Dinov2WithRegistersLayer", DINO),
        "Dinov2WithRegistersModel",
    ),
    Family("DINOv3", "dinov3_vit", "DINOv3ViTLayer", DINO, "DINOv3ViTModel", RotaryLayer),
    Family("Sapiens 2", "sapiens2", "Sapiens2Layer", DINO, "Sapiens2Model", RotaryLayer),
    Family("RADIO", "radio", "RadioLayer", DINO, "RadioModel"),
    Family("TIPS v2", "tipsv2", "Tipsv2VisionLayer", DINO, "Tipsv2VisionModel"),
    Family("DPT", "dpt", "DPTViTLayer", NESTED, "DPTModel", OutputLayer, "DPTSelfAttention"),
    Family("YOLOS", "yolos", "YolosLayer", NESTED, "YolosModel", OutputLayer),
    Family(
        *("ViTPose", "vitpose_backbone", "VitPoseBackboneLayer", VITPOSE, "VitPoseBackbone"),
        NestedLayer,
    ),
    Family("MGP-STR", "mgp_str", "MgpstrLayer", MGP, "MgpstrModel", SharedProjectionTupleLayer),
    # beside texts
    Family("CLIP", "clip", "CLIPEncoderLayer", CLIP, "CLIPModel"),
    Family("CLIPSeg", "clipseg", "CLIPSegEncoderLayer", CLIP, "CLIPSegModel"),
    Family("AltCLIP", "altclip", "AltCLIPEncoderLayer", CLIP, "AltCLIPModel"),
    Family("Chinese CLIP", "chinese_clip", "ChineseCLIPVisionLayer", CLIP, "ChineseCLIPModel"),
    Family("MetaCLIP 2", "metaclip_2", "MetaClip2EncoderLayer", CLIP, "MetaClip2Model"),
    Family(
        "SigLIP, SigLIP 2 of fixed resolution", "siglip", "SiglipEncoderLayer", CLIP, "SiglipModel"
    ),
    Family("MLCD", "mlcd", "MLCDEncoderLayer", CLIP, "MLCDVisionModel", RotaryOfTokensLayer),
    Family("AIMv2", "aimv2", "Aimv2EncoderLayer", AIM, "Aimv2Model"),
    Family("OWL-ViT", "owlvit", "OwlViTEncoderLayer", CLIP, "OwlViTForObjectDetection"),
    Family("OWLv2", "owlv2", "Owlv2EncoderLayer", CLIP, "Owlv2ForObjectDetection"),
    Family("FLAVA", "flava", "FlavaLayer", NESTED, "FlavaImageModel", ProjectionOutputLayer),
    Family("BLIP", "blip", "BlipEncoderLayer", CLIP, "BlipModel", SharedProjectionLayer),
    # in language models
    Family("BLIP-2", "blip_2", "Blip2EncoderLayer", CLIP, "Blip2Model"),
    Family("InstructBLIP", "instructblip", "InstructBlipEncoderLayer", CLIP, "InstructBlipModel"),
    Family(
        *("InstructBLIP for videos", "instructblipvideo", "InstructBlipVideoEncoderLayer", CLIP),
        "InstructBlipVideoModel",
    ),
    Family("GIT", "git", "GitVisionEncoderLayer", CLIP, "GitModel"),
    Family("Kosmos-2", "kosmos2", "Kosmos2VisionEncoderLayer", CLIP, "Kosmos2Model"),
    Family("InternVL", "internvl", "InternVLVisionLayer", INTERN, "InternVLModel"),
    Family("Qianfan-OCR", "qianfan_ocr", "QianfanOCRVisionLayer", QIANFAN, "QianfanOCRModel"),
    Family("Janus", "janus", "JanusVisionEncoderLayer", CLIP, "JanusModel"),
    Family("Ovis 2", "ovis2", "Ovis2VisionEncoderLayer", AIM, "Ovis2Model"),
    Family("Idefics 2", "idefics2", "Idefics2EncoderLayer", CLIP, "Idefics2Model"),
    Family("Idefics 3", "idefics3", "Idefics3EncoderLayer", CLIP, "Idefics3Model"),
    Family("SmolVLM", "smolvlm", "SmolVLMEncoderLayer", CLIP, "SmolVLMModel"),
    Family(
        *("Phi-4 multimodal", "phi4_multimodal", "Phi4MultimodalVisionEncoderLayer", CLIP),
        "Phi4MultimodalVisionModel",
        eager="simple_eager_attention_forward",
    ),
)
