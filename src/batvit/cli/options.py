"""Options that several commands share, and what is made of them."""

import argparse
import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from batvit.cli.console import note
from batvit.cli.field_help import MODES, field_help, in_modes
from batvit.config.config import CHOICES, PER_SITE, SWITCHES, BATConfig
from batvit.config.presets import DEFAULT_MODE
from batvit.data.folder import Pictures
from batvit.plans import PLANS
from batvit.storage.files import check_writable, write_atomic
from batvit.storage.provenance import stamp

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def add_model(parser: argparse.ArgumentParser, name: str = "model") -> None:
    """Which model, where its weights are, and where the result goes."""
    parser.add_argument(name, metavar="MODEL", help="a timm model, such as deit_small_patch16_224")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="weights: .safetensors or .pth; timm's own otherwise"
    )
    parser.add_argument(
        "--num-classes",
        type=at_least(0),
        metavar="N",
        help="classes of the head, if not the model's own",
    )
    parser.add_argument(
        "--img-size",
        type=at_least(1),
        nargs="+",
        metavar="PX",
        help="height and width, or one for both, if not its own",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result here")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where and how it runs."""
    parser.add_argument(
        "--device",
        help="cpu, cuda, cuda:1, …; by default the GPU if there is one, for exported files the CPU",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of weights and pictures (fp32)"
    )
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="CPU threads of torch")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Which pictures."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="a folder with one sub-folder of pictures a class",
    )
    parser.add_argument(
        "--class-map", metavar="FILE", help="text file with all folder names in label order"
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out files that are no pictures or cut short; decodes all twice",
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), default=32, metavar="B", help="pictures a batch (32)"
    )
    parser.add_argument(
        "--workers",
        type=at_least(0),
        default=0,
        metavar="N",
        help="processes that decode pictures (0)",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Every field of BATConfig, its help from the line under the field."""
    group = parser.add_argument_group(
        "reduction", "fields of BATConfig; without any, those saved beside the checkpoint"
    )
    group.add_argument("--config", metavar="FILE", help="a BATConfig as JSON")
    default = f"preset ({DEFAULT_MODE.replace('_', '-')})"
    group.add_argument(
        "--mode", type=lambda text: text.replace("_", "-"), choices=tuple(MODES), help=default
    )
    choices = CHOICES | {"method": tuple(PLANS)}
    for name, text in field_help(BATConfig).items():
        option = "--" + name.replace("_", "-")
        text += in_modes(name)
        if name in SWITCHES:
            group.add_argument(
                option, action=argparse.BooleanOptionalAction, default=None, help=text
            )
        elif name in choices:
            group.add_argument(option, choices=choices[name], help=text)
        else:
            group.add_argument(
                option, type=_numbers, metavar="N[,N…]" if name in PER_SITE else "N", help=text
            )


def config(args: argparse.Namespace) -> BATConfig:
    """The configuration that the options describe, or the one found beside the checkpoint."""
    fields = {
        f.name: getattr(args, f.name)
        for f in dataclasses.fields(BATConfig)
        if getattr(args, f.name) is not None
    }
    for name in ("tokens", "blocks"):
        if name in fields and not isinstance(fields[name], tuple):
            fields[name] = (fields[name],)
    if args.config is not None:
        if args.mode is not None:
            raise ValueError("give --config or --mode, not both")
        return BATConfig.load(args.config).with_fields(**fields)
    saved = None if args.checkpoint is None else BATConfig.beside(args.checkpoint)
    if saved is not None:
        beside = BATConfig.path_beside(args.checkpoint)
        if args.mode is None and not fields:
            note(f"configuration from {beside}")
            return saved
        note(f"reduction options are given, so {beside} is not used")
    return BATConfig.preset(args.mode or DEFAULT_MODE, **fields)


def weights(args: argparse.Namespace) -> list[int] | None:
    """What tells the weights from others, if they are a file's."""
    return None if args.checkpoint is None else stamp(args.checkpoint)


def stamped(pictures: Pictures) -> list[Any]:
    """What tells pictures from others: their files and labels."""
    return [[str(path), label, *stamp(path)] for path, label in pictures.samples]


def image_size(args: argparse.Namespace) -> tuple[int, int] | None:
    """(height, width) if one was given; one number stands for both."""
    if args.img_size is None:
        return None
    if len(args.img_size) > 2:
        raise ValueError(
            f"--img-size takes one or two numbers, got {' '.join(map(str, args.img_size))}"
        )
    return args.img_size[0], args.img_size[-1]


def check_outputs(*paths: str | Path | None, keep: Sequence[str | Path] = ()) -> None:
    """Refuse output files that cannot be written, or would overwrite one another or a file to keep, before any work."""
    taken = {Path(path).resolve() for path in keep}
    for path in paths:
        if path is not None:
            wanted = check_writable(path).resolve()
            if wanted in taken:
                raise ValueError(
                    f"{path} would overwrite what is read or written beside it; name another file"
                )
            taken.add(wanted)


def check_suffix(option: str, path: str | None, known: Iterable[str]) -> None:
    """Refuse an output file whose suffix names no known format."""
    if path is not None and Path(path).suffix.lower() not in known:
        raise ValueError(f"{option} {path}: the suffix must be one of {', '.join(known)}")


def write_json(path: str | Path | None, result: dict[str, Any]) -> None:
    """Write a result, if a file was asked for."""
    if path is not None:
        write_atomic(path, json.dumps(result, indent=2) + "\n")


def evenly(things: list[Any], number: int | None) -> list[Any]:
    """So many of them, at equal distances; all if there are no more."""
    if number is None or number >= len(things):
        return things
    return [things[i * len(things) // number] for i in range(number)]


def at_least(least: int) -> Callable[[str], int]:
    """What argparse takes for the type of an option that counts something."""

    def number(text: str) -> int:
        if not text.strip().removeprefix("+").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"expected an integer of {least} or more, got {text!r}"
            )
        return int(text)

    return number


def _numbers(text: str) -> Any:
    """One number or several with commas: an integer stays one, so that counts and shares are told apart."""
    try:
        values = [
            int(part) if part.strip().lstrip("+-").isdigit() else float(part)
            for part in text.split(",")
        ]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number, or several with commas, got {text!r}"
        ) from None
    return values[0] if len(values) == 1 else tuple(values)


def torch_device(name: str) -> torch.device:
    """The device of that name, if it can be used here."""
    try:
        device = torch.device(name)
        # only what computes has a value
        torch.zeros(1, device=device).item()
    except Exception as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" …")
        raise ValueError(
            f"--device {name} cannot be used here ({reason}); give another, such as cpu"
        ) from error
    return device


def macs(text: str) -> float:
    """Read MACs such as 0.8G, or a share of the dense model's."""
    units = {"G": 1e9, "M": 1e6}
    number, unit = (
        (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1.0)
    )
    try:
        value = float(number) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected MACs such as 0.8G or 620M, or a share such as 0.5, got {text!r}"
        ) from None
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text!r}")
    if 1 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"{value:g} MACs; did you mean {number}G?")
    return value
