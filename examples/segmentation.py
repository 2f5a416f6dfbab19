"""Dense prediction with fewer tokens: a linear segmentation head on a frozen Vision Transformer, dense beside reduced.

The pictures are collages: four photographs a canvas, cut at random places that do not respect the patches, and the label of
a pixel is the class of the photograph that it is from. Train and held-out canvases are made of different photographs. On
a reduced model ``forward_intermediates`` gives maps of the full grid, so nothing here depends on whether it is patched.

    python examples/segmentation.py --data FOLDER_OF_CLASS_FOLDERS --checkpoint deit_tiny_patch16_224.safetensors
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, one_hot
from torchvision.transforms.functional import normalize, pil_to_tensor

import batvit
from batvit.data.folder import image_folder
from batvit.data.loading import data_config
from batvit.data.pictures import open_picture
from batvit.models.create import create_model

Photographs = Sequence[Sequence[Path]]
HELD_OUT = 4  # one photograph of so many


def photographs(root: str, classes: int, rng: random.Random) -> tuple[Photographs, Photographs]:
    """Paths by class, to train on and held out, of so many classes spread evenly over the folders of ``root``."""
    pictures = image_folder(root)
    if not 2 <= classes <= len(pictures.classes):
        raise ValueError(
            f"{root}: has {len(pictures.classes)} class folders; --classes must lie between 2 and that"
        )
    train, held_out = [], []
    for label in (i * len(pictures.classes) // classes for i in range(classes)):
        paths = [path for path, other in pictures.samples if other == label]
        if len(paths) < HELD_OUT:
            raise ValueError(
                f"{root}: {pictures.classes[label]} holds {len(paths)} pictures; {HELD_OUT} are needed at least"
            )
        rng.shuffle(paths)
        cut = len(paths) // HELD_OUT
        train.append(paths[cut:])
        held_out.append(paths[:cut])
    return train, held_out


def canvases(
    photos: Photographs, count: int, height: int, width: int, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Collages (N, 3, H, W) and their labels (N, H, W), as bytes: an upper and a lower strip, each cut in two."""
    images, labels = [], torch.empty(count, height, width, dtype=torch.uint8)
    for n in range(count):
        image, row = (
            Image.new("RGB", (width, height)),
            rng.randint(height // 4, height - height // 4),
        )
        for top, bottom in ((0, row), (row, height)):
            column = rng.randint(width // 4, width - width // 4)
            for left, right in ((0, column), (column, width)):
                label = rng.randrange(len(photos))
                photo = open_picture(rng.choice(photos[label]))
                image.paste(ImageOps.fit(photo, (right - left, bottom - top)), (left, top))
                labels[n, top:bottom, left:right] = label
        images.append(pil_to_tensor(image))
    return torch.stack(images), labels


@torch.no_grad()
def features(model: Any, images: Tensor, batch_size: int = 25) -> Tensor:
    """The last feature map of every image (N, C, rows, columns), normalised as a head would read it."""
    settings, maps = data_config(model), []
    for batch in images.split(batch_size):
        x = normalize(batch / 255, settings["mean"], settings["std"])
        maps += model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    return torch.cat(maps)


def train_head(maps: Tensor, labels: Tensor, classes: int, epochs: int) -> nn.Module:
    """A 1 x 1 convolution that tells, for each patch, what share of it each class has."""
    patch = labels.shape[-2] // maps.shape[-2], labels.shape[-1] // maps.shape[-1]
    shares = torch.cat(
        [
            avg_pool2d(one_hot(y.long(), classes).movedim(-1, 1).float(), patch)
            for y in labels.split(25)
        ]
    )
    head = nn.Conv2d(maps.shape[1], classes, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(maps)).split(16):
            optimizer.zero_grad()
            cross_entropy(head(maps[batch]), shares[batch]).backward()
            optimizer.step()
    return head


@torch.no_grad()
def evaluate(head: nn.Module, maps: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Pixel accuracy and mean intersection over union, both in percent; logits are upsampled to the pixels."""
    confusion = torch.zeros(classes * classes)
    for x, y in zip(maps.split(25), labels.split(25), strict=True):
        found = interpolate(head(x), size=y.shape[-2:], mode="bilinear").argmax(1)
        confusion += torch.bincount(
            (y.long() * classes + found).flatten(), minlength=classes * classes
        )
    confusion = confusion.view(classes, classes)
    right = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - right
    return 100 * float(right.sum() / confusion.sum()), 100 * float(
        (right / union)[union > 0].mean()
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for the dense model and one for each keep rate."""
    # an error is one line, without the usage before it
    parser = argparse.ArgumentParser(
        prog="segmentation.py",
        description=(__doc__ or "").splitlines()[0],
        usage=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="a folder with one sub-folder of photographs a class",
    )
    parser.add_argument(
        "--model", default="deit_tiny_patch16_224", help="a timm model (deit_tiny_patch16_224)"
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="its weights; timm's own otherwise")
    parser.add_argument("--classes", type=int, default=10, help="how many of the folders (10)")
    parser.add_argument(
        "--keep-rate",
        type=float,
        nargs="+",
        default=[0.7, 0.5],
        help="of the reduced models (0.7 0.5)",
    )
    parser.add_argument(
        "--canvases", type=int, default=400, help="to train on; half as many are held out (400)"
    )
    parser.add_argument("--epochs", type=int, default=30, help="of the head (30)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split, the canvases and the head (0)"
    )
    args = parser.parse_args(argv)
    try:
        run(args)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))


def run(args: Any) -> None:
    """Make the canvases once, then train and measure a head for each model."""
    if args.canvases < 2 or args.epochs < 1:
        raise ValueError("--canvases must be 2 or more, --epochs 1 or more")
    rng = random.Random(args.seed)
    model: Any = create_model(args.model, checkpoint=args.checkpoint, pretrained=True).eval()
    for keep_rate in args.keep_rate:
        # what cannot be reduced is refused before any work is done
        batvit.patch(model, keep_rate=keep_rate)
    batvit.unpatch(model)
    height, width = data_config(model)["input_size"][1:]
    for_training, for_testing = photographs(args.data, args.classes, rng)
    train, train_labels = canvases(for_training, args.canvases, height, width, rng)
    test, test_labels = canvases(for_testing, args.canvases // 2, height, width, rng)
    rows = []
    for keep_rate in (None, *args.keep_rate):
        if keep_rate is not None:
            batvit.patch(model, keep_rate=keep_rate)
        torch.manual_seed(args.seed)
        head = train_head(features(model, train), train_labels, args.classes, args.epochs)
        scores = evaluate(head, features(model, test), test_labels, args.classes)
        cost, name = batvit.info(model), "dense" if keep_rate is None else f"keep {keep_rate:g}"
        rows.append(
            (name, cost.blocks[-1].tokens_out, cost.macs / 1e9, 1 / cost.mac_ratio, *scores)
        )
    print(
        "| | tokens at the end | G MACs | of dense | pixel accuracy | mean IoU |\n|---|---|---|---|---|---|"
    )
    for row in rows:
        print("| {} | {} | {:.3f} | {:.2f} | {:.1f} | {:.1f} |".format(*row))


if __name__ == "__main__":
    main()
