"""The models that a command works on: made by timm, or exported before."""

import argparse
import copy
import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batvit.backbones.patch import patch, unpatch
from batvit.checkpoint import create_model
from batvit.cli import options
from batvit.config import BATConfig
from batvit.data import Pictures, data_config, image_folder, placed, unlabelled
from batvit.engines import Engine, is_exported, load_engine
from batvit.info import info


class Models(NamedTuple):
    """The model asked for, as it is and reduced."""

    dense: nn.Module
    reduced: nn.Module
    config: dict[str, Any] | None
    """of the reduced one"""

    @property
    def cost(self) -> dict[str, Any]:
        """What they cost, with timm's names: of a file, as it says itself."""
        if isinstance(self.reduced, Engine):
            card = self.reduced.card
            return {
                "model": card.model,
                "img_size": card.input_size[1:],
                "param_count": card.param_count,
                "config": card.config,
                "gmacs": card.macs / 1e9,
                "dense_gmacs": card.dense_macs / 1e9,
                "mac_ratio": card.dense_macs / card.macs,
            }
        return {name: value for name, value in info(self.reduced).to_dict().items() if name not in ("blocks", "prefix_tokens")}


def add_engine(parser: argparse.ArgumentParser) -> None:
    """For the commands that take an exported file, too."""
    text = "beside an exported MODEL (.onnx, .xml, .pt2): the dense model, exported"
    parser.add_argument("--dense", dest="dense_file", metavar="FILE", help=text)


def load(args: argparse.Namespace, *, pretrained: bool) -> Models:
    """The dense model and a reduced copy, on their device and in their precision."""
    if getattr(args, "threads", None) is not None:
        torch.set_num_threads(args.threads)
    if hasattr(args, "dense_file") and is_exported(args.model):
        return _engines(args)
    if getattr(args, "dense_file", None) is not None:
        raise ValueError(f"--dense goes with an exported MODEL, a .onnx, .xml or .pt2 file; got {args.model}")
    wanted = options.config(args)
    dense = load_dense(args, pretrained=pretrained)
    return Models(dense, patch(copy.deepcopy(dense), wanted), wanted.to_dict())


def load_dense(args: argparse.Namespace, *, pretrained: bool) -> nn.Module:
    """The dense model alone, on its device and in its precision."""
    if getattr(args, "threads", None) is not None:
        torch.set_num_threads(args.threads)
    if not hasattr(args, "device"):
        device = torch.device("cpu")
    else:
        args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        device = options.torch_device(args.device)
    dtype = options.PRECISIONS[getattr(args, "precision", "fp32")]
    dense = create_model(
        args.model,
        checkpoint=args.checkpoint,
        pretrained=pretrained,
        num_classes=args.num_classes,
        image_size=options.image_size(args),
    )
    return unpatch(dense.to(device=device, dtype=dtype).eval())


def check_head(args: argparse.Namespace) -> None:
    """Refuse, before anything is made, what would have a head of random weights, where its logits count."""
    if args.num_classes and args.checkpoint is None and not is_exported(args.model):
        raise ValueError("--num-classes alone would make a head of random weights; give the --checkpoint that has one")


def pictures(args: argparse.Namespace, model: nn.Module, *, labelled: bool = True) -> Pictures:
    """The pictures asked for, with labels that fit the classes of the model, or without any; refused if it has no classes."""
    classes: Any = model.num_classes
    if not classes:
        raise ValueError(f"{args.model} has no classes, only features; give --num-classes N and a --checkpoint with a head")
    if not labelled:
        return unlabelled(args.data, skip_unreadable=args.skip_unreadable)
    return image_folder(args.data, class_map=args.class_map, num_classes=classes, skip_unreadable=args.skip_unreadable)


def noise(model: nn.Module, batch: int) -> Tensor:
    """A batch of noise, always the same, as a model takes pictures: speed does not depend on what they show."""
    size = data_config(model)["input_size"]
    return placed(torch.randn(batch, *size, generator=torch.Generator().manual_seed(0)), model)


def _engines(args: argparse.Namespace) -> Models:
    """Two exported files, each in its engine."""
    given = [name for name in ("checkpoint", "num_classes", "img_size", "config", "mode") if getattr(args, name) is not None]
    given += [f.name for f in dataclasses.fields(BATConfig) if getattr(args, f.name) is not None]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} comes too late: {args.model} is exported already; leave it out")
    if args.dense_file is None:
        raise ValueError(f"give --dense FILE, the dense model to compare {args.model} with: batvit export --dense writes it")
    args.device = args.device or "cpu"
    if args.device.partition(":")[0] != "cpu":
        raise ValueError(f"exported models run on the CPU, got --device {args.device}; give --device cpu")
    dense, reduced = (load_engine(path, precision=args.precision) for path in (args.dense_file, args.model))
    if dense.card.input_size != reduced.card.input_size or dense.num_classes != reduced.num_classes:
        raise ValueError(
            f"{args.dense_file} and {args.model} do not compare: images {dense.card.input_size} and {reduced.card.input_size}, "
            f"classes {dense.num_classes} and {reduced.num_classes}"
        )
    return Models(dense.eval(), reduced.eval(), reduced.card.config)
