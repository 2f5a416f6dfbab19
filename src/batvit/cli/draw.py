"""Draw what becomes of each patch of a picture."""

import argparse
from pathlib import Path
from typing import Any

from batvit.cli import console, options


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
    from batvit.cli import load_models
    from batvit.data.loading import prepared
    from batvit.data.pictures import open_picture
    from batvit.inspection.groups import groups_of
    from batvit.storage.pictures import save_picture

    _check_outputs(args)
    picture = open_picture(Path(args.picture))
    models = load_models.load(args, pretrained=True)
    image = prepared(picture, models.dense)
    groups = groups_of(models.reduced, image, name="the reduced model")
    save_picture(groups.drawing, args.output)
    console.say(str(groups.trace))
    console.say(f"wrote {args.output}")
    options.write_json(
        args.json,
        {
            "model": args.model,
            "picture": args.picture,
            "config": models.config,
            **groups.trace.to_dict(),
            "diversity": _diversity(args, models, image),
        },
    )


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse files that cannot be written before anything is loaded."""
    from batvit.cli import load_models
    from batvit.storage.formats import FIGURE_FORMATS, PICTURE_FORMATS

    options.check_suffix("--output", args.output, PICTURE_FORMATS)
    options.check_suffix("--diversity", args.diversity, FIGURE_FORMATS)
    options.check_outputs(args.json, args.output, args.diversity, keep=load_models.inputs(args))


def _diversity(args: argparse.Namespace, models: Any, image: Any) -> dict[str, list[float]]:
    """Measure the diversity of both models if it is asked for, and plot it where it shall go."""
    from batvit.inspection.tracing import diversity_by_block

    if not args.diversity and not args.json:
        return {}
    curves = {
        "dense": diversity_by_block(models.dense, image),
        "reduced": diversity_by_block(models.reduced, image),
    }
    if args.diversity:
        from batvit.inspection.plot import plot_diversity
        from batvit.storage.figures import save

        save(plot_diversity(curves), args.diversity)
        console.say(f"wrote {args.diversity}")
    return curves
