"""Write a model for ONNX Runtime, OpenVINO or torch.export."""

import argparse
import random
from pathlib import Path

import torch

from batvit.cli import console, load_models, options
from batvit.data.folder import Pictures, unlabelled
from batvit.data.loading import loader
from batvit.deploy.export import check_target, export
from batvit.deploy.format import SUFFIXES, weights_beside
from batvit.deploy.pair import cost_of

CALIBRATION = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, file and configuration."""
    options.add_model(parser)
    parser.add_argument(
        "--format", choices=SUFFIXES, help="by default what the suffix of the file says"
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
    parser.add_argument("--opset", type=options.at_least(1), metavar="N", help="of ONNX")
    parser.add_argument(
        "--threads", type=options.at_least(1), metavar="N", help="CPU threads of torch"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="a folder of pictures: the file is compared with the model on them; on noise otherwise",
    )
    parser.add_argument(
        "--samples",
        type=options.at_least(1),
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
    output = Path(args.output)
    _check(args, output)
    pictures = None if args.data is None else _pictures(args)
    model = (
        load_models.load_dense(args, pretrained=True)
        if args.dense
        else load_models.load(args, pretrained=True).reduced
    )
    images = (
        None if pictures is None else [image for image, _ in loader(pictures, model, batch_size=1)]
    )
    calibration = images[args.samples :] if args.int8 and images is not None else None
    shown = None if images is None else torch.cat(images[: args.samples])
    done = export(
        model, output, name=args.model, images=shown, calibration=calibration, opset=args.opset
    )
    console.say(
        f"{output}: {args.model}, {'dense' if args.dense else 'reduced'}, {done.card.macs / 1e9:.3f} of "
        f"{done.card.dense_macs / 1e9:.3f} G MACs{', int8' if done.card.int8 else ''}\n"
        f"on {done.samples} {'pictures' if images is not None else 'images of noise'}: largest difference of a logit to torch "
        f"{done.largest_difference:.2g}, within 1e-3 {done.within:.1f} %, same class {done.agreement:.1f} %"
    )
    options.write_json(
        args.json,
        {
            "output": str(output),
            "samples": done.samples,
            "within": done.within,
            "agreement": done.agreement,
            "largest_difference": done.largest_difference,
            **cost_of(done.card),
        },
    )


def _check(args: argparse.Namespace, output: Path) -> None:
    if args.format is not None and output.suffix != SUFFIXES[args.format]:
        raise ValueError(
            f"--format {args.format} is written to a file ending in {SUFFIXES[args.format]}, got {output}"
        )
    if args.int8 and args.data is None:
        raise ValueError("--int8 needs pictures to calibrate on: give --data DIR")
    given = load_models.given(args, "mode", "config")
    if args.dense and given:
        raise ValueError(
            f"{given[0]} is about a reduction, and --dense leaves it out; give one of them"
        )
    check_target(output, opset=args.opset, int8=args.int8)
    options.check_outputs(args.json, output, weights_beside(output), keep=load_models.inputs(args))
    load_models.check_inputs(args)


def _pictures(args: argparse.Namespace) -> Pictures:
    """Some pictures of a folder, chosen by a fixed seed: those to compare on, then those to calibrate on."""
    pictures = unlabelled(args.data, skip_unreadable=args.skip_unreadable)
    if args.int8 and len(pictures) <= args.samples:
        raise ValueError(
            f"--int8 needs more pictures than the {args.samples} compared on; lower --samples, or give more"
        )
    random.Random(0).shuffle(pictures.samples)
    pictures.samples = pictures.samples[: args.samples + CALIBRATION * args.int8]
    return pictures
