"""Options that several commands share, and what is made of them."""

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batvit.checks import PRECISIONS
from batvit.cli import numbers
from batvit.cli.console import note
from batvit.config import BATConfig
from batvit.config.choice import choose
from batvit.config.config import CHOICES, PER_SITE, SWITCHES, USUAL_FIELDS
from batvit.config.field_help import field_help, preset_values
from batvit.config.presets import DEFAULT_MODE, PRESETS
from batvit.storage.files import check_writable, write_atomic
from batvit.storage.reading import real_path

if TYPE_CHECKING:
    import torch


# one row a preset, which must fit beside the options in a terminal of 80 columns
MODE_HELP = f"""preset ({DEFAULT_MODE}):
paper: to fine-tune, or to reproduce; needs training
training-free: weights as they are; slower attention
gradual: the same, more accurate; slow at batch 1"""
# of these one number is a site of its own
COUNTED_BY_SITE = ("tokens", "blocks")
METHODS = (
    *("bat", "topk", "evit", "random", "ats", "diffrate", "tome", "pitome", "tofu", "mctf"),
    *("dpcknn", "kmedoids", "atc", "atc_complete", "atc_single"),
)
"""the names of the plans, for the help: to load the plans takes torch"""


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """Add which model, where its weights are, and where the result goes."""
    parser.add_argument(name, metavar="MODEL", help="a timm model, such as deit_small_patch16_224")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="weights: .safetensors or .pth; timm's own otherwise"
    )
    parser.add_argument(
        "--num-classes",
        type=numbers.at_least(0, numbers.MOST_CLASSES),
        metavar="N",
        help="classes of the head, if not the model's own",
    )
    parser.add_argument(
        "--img-size",
        type=numbers.at_least(1),
        nargs="+",
        metavar="PX",
        help="height and width, or one for both, if not its own",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add where and how the model runs."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, …; by default the GPU if there is one, for exported files the CPU",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of weights and pictures (fp32)",
    )
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add how many threads torch takes."""
    parser.add_argument(
        "--threads",
        type=numbers.at_least(1, numbers.MOST_THREADS),
        metavar="N",
        help="CPU threads of torch",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add which pictures."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="a folder with one sub-folder of pictures a class",
    )
    add_reading(parser)
    parser.add_argument(
        "--batch-size",
        type=numbers.at_least(1, numbers.MOST_BATCH),
        default=32,
        metavar="B",
        help="pictures a batch (32)",
    )
    parser.add_argument(
        "--workers",
        type=numbers.at_least(0, numbers.MOST_THREADS),
        default=0,
        metavar="N",
        help="processes that decode pictures (0)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how folders become labels, and what is done with files that are no pictures."""
    parser.add_argument(
        "--class-map", metavar="FILE", help="text file with all folder names in label order"
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out files that are no pictures or cut short; decodes all twice",
    )


