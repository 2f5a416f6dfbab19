"""The models and pictures that a command works on, as its options say.

A model is made by timm, or was exported before.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batvit.checks import PRECISIONS
from batvit.cli import console, options
from batvit.config import BATConfig
from batvit.storage.files import check_there

if TYPE_CHECKING:
    import torch

    import batvit.data.folder


class Models(NamedTuple):
    """The model asked for, as it is and reduced."""

    dense: "torch.nn.Module"
    reduced: "torch.nn.Module"
    config: dict[str, Any] | None
    """of the reduced one"""
    runtime: str
    """what runs them, with its version"""
    device: str
    precision: str
    """what they compute in"""

    @property
    def cost(self) -> dict[str, Any]:
        """MACs and parameters, with timm's names; an exported file says them itself."""
        from batvit.deploy.format import Engine
        from batvit.deploy.pair import cost_of
        from batvit.inspection.summary import info

        if isinstance(self.reduced, Engine):
            return cost_of(self.reduced.metadata)
        cost = info(self.reduced).to_dict()
        del cost["blocks"]
        del cost["prefix_tokens"]
        return cost


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the dense file that goes with an exported model."""
    text = "beside an exported MODEL (.onnx, .xml, .pt2): the dense model, exported"
    parser.add_argument("--dense", dest="dense_file", metavar="FILE", help=text)


def load(args: argparse.Namespace, *, pretrained: bool) -> Models:
    """Return the dense model and a reduced copy, on their device and in their precision."""
    import torch

    from batvit.backbones.patch import reduced_copy
    from batvit.deploy.formats import is_exported

    takes_files = hasattr(args, "dense_file")
    if takes_files and is_exported(args.model):
        return _load_files(args)
    if takes_files and args.dense_file is not None:
        raise ValueError(
            f"--dense goes with an exported MODEL, a .onnx, .xml or .pt2 file; got {args.model}"
        )
    config = options.config(args)
    dense = load_dense(args, pretrained=pretrained)
    return Models(
        dense=dense,
        reduced=reduced_copy(dense, config),
        config=config.to_dict(),
        runtime=f"torch {torch.__version__}",
        device=device_of(args),
        precision=_precision(args),
    )


def load_dense(args: argparse.Namespace, *, pretrained: bool) -> "torch.nn.Module":
    """Return the dense model alone, on its device and in its precision."""
    import torch

    from batvit.backbones.patch import unpatch
    from batvit.models.create import create_model

    set_threads(args)
    device = options.torch_device(device_of(args))
    dtype: torch.dtype = getattr(torch, PRECISIONS[_precision(args)])
    with console.working(f"making {args.model}"):
        dense = create_model(
            args.model,
            checkpoint=args.checkpoint,
            pretrained=pretrained,
            num_classes=args.num_classes,
            image_size=options.image_size(args),
        )
    return unpatch(dense.to(device=device, dtype=dtype).eval())


def inputs(args: argparse.Namespace) -> list[str | Path]:
    """Return the files that a command reads, which no output may overwrite."""
    from batvit.deploy.formats import files_of, is_exported

    files: list[str | Path] = []
    for name in ("checkpoint", "config", "class_map", "dense_file", "teacher", "picture"):
        path = getattr(args, name, None)
        if path is not None:
            files.append(path)
    if args.checkpoint is not None:
        files.append(BATConfig.path_beside(args.checkpoint))
    for path in (args.model, getattr(args, "dense_file", None)):
        if path is not None and is_exported(path):
            files += files_of(path)
    return files


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse, before a model is made, what no result can come from.

    Raises:
        FileNotFoundError, ValueError: if pictures or class map are not there, or the head of the
            model would have random weights.
    """
    from batvit.data.folder import read_class_map
    from batvit.deploy.formats import is_exported

    if args.data is not None:
        check_there(Path(args.data))
    class_map = getattr(args, "class_map", None)
    if class_map is not None:
        read_class_map(Path(class_map))
    has_weights = args.checkpoint is not None or is_exported(args.model)
    if has_weights or not args.num_classes:
        return
    if args.num_classes != _own_classes(args.model):
        raise ValueError(
            "--num-classes alone would make a head of random weights; "
            "give the --checkpoint that has one"
        )


