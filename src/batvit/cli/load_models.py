"""The models that a command works on: made by timm, or exported before."""

import argparse
import copy
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from batvit.backbones.patch import patch, unpatch
from batvit.cli import options
from batvit.config.config import BATConfig
from batvit.data.folder import Pictures, image_folder, read_class_map, unlabelled
from batvit.data.loading import data_config, placed
from batvit.deploy.format import Engine
from batvit.deploy.formats import files_of, is_exported
from batvit.deploy.load import load_engine
from batvit.deploy.metadata import PREPROCESSING, ExportMetadata
from batvit.inspection.summary import info
from batvit.models.create import create_model
from batvit.storage.files import check_there


class Models(NamedTuple):
    """The model asked for, as it is and reduced."""

    dense: nn.Module
    reduced: nn.Module
    config: dict[str, Any] | None
    """of the reduced one"""

    @property
    def runtime(self) -> str:
        """What runs them, with its version."""
        if not (isinstance(self.dense, Engine) and isinstance(self.reduced, Engine)):
            return f"torch {torch.__version__}"
        dense, reduced = self.dense.runtime, self.reduced.runtime
        return reduced if dense == reduced else f"{dense} dense, {reduced} reduced"

    @property
    def cost(self) -> dict[str, Any]:
        """What they cost, with timm's names: of a file, as it says itself."""
        if isinstance(self.reduced, Engine):
            return cost_of(self.reduced.metadata)
        return {
            name: value
            for name, value in info(self.reduced).to_dict().items()
            if name not in ("blocks", "prefix_tokens")
        }


def cost_of(metadata: ExportMetadata) -> dict[str, Any]:
    """What an exported file costs, as it says itself, with timm's names."""
    return {
        "model": metadata.model,
        "img_size": metadata.input_size[1:],
        "param_count": metadata.param_count,
        "config": metadata.config,
        "gmacs": metadata.macs / 1e9,
        "dense_gmacs": metadata.dense_macs / 1e9,
        "mac_ratio": metadata.dense_macs / metadata.macs,
        "int8": metadata.int8,
    }


def given(args: argparse.Namespace, *names: str) -> list[str]:
    """Which options of these names, and which fields of a configuration, were given."""
    fields = [field.name for field in dataclasses.fields(BATConfig)]
    return [
        f"--{name.replace('_', '-')}"
        for name in (*names, *fields)
        if getattr(args, name) is not None
    ]


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
        raise ValueError(
            f"--dense goes with an exported MODEL, a .onnx, .xml or .pt2 file; got {args.model}"
        )
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


def inputs(args: argparse.Namespace) -> list[str | Path]:
    """The files that a command reads, which no output may overwrite."""
    names = ("checkpoint", "config", "class_map", "dense_file", "teacher", "picture")
    files = [getattr(args, name) for name in names if getattr(args, name, None) is not None]
    exported = [
        path
        for path in (args.model, getattr(args, "dense_file", None))
        if path is not None and is_exported(path)
    ]
    beside = [BATConfig.path_beside(args.checkpoint)] if args.checkpoint is not None else []
    return [*files, *beside, *(file for path in exported for file in files_of(path))]


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse, before anything is made, pictures that are not there, and a head of random weights where its logits count."""
    if args.data is not None:
        check_there(Path(args.data))
    class_map = getattr(args, "class_map", None)
    if class_map is not None:
        read_class_map(Path(class_map))
    if not args.num_classes or args.checkpoint is not None or is_exported(args.model):
        return
    if args.num_classes != _own_classes(args.model):
        raise ValueError(
            "--num-classes alone would make a head of random weights; give the --checkpoint that has one"
        )


def _own_classes(name: str) -> int | None:
    """How many classes the weights have that timm downloads for a name, if it knows any."""
    try:
        known = get_pretrained_cfg(name)
    except RuntimeError:
        # to make the model says what is wrong with the name
        return None
    return None if known is None else known.num_classes


def pictures(args: argparse.Namespace, model: nn.Module, *, labelled: bool = True) -> Pictures:
    """The pictures asked for, with labels that fit the classes of the model, or without any; refused if it has no classes."""
    classes: Any = model.num_classes
    if not classes:
        raise ValueError(
            f"{args.model} has no classes, only features; give --num-classes N and a --checkpoint with a head"
        )
    if not labelled:
        return unlabelled(args.data, skip_unreadable=args.skip_unreadable)
    return image_folder(
        args.data,
        class_map=args.class_map,
        num_classes=classes,
        skip_unreadable=args.skip_unreadable,
    )


def noise(model: nn.Module, batch: int) -> Tensor:
    """A batch of noise, always the same, as a model takes pictures: speed does not depend on what they show."""
    size = data_config(model)["input_size"]
    return placed(torch.randn(batch, *size, generator=torch.Generator().manual_seed(0)), model)


def _engines(args: argparse.Namespace) -> Models:
    """Two exported files, each in its engine."""
    late = given(args, "checkpoint", "num_classes", "img_size", "config", "mode")
    if late:
        raise ValueError(
            f"{late[0]} comes too late: {args.model} is exported already; leave it out"
        )
    if args.dense_file is None:
        raise ValueError(
            f"give --dense FILE, the dense model to compare {args.model} with: batvit export --dense writes it"
        )
    args.device = args.device or "cpu"
    if args.device.partition(":")[0] != "cpu":
        raise ValueError(
            f"exported models run on the CPU, got --device {args.device}; give --device cpu"
        )
    dense, reduced = (
        load_engine(path, precision=args.precision) for path in (args.dense_file, args.model)
    )
    _check_pair(args, dense.metadata, reduced.metadata)
    computed = ["int8" if engine.metadata.int8 else args.precision for engine in (dense, reduced)]
    args.precision = (
        computed[0] if len(set(computed)) == 1 else f"{computed[0]} dense, {computed[1]} reduced"
    )
    return Models(dense.eval(), reduced.eval(), reduced.metadata.config)


def _check_pair(args: argparse.Namespace, dense: ExportMetadata, reduced: ExportMetadata) -> None:
    """Refuse two files that are not one model without a reduction and with one."""
    if dense.config is not None:
        raise ValueError(
            f"--dense {args.dense_file} is a reduced model; give one that batvit export --dense wrote"
        )
    for name in ("input_size", "num_classes", "dense_macs", "param_count", *PREPROCESSING):
        one, other = getattr(dense, name), getattr(reduced, name)
        if one != other:
            raise ValueError(
                f"{args.dense_file} and {args.model} do not compare: {name} is {one} and {other}"
            )