def add_output(parser: argparse.ArgumentParser, folder: str, *, resumed: str) -> None:
    """Add the folder of the result, described so, and going on with what was begun there."""
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help=folder)
    parser.add_argument(
        "--resume", action="store_true", help=f"go on with the {resumed} in the output folder"
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add every field of BATConfig, those that most users set apart from the others."""
    usual = parser.add_argument_group(
        "reduction", "fields of BATConfig; without any, those saved beside the checkpoint"
    )
    usual.add_argument("--config", metavar="FILE", help="a BATConfig as JSON")
    usual.add_argument("--mode", type=_mode_name, choices=tuple(PRESETS), help=MODE_HELP)
    research = parser.add_argument_group(
        "reduction, for research", "the other fields of BATConfig, which a preset sets well"
    )
    for name, text in field_help(BATConfig).items():
        if name == "method":
            text = f"{text}; one of {', '.join(METHODS)}"
        group = usual if name in USUAL_FIELDS else research
        _add_field(group, name, text + preset_values(name))


def _add_field(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    option = "--" + name.replace("_", "-")
    if name in SWITCHES:
        group.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif name in CHOICES:
        group.add_argument(option, choices=CHOICES[name], help=text)
    elif name == "method":
        group.add_argument(option, metavar="NAME", help=text)
    else:
        metavar = "N[,N…]" if name in PER_SITE else "N"
        kind = numbers.several if name in COUNTED_BY_SITE else numbers.numbers
        group.add_argument(option, type=kind, metavar=metavar, help=text)


def config(args: argparse.Namespace) -> BATConfig:
    """Return the configuration that the options describe, or that beside the checkpoint.

    Raises:
        ValueError, TypeError: naming the field, or the plan that is not known.
    """
    return chosen_config(given_config(args), args.checkpoint)


def given_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of a preset, a file of one, and fields of BATConfig."""
    fields = [field.name for field in dataclasses.fields(BATConfig)]
    return given(args, ["config", "mode", *fields])


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return the options of these names that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def chosen_config(choices: Mapping[str, Any], checkpoint: str | None) -> BATConfig:
    """Return the configuration of choices, and say what became of that beside the checkpoint.

    Raises:
        ValueError, TypeError: naming the field, or the plan that is not known.
    """
    from batvit.reduction.schedule import check_method

    found, remark = choose(choices, checkpoint)
    if remark is not None:
        note(remark)
    check_method(found.method)
    return found


def weights(args: argparse.Namespace) -> list[int] | None:
    """Return what tells the weights from others at the same path; None if they are no file's."""
    from batvit.storage.provenance import stamp

    return None if args.checkpoint is None else stamp(args.checkpoint)


def image_size(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return (height, width) if a size was given; one number stands for both."""
    if args.img_size is None:
        return None
    if len(args.img_size) > 2:
        sizes = " ".join(map(str, args.img_size))
        raise ValueError(f"--img-size takes one or two numbers, got {sizes}")
    height, width = args.img_size[0], args.img_size[-1]
    if height * width > numbers.MOST_PIXELS:
        raise ValueError(
            f"--img-size {height} {width} has more than {numbers.MOST_PIXELS:,} pixels; "
            "give a smaller one"
        )
    return height, width


def torch_device(name: str) -> "torch.device":
    """Return the device of that name.

    Raises:
        ValueError: if it cannot be used here.
    """
    import torch

    try:
        device = torch.device(name)
        # only a device that computes has a value to give
        torch.zeros(1, device=device).item()
    except Exception as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" …")
        raise ValueError(
            f"--device {name} cannot be used here ({reason}); give another, such as cpu"
        ) from error
    return device


def check_outputs(*paths: str | Path | None, keep: Sequence[str | Path] = ()) -> None:
    """Refuse output files before any work is done for them.

    Args:
        paths: where something is to be written; None where nothing is.
        keep: files that are read, and must not be overwritten.

    Raises:
        ValueError, OSError: if one cannot be written, or is another output or a file to keep.
    """
    taken = {real_path(path) for path in keep}
    for path in paths:
        if path is None:
            continue
        target = real_path(check_writable(path))
        if target in taken:
            raise ValueError(
                f"{path} would overwrite what is read or written beside it; name another file"
            )
        taken.add(target)


def kept_in(folder: str, what: str, *, inside: str = "") -> str:
    """Say what an interrupted command left in its folder, and how it goes on.

    Args:
        folder: of the result.
        what: it is.
        inside: where in the folder it lies.
    """
    place = Path(folder, inside)
    found = [path for path in place.glob("*") if not path.name.startswith(".")]
    if not found:
        return "nothing was written"
    return f"{place} keeps {what}; go on with --resume"


def check_suffix(option: str, path: str | None, allowed: Iterable[str]) -> None:
    """Refuse an output file whose suffix names no known format."""
    if path is not None and Path(path).suffix.lower() not in allowed:
        raise ValueError(f"{option} {path}: the suffix must be one of {', '.join(allowed)}")


def write_json(path: str | Path | None, result: dict[str, Any]) -> None:
    """Write a result, if a file was asked for."""
    if path is not None:
        write_atomic(path, json.dumps(result, indent=2) + "\n")


def _mode_name(text: str) -> str:
    """Read the name of a preset, which may be written as in Python."""
    return text.replace("_", "-")
