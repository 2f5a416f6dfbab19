r"""Dense prediction with fewer tokens: a linear segmentation head on a frozen Vision Transformer.

The pictures are collages: four photographs a canvas, cut at random places that do not respect the
patches, and the label of a pixel is the class of the photograph that it is from. Train and held-out
canvases are made of different photographs. On a reduced model ``forward_intermediates`` gives maps
of the full grid, so nothing here depends on whether it is patched.

    python examples/segmentation.py --data FOLDER_OF_CLASS_FOLDERS \
        --checkpoint deit_tiny_patch16_224.safetensors
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

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
"""paths by class"""
HELD_OUT = 4
"""of so many photographs one is held out"""
BATCH = 25
HEAD = """\
| | tokens at the end | G MACs | of dense | pixel accuracy | mean IoU |
|---|---|---|---|---|---|"""


def photographs(root: str, classes: int, rng: random.Random) -> tuple[Photographs, Photographs]:
    """Choose classes, spread evenly over the folders of ``root``.

    Returns:
        The photographs to train on, and those held out.
    """
    pictures = image_folder(root)
    folders = len(pictures.classes)
    if not 2 <= classes <= folders:
        raise ValueError(
            f"{root}: has {folders} class folders; --classes must lie between 2 and that"
        )
    train = []
    held_out = []
    for i in range(classes):
        label = i * folders // classes
        paths = [path for path, other in pictures.samples if other == label]
        if len(paths) < HELD_OUT:
            raise ValueError(
                f"{root}: {pictures.classes[label]} holds {len(paths)} pictures; "
                f"{HELD_OUT} are needed at least"
            )
        rng.shuffle(paths)
        cut = len(paths) // HELD_OUT
        train.append(paths[cut:])
        held_out.append(paths[:cut])
    return train, held_out


def canvases(
    photos: Photographs, count: int, height: int, width: int, rng: random.Random
) -> tuple[Tensor, Tensor]:
    """Make collages of an upper and a lower strip, each cut in two.

    Returns:
        The collages (N, 3, H, W) and their labels (N, H, W), as bytes.
    """
    images = []
    labels = torch.empty(count, height, width, dtype=torch.uint8)
    for n in range(count):
        image = Image.new("RGB", (width, height))
        row = rng.randint(height // 4, height - height // 4)
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
def features(model: Any, images: Tensor) -> Tensor:
    """Return the last feature map of every image (N, C, rows, columns), as a head would read it."""
    settings = data_config(model)
    maps = []
    for batch in images.split(BATCH):
        x = normalize(batch / 255, settings["mean"], settings["std"])
        maps += model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    return torch.cat(maps)


def train_head(maps: Tensor, labels: Tensor, classes: int, epochs: int) -> nn.Module:
    """Train a 1 x 1 convolution that tells what share of each patch each class has."""
    patch = (labels.shape[-2] // maps.shape[-2], labels.shape[-1] // maps.shape[-1])
    shares = []
    for batch in labels.split(BATCH):
        pixels = one_hot(batch.long(), classes).movedim(-1, 1).float()
        shares.append(avg_pool2d(pixels, patch))
    targets = torch.cat(shares)
    head = nn.Conv2d(maps.shape[1], classes, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(maps)).split(16):
            optimizer.zero_grad()
            cross_entropy(head(maps[batch]), targets[batch]).backward()
            optimizer.step()
    return head


@torch.no_grad()
def evaluate(head: nn.Module, maps: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Return pixel accuracy and mean intersection over union, in percent."""
    confusion = torch.zeros(classes * classes)
    for x, y in zip(maps.split(BATCH), labels.split(BATCH), strict=True):
        # logits are upsampled to the pixels
        predicted = interpolate(head(x), size=y.shape[-2:], mode="bilinear").argmax(1)
        pairs = (y.long() * classes + predicted).flatten()
        confusion += torch.bincount(pairs, minlength=classes * classes)
    confusion = confusion.view(classes, classes)
    right = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - right
    accuracy = right.sum() / confusion.sum()
    iou = (right / union)[union > 0].mean()
    return 100 * float(accuracy), 100 * float(iou)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Leave with 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row for the dense model and one for each keep rate."""
    parser = Parser(prog="segmentation.py", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="a folder with one sub-folder a class")
    add("--model", default="deit_tiny_patch16_224", help="a timm model (deit_tiny_patch16_224)")
    add("--checkpoint", metavar="FILE", help="its weights; timm's own otherwise")
    add("--classes", type=int, default=10, help="how many of the folders (10)")
    add(
        "--keep-rate", type=float, nargs="+", default=[0.7, 0.5], help="of reduced models (0.7 0.5)"
    )
    add("--canvases", type=int, default=400, help="to train on; half as many are held out (400)")
    add("--epochs", type=int, default=30, help="of the head (30)")
    add("--seed", type=int, default=0, help="of the split, the canvases and the head (0)")
    args = parser.parse_args(argv)
    try:
        run(args)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))


def run(args: Any) -> None:
    """Make the canvases once, then train and measure a head for each model."""
    if args.canvases < 2 or args.epochs < 1:
        raise ValueError("--canvases must be 2 or more, --epochs 1 or more")
    rng = random.Random(args.seed)  # noqa: S311
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
        name = "dense"
        if keep_rate is not None:
            name = f"keep {keep_rate:g}"
            batvit.patch(model, keep_rate=keep_rate)
        torch.manual_seed(args.seed)
        head = train_head(features(model, train), train_labels, args.classes, args.epochs)
        accuracy, iou = evaluate(head, features(model, test), test_labels, args.classes)
        cost = batvit.info(model)
        tokens = cost.blocks[-1].tokens_out
        share = 1 / cost.mac_ratio
        rows.append(
            f"| {name} | {tokens} | {cost.macs / 1e9:.3f} | {share:.2f} "
            f"| {accuracy:.1f} | {iou:.1f} |"
        )
    print(HEAD)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
