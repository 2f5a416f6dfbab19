"""Why models of transformers that look like Vision Transformers cannot be reduced.

Each reason is half a sentence, with what to do.
"""

from typing import Any

from torch import nn

LIST = "batvit.supported() lists what can be reduced"
HIERARCHY = f"it halves its grid on the way, and merged tokens have none; {LIST}"
WINDOWS = f"its attention stays within windows of the grid, and merged tokens have none; {LIST}"
POSITIONS = (
    "its relative position bias is a table over pairs of patches, where merged tokens have no place"
)
PACKED = f"it packs the patches of all images into one sequence; {LIST}"
FLATTENED = f"it takes flattened patches with their positions beside them, no images; {LIST}"
TILES = f"one layer attends to all tiles of an image, padded, in one sequence; {LIST}"
QUERIES = f"it puts queries among its tokens between its layers; {LIST}"
MIXED = f"texts and patches go through the same layers; {LIST}"
VIDEO = f"a video's patches have a third dimension, which batvit does not know here; {LIST}"

BY_FOLDER = {
    HIERARCHY: "convnext convnextv2 cvt dinat focalnet glpn hiera levit mobilevit mobilevitv2 pvt "
    "pvt_v2 sam2 segformer swiftformer poolformer florence2",
    WINDOWS: "donut lw_detr maskformer_swin rf_detr swin swin2sr swinv2 clap",
    f"its attention adds relative positions of the grid, and stays within windows; {LIST}": (
        "deepseek_ocr2 got_ocr2 pp_formulanet sam sam_hq slanext unlimited_ocr vitdet"
    ),
    f"its attention stays within windows, and its rotary positions are those of a grid; {LIST}": (
        "sam3"
    ),
    PACKED: "cohere_compass cosmos3_edge cosmos3_omni dots3_note ernie4_5_vl_moe exaone4_5 glm4v "
    "glm4v_moe glm_ocr glm_image hunyuan_vl hy_v4_vl kimi_k25 lfm3_vl minicpm_ocr minicpmv4_6 "
    "minicpmv4_7 minimax_m3_vl muse_glimmer muse_spark paddleocr_vl pixtral qwen2_5_omni "
    "qwen2_5_vl qwen2_vl qwen3_5 qwen3_5_moe qwen3_omni_moe qwen3_vl qwen3_vl_moe qwen4_exp "
    "video_llama_3 inkling2 glm5_next",
    FLATTENED: "gemma4 kosmos2_5 molmo2 pix2struct siglip2 step3p7 granite_docling",
    TILES: "mllama",
    QUERIES: "eomt eomt_dinov3 videomt",
    MIXED: "bridgetower fuyu layoutlmv2 layoutlmv3 udop vilt visual_bert tvp",
    VIDEO: "timesformer videomae videoprism vivit vjepa2",
    f"its patches are those of a spectrogram, which batvit does not know; {LIST}": (
        "audio_spectrogram_transformer"
    ),
    f"it cuts an image into pieces of several sizes, and encodes each; {LIST}": "depth_pro",
    f"its layers carry messages between the frames of a video; {LIST}": "x_clip",
    f"its tower has no configuration of its own; {LIST}": "idefics",
    f"it groups its own tokens on the way; {LIST}": "groupvit",
    f"its layers average what several prompts give, place by place; {LIST}": "seggpt",
    f"its class token stands last, with rotary positions of complex numbers; {LIST}": "llama4",
    f"its layers attend to codes of a picture one after the other; {LIST}": "imagegpt",
    f"it attends from few latent tokens to all of an image; {LIST}": "perceiver",
}
"""folders of ``transformers.models`` by reason"""

BY_FIELD = {
    "use_relative_position_bias": f"{POSITIONS}; checkpoints without one can be reduced",
    "use_shared_relative_position_bias": f"{POSITIONS}; checkpoints without one can be reduced",
    "use_mid_position_embeddings": (
        "it adds positions of all patches between its layers; checkpoints with "
        "use_mid_position_embeddings=False can be reduced, such as hustvl/yolos-tiny"
    ),
}
"""fields of a configuration that a layer which is known goes with, if they are true"""


def reason(model: nn.Module, config: Any = None) -> str | None:
    """Return why a model of transformers cannot be reduced; None if no reason is known.

    Args:
        model: any.
        config: of its tower, if that has layers that are known.
    """
    if config is None:
        reasons = (_of_class(type(part)) for part in model.modules())
        return next((reason for reason in reasons if reason is not None), None)
    for field, reason in BY_FIELD.items():
        if getattr(config, field, False):
            return reason
    if getattr(config, "num_experts", 1) > 1:
        return f"its layers choose an expert by the data set of an image; {LIST}"
    return _of_class(type(model))


def _of_class(kind: type) -> str | None:
    package, _, file = kind.__module__.partition(".models.")
    for reason, folders in BY_FOLDER.items():
        if package == "transformers" and file.partition(".")[0] in folders.split():
            return reason
    return None
