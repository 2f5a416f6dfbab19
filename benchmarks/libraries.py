"""The same weights in timm and in transformers: the same logits and classes, dense and reduced.

python benchmarks/libraries.py --checkpoint deit_tiny_patch16_224.safetensors \
    --data nips2017 --class-map class_map.txt

DeiT's class in transformers always has a distillation token, so its rows stand beside timm's
distilled DeiT, for which the class token, its position and its head are taken twice.
"""

import argparse
import copy

import timm
import torch
import transformers
from rich.progress import track
from torch import Tensor, nn

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import loader
from batvit.models.create import create_model
from results import show

NAMES = {
    "attn.proj.": "attention.o_proj.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
}


def converted(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Weights of timm's ViT or DeiT under the names that transformers has for them."""
    found = {}
    for name, weight in state.items():
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            layer = f"{prefix}.layers.{block}."
            if rest.startswith("attn.qkv."):
                kind = rest.rpartition(".")[2]
                for part, chunk in zip("qkv", weight.chunk(3), strict=True):
                    found[f"{layer}attention.{part}_proj.{kind}"] = chunk
                continue
            for own, other in NAMES.items():
                rest = rest.replace(own, other)
            found[layer + rest] = weight
        else:
            found[_outside(name, prefix)] = weight
    return found


def _outside(name: str, prefix: str) -> str:
    """The names of what is no block."""
    if name.startswith("head"):
        return name
    if name.startswith("norm."):
        return f"{prefix}.layernorm.{name.removeprefix('norm.')}"
    renamed = {"dist_token": "distillation_token", "pos_embed": "position_embeddings"}.get(
        name, name
    )
    return (
        f"{prefix}.embeddings.{renamed.replace('patch_embed.proj', 'patch_embeddings.projection')}"
    )


def twins(dense: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Pairs of models with the same weights: timm's, and the class of transformers."""
    state, classes = dense.state_dict(), dense.num_classes
    sizes = {
        "hidden_size": dense.embed_dim,
        "num_hidden_layers": len(dense.blocks),
        "num_attention_heads": dense.blocks[0].attn.num_heads,
        "intermediate_size": dense.blocks[0].mlp.fc1.out_features,
        "image_size": dense.patch_embed.img_size[0],
        "patch_size": dense.patch_embed.patch_size[0],
        "layer_norm_eps": dense.norm.eps,
        "num_labels": classes,
    }
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**sizes)).eval()
    heads = {"head.weight": "classifier.weight", "head.bias": "classifier.bias"}
    vit.load_state_dict(
        {heads.get(name, name): weight for name, weight in converted(state, "vit").items()}
    )

    twice = {
        "pos_embed": torch.cat([state["pos_embed"][:, :1], state["pos_embed"]], dim=1),
        "dist_token": state["cls_token"],
        "head_dist.weight": state["head.weight"],
        "head_dist.bias": state["head.bias"],
    }
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=classes).eval()
    distilled.load_state_dict(state | twice)
    teacher = transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**sizes)
    ).eval()
    heads = {
        f"head{a}.{kind}": f"{b}_classifier.{kind}"
        for a, b in (("", "cls"), ("_dist", "distillation"))
        for kind in ("weight", "bias")
    }
    names = converted(distilled.state_dict(), "deit")
    teacher.load_state_dict({heads.get(name, name): weight for name, weight in names.items()})
    return {
        "ViTForImageClassification": (dense, vit),
        "DeiTForImageClassificationWithTeacher": (distilled, teacher),
    }


@torch.inference_mode()
def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", help="weights of deit_tiny_patch16_224; timm's own otherwise"
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--class-map")
    parser.add_argument("--keep-rate", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="also write the rows here")
    parser.add_argument("--record", action="store_true", help="keep the rows in docs/results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dense = create_model(
        "deit_tiny_patch16_224", checkpoint=args.checkpoint, pretrained=True
    ).eval()
    pictures = image_folder(args.data, class_map=args.class_map, num_classes=dense.num_classes)
    dense_pairs = twins(dense)
    pairs = {f"{name}, dense": pair for name, pair in dense_pairs.items()}
    for name, pair in dense_pairs.items():
        pairs[f"{name}, keep {args.keep_rate}"] = tuple(
            batvit.patch(copy.deepcopy(model), keep_rate=args.keep_rate) for model in pair
        )
    found = {
        name: {
            "pictures": 0,
            "difference": 0.0,
            "same_top1": 0,
            "timm_right": 0,
            "transformers_right": 0,
        }
        for name in pairs
    }
    for images, labels in track(loader(pictures, dense, batch_size=args.batch_size), "comparing"):
        for name, (ours, theirs) in pairs.items():
            compare(found[name], ours(images), theirs(images).logits, labels)
    rows = []
    for name, row in found.items():
        shares = {
            "top1": 100 * row["transformers_right"] / row["pictures"],
            "timm_top1": 100 * row["timm_right"] / row["pictures"],
        }
        rows.append({"model": name, "same": row["same_top1"]} | row | shares)
    show("libraries", rows, keep=args.record, path=args.json)


def compare(row: dict[str, float], ours: Tensor, theirs: Tensor, labels: Tensor) -> None:
    """Add one batch to a row."""
    row["pictures"] += len(labels)
    row["difference"] = max(row["difference"], float((ours - theirs).abs().max()))
    row["same_top1"] += int((ours.argmax(1) == theirs.argmax(1)).sum())
    row["timm_right"] += int((ours.argmax(1) == labels).sum())
    row["transformers_right"] += int((theirs.argmax(1) == labels).sum())


if __name__ == "__main__":
    main()
