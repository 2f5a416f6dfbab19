"""Write a model for ONNX Runtime, OpenVINO or torch.export."""

import argparse
from pathlib import Path
from typing import Any

from batvit.cli import console, numbers, options
from batvit.deploy.formats import FORMATS, files_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, file and configuration."""
    options.add_model(parser)
    parser.add_argument(
        "--format", choices=FORMATS, help="by default what the suffix of the file says"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a new .onnx, .xml (OpenVINO) or .pt2 file",
    )
    parser.add_argument(
        "--dense", action="store_true", help="write the model as it is, to compare with"
    )
    parser.add_argument(
        "--int8", action="store_true", help="quantise, calibrated on --data (OpenVINO)"
    )
    parser.add_argument("--opset", type=numbers.at_least(1), metavar="N", help="of ONNX")
    options.add_threads(parser)
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="a folder of pictures: the file is compared with the model on them; "
        "on noise otherwise",
    )
    parser.add_argument(
        "--samples",
        type=numbers.at_least(1),
        default=50,
        metavar="N",
        help="how many of them at most (50)",
    )
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out pictures that cannot be read"
    )
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Write the file, then say how it compares."""
    from batvit.cli import load_models
    from batvit.deploy.export import export
    from batvit.deploy.pair import cost_of

    output = Path(args.output)
    _check(args, output)
    images, calibration = _pictures(args)
    if args.dense:
        model = load_models.load_dense(args, pretrained=True)
    else:
        model = load_models.load(args, pretrained=True).reduced
    with console.working(f"exporting to {output}, and comparing with torch"):
        exported = export(
            model,
            output,
            name=args.model,
            images=images,
            calibration=calibration,
            opset=args.opset,
        )
    console.say(_summary(args, exported))
    options.write_json(
        args.json,
        {
            "output": str(output),
            "samples": exported.samples,
            "within": exported.within,
            "agreement": exported.agreement,
            "largest_difference": exported.largest_difference,
            **cost_of(exported.metadata),
        },
    )


def _pictures(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the pictures to compare on, and those to calibrate on; None where none are."""
    from batvit.cli import load_models
    from batvit.data.folder import unlabelled
    from batvit.deploy.pictures import choose_pictures

    if args.data is None:
        return None, None
    with console.working(f"looking at the pictures of {args.data}"):
        pictures = unlabelled(args.data, skip_unreadable=args.skip_unreadable)
    load_models.note_others(args.data, pictures)
    return choose_pictures(pictures, samples=args.samples, int8=args.int8)


def _check(args: argparse.Namespace, output: Path) -> None:
    """Refuse what cannot be written before a model is made."""
    from batvit.cli import load_models
    from batvit.deploy.export import check_target

    if args.format is not None and output.suffix != FORMATS[args.format].suffix:
        raise ValueError(
            f"--format {args.format} is written to a file ending in "
            f"{FORMATS[args.format].suffix}, got {output}"
        )
    if args.int8 and args.data is None:
        raise ValueError("--int8 needs pictures to calibrate on: give --data DIR")
    given = load_models.typed(args, "mode", "config")
    if args.dense and given:
        raise ValueError(
            f"{given[0]} is about a reduction, and --dense leaves it out; give one of them"
        )
    check_target(output, opset=args.opset, int8=args.int8)
    options.check_outputs(args.json, *files_of(output), keep=load_models.inputs(args))
    load_models.check_inputs(args)


def _summary(args: argparse.Namespace, exported: Any) -> str:
    """Return the two lines that say what was written and how it compares."""
    metadata = exported.metadata
    kind = "dense" if args.dense else "reduced"
    int8 = ", int8" if metadata.int8 else ""
    images = "images of noise" if args.data is None else "pictures"
    return (
        f"{exported.path}: {args.model}, {kind}, {metadata.macs / 1e9:.3f} of "
        f"{metadata.dense_macs / 1e9:.3f} G MACs{int8}\n"
        f"on {exported.samples} {images}: largest difference of a logit to torch "
        f"{exported.largest_difference:.2g}, within 1e-3 {exported.within:.1f} %, "
        f"same class {exported.agreement:.1f} %"
    )
