"""Draw what becomes of each patch of a picture."""

import argparse
from pathlib import Path

import torch
from timm.data import create_transform

from batvit.cli import console, load_models, options
from batvit.data.loading import data_config, placed
from batvit.data.pictures import open_picture
from batvit.inspection.drawing import draw, from_tensor
from batvit.inspection.plot import plot_diversity
from batvit.inspection.tracing import diversity_by_block, trace
from batvit.storage.figures import FIGURE_FORMATS, PICTURE_FORMATS, save


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Picture, output, model and configuration."""
    options.add_model(parser)
    parser.add_argument("picture", metavar="PICTURE", help="a picture file")
    parser.add_argument(
        "-o", "--output", default="groups.png", metavar="FILE", help="the strip (groups.png)"
    )
    parser.add_argument(
        "--diversity",
        metavar="FILE",
        help="also plot the diversity of the tokens through the blocks",
    )
    options.add_device(parser)
    options.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Trace one picture and save the strip."""
    options.check_suffix("--output", args.output, PICTURE_FORMATS)
    options.check_suffix("--diversity", args.diversity, FIGURE_FORMATS)
    options.check_outputs(args.json, args.output, args.diversity, keep=load_models.inputs(args))
    image = open_picture(Path(args.picture))
    pair = load_models.load(args, pretrained=True)
    settings = data_config(pair.dense)
    tensor = create_transform(**settings)(image)
    batch = placed(tensor.unsqueeze(0), pair.dense)
    with trace(pair.reduced) as found, torch.inference_mode():
        pair.reduced(batch)
    save(draw(from_tensor(tensor, settings["mean"], settings["std"]), found), args.output)
    console.say(str(found))
    console.say(f"wrote {args.output}")
    wanted = ("dense", "reduced") if args.diversity or args.json else ()
    curves = {name: diversity_by_block(getattr(pair, name), batch) for name in wanted}
    if args.diversity:
        save(plot_diversity(curves), args.diversity)
        console.say(f"wrote {args.diversity}")
    options.write_json(
        args.json,
        {
            "model": args.model,
            "picture": args.picture,
            "config": pair.config,
            "grid": found.grid,
            "sites": [
                site.counts._asdict() | {"groups": site.origin.index[0].tolist()}
                for site in found.sites
            ],
            "diversity": curves,
        },
    )