def pictures(
    args: argparse.Namespace, model: "torch.nn.Module", *, labelled: bool = True
) -> "batvit.data.folder.Pictures":
    """Return the pictures asked for, with labels that fit the classes of the model, or without.

    Raises:
        ValueError: if the model has no classes, or the pictures do not fit them.
    """
    from batvit.data.folder import image_folder, unlabelled

    classes: Any = model.num_classes
    if not classes:
        raise ValueError(
            f"{args.model} has no classes, only features; "
            "give --num-classes N and a --checkpoint with a head"
        )
    with console.working(f"looking at the pictures of {args.data}"):
        if labelled:
            found = image_folder(
                args.data,
                class_map=args.class_map,
                num_classes=classes,
                skip_unreadable=args.skip_unreadable,
            )
        else:
            found = unlabelled(args.data, skip_unreadable=args.skip_unreadable)
    note_others(args.data, found)
    return found


def note_others(data: str, *found: "batvit.data.folder.Pictures") -> None:
    """Say which files of a folder were left out because they are no pictures by their suffix."""
    others = [path for pictures in found for path in pictures.others]
    if others:
        console.note(
            f"{data}: {len(others)} other files are left out, as no picture ends like them, "
            f"the first is {others[0]}"
        )


def typed(args: argparse.Namespace, *names: str) -> list[str]:
    """Return which of these options, and which fields of BATConfig, were given, as typed."""
    fields = [field.name for field in dataclasses.fields(BATConfig)]
    return [f"--{name.replace('_', '-')}" for name in options.given(args, (*names, *fields))]


def _load_files(args: argparse.Namespace) -> Models:
    """Return two exported files, each in its engine."""
    from batvit.deploy.pair import load_pair, precision_of_pair, runtime_of_pair

    too_late = typed(args, "checkpoint", "num_classes", "img_size", "config", "mode")
    if too_late:
        raise ValueError(
            f"{too_late[0]} comes too late: {args.model} is exported already; leave it out"
        )
    if args.dense_file is None:
        raise ValueError(
            f"give --dense FILE, the dense model to compare {args.model} with: "
            "batvit export --dense writes it"
        )
    device = args.device or "cpu"
    if device.partition(":")[0] != "cpu":
        raise ValueError(
            f"exported models run on the CPU, got --device {device}; give --device cpu"
        )
    # an engine takes as many threads as torch has
    set_threads(args)
    with console.working(f"loading {args.model}"):
        dense, reduced = load_pair(args.dense_file, args.model, precision=args.precision)
    return Models(
        dense=dense,
        reduced=reduced,
        config=reduced.metadata.config,
        runtime=runtime_of_pair(dense, reduced),
        device=device,
        precision=precision_of_pair(dense, reduced, precision=args.precision),
    )


def device_of(args: argparse.Namespace) -> str:
    """Return the device that was asked for, or the best; the CPU for a command that asks for none.

    torch calls every GPU cuda.
    """
    import torch

    if not hasattr(args, "device"):
        return "cpu"
    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _precision(args: argparse.Namespace) -> str:
    """Return the precision that was asked for; fp32 for a command that asks for none."""
    return getattr(args, "precision", "fp32")


def set_threads(args: argparse.Namespace) -> None:
    """Let torch take as many threads as were asked for, if any were."""
    import torch

    threads = getattr(args, "threads", None)
    if threads is not None:
        torch.set_num_threads(threads)


def _own_classes(name: str) -> int | None:
    """Return how many classes the weights have that timm downloads for a name, if it knows any."""
    from timm.models import get_pretrained_cfg

    try:
        pretrained = get_pretrained_cfg(name)
    except RuntimeError:
        # making the model says what is wrong with the name
        return None
    return None if pretrained is None else pretrained.num_classes
