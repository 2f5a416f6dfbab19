"""Bad inputs for every option of every command, made from a seed; new commands join by themselves.

A command line is one that works, as far as the names of its options tell, with one or two values
replaced: by files that are none, have no end or are not what they say, by numbers and texts that
nobody means.
"""

import argparse
import io
import json
import os
import random
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save, save_file

from batvit.cli import COMMANDS, build_parser

ESCAPES = "\x1b[2J\x1b]0;gone\x07\u202e"
MEGABYTE = "x" * 2**20
OUTPUTS = {"output", "json", "csv", "plot", "diversity"}
# so that what is accepted after all is done soon; of these options those that a command has
QUICK = {
    "--num-classes": ["2"],
    "--img-size": ["32"],
    "--device": ["cpu"],
    "--threads": ["1"],
    "--batch-size": ["2"],
    "--rounds": ["1"],
    "--warmup": ["0"],
    "--epochs": ["1"],
    "--samples": ["2"],
    "--trials": ["1"],
    "--minutes": ["0.01"],
    "--plans": ["topk"],
    "--targets": ["0.6"],
    "--target-macs": ["0.7"],
    "--drawn": ["0"],
    "--model": ["test_vit"],
    "--warmup-epochs": ["0"],
}
NUMBERS = [
    *(
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "-0",
        "1e300",
        "1e-300",
        "-1e300",
        "0x10",
        "",
        " ",
        "²",
        "1_0",
    ),
    *("9" * 30, "9" * 5000, "1" * 400 + ".5", "4294967296", "2.5", "true", "1,,2", "3,2,1", "0,0"),
    *(",".join(map(str, range(5000))), MEGABYTE, ESCAPES, "1\n2", "1e400G", "--", "100000"),
]
TEXTS = [
    *(
        "",
        " ",
        "\n",
        "--",
        "-",
        ".",
        "..",
        "/",
        "~",
        "*",
        "%s%n",
        "{}",
        "$(touch gone)",
        "a=b",
        "=",
        "a=",
    ),
    *(
        ESCAPES,
        MEGABYTE,
        "\0",
        "\ud800",
        "é" * 300,
        "x" * 300,
        "../" * 50,
        "x/y",
        "None",
        "cuda:99",
    ),
    *(
        "meta",
        "cpu:-1",
        "hf-hub:",
        "local-dir:/",
        "rand-n999999999",
        "augmix-w999999999",
        "train-{0..99999999}.tar",
    ),
    *(
        "hfds/",
        "hfds/\x1b",
        "wds/",
        "wds/.",
        "digits",
        "bat,bat",
        "0.5,nan",
        "test_vit.none",
        "cuda",
    ),
]
PATHS = ["pipe", "circle", "dangling", "missing", "empty folder", "\x1b[2Jmissing", "full of links"]
SYSTEM = [
    *(
        "/dev/zero",
        "/dev/null",
        "/dev/stdin",
        "/proc/self/mem",
        "/proc/x",
        "/proc/self/x",
        "/dev/full/x",
    ),
    *("a\0b", "x" * 300, "x/" * 3000, "", "/", ".", "\n"),
]
UNWRITABLE = [
    *("/dev/zero", "/dev/null/x", "/proc/x", "/proc/self/x", "a\0b", "x" * 300, "x/" * 3000),
]
SUFFIXES = {
    "checkpoint": (".pth", ".safetensors", ".bin"),
    "teacher": (".pth", ".safetensors"),
    "config": (".json",),
    "class_map": (".txt",),
    "picture": (".png", ".webp", ".tif"),
    "runs": (".jsonl", ".txt", ".csv"),
    "dense_file": (".onnx", ".pt2", ".xml"),
    "model": (".onnx", ".pt2", ".xml"),
}


class Case(NamedTuple):
    """A command line."""

    name: str
    """the options that are bad, for messages"""
    argv: list[str]


class World:
    """Good files, and bad ones of every kind, in a folder."""

    def __init__(self, root: Path):
        self.root = root
        self.files: dict[str, list[str]] = {}
        """paths of bad files by suffix"""
        _good_files(root)
        self.folders = _bad_folders(root)
        os.mkfifo(root / "pipe")
        (root / "circle").symlink_to("circle")
        (root / "dangling").symlink_to("gone")
        (root / "empty folder").mkdir()
        for suffix, contents in _bad_contents(root).items():
            for i, content in enumerate(contents):
                path = root / f"bad {i}{suffix}"
                path.write_bytes(content)
                self.files.setdefault(suffix, []).append(str(path))
            for kind, make in (("pipe", os.mkfifo), ("circle", lambda p: p.symlink_to(p))):
                make(root / f"{kind}{suffix}")
                self.files[suffix].append(str(root / f"{kind}{suffix}"))
            with (root / f"endless{suffix}").open("wb") as file:
                file.truncate(2**40)
            self.files[suffix].append(str(root / f"endless{suffix}"))
            self.files[suffix].append(str(root / f"missing{ESCAPES}{suffix}"))


def cases(world: World, *, number: int, seed: int) -> list[Case]:
    """Return so many command lines, the commands in turns."""
    rng = random.Random(seed)
    parsers = {name: command_parser(name) for name in COMMANDS}
    return [_case(rng, world, *list(parsers.items())[i % len(parsers)], i) for i in range(number)]


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command, whose options are looked at."""
    parsers = build_parser([name])._subparsers
    return parsers._group_actions[0].choices[name]


def _case(
    rng: random.Random, world: World, command: str, parser: argparse.ArgumentParser, number: int
) -> Case:
    actions = [action for action in parser._actions if action.dest != "help"]
    bad = rng.sample(actions, 1 if rng.random() < 0.8 else 2)
    # a switch alone is nothing bad
    if all(action.nargs == 0 for action in bad):
        bad.append(rng.choice([action for action in actions if action.nargs != 0]))
    output = world.root / "out" / str(number)
    output.mkdir(parents=True, exist_ok=True)
    options: list[str] = []
    places: list[str] = []
    for action in actions:
        values = _good(world, parser, action, output)
        if action in bad:
            values = _bad(rng, world, action, output)
        if values is None:
            continue
        if action.option_strings:
            options += [rng.choice(action.option_strings), *values]
        else:
            places += values
    name = f"{command} {', '.join(action.dest for action in bad)}"
    # what takes several values would take those of places too
    return Case(name, [command, *places, *options])


def _good(
    world: World, parser: argparse.ArgumentParser, action: argparse.Action, output: Path
) -> list[str] | None:
    """Return values that work; None where the option is left out."""
    root = world.root
    by_dest = {
        "model": ["test_vit"],
        "data": [str(root / ("sets" if parser.prog.endswith("train") else "sets/train"))],
        "checkpoint": [str(root / "good.safetensors")],
        "picture": [str(root / "sets/train/a/0.png")],
        "runs": [str(root / "log.jsonl")],
        "output": [str(output / ("x.pt2" if parser.prog.endswith("export") else "x.png"))],
    }
    if action.dest == "output" and action.metavar == "DIR":
        return [str(output / "run")]
    for option in action.option_strings:
        if option in QUICK:
            return QUICK[option]
    in_group = any(action in group._group_actions for group in parser._mutually_exclusive_groups)
    if action.dest in by_dest and not in_group:
        return by_dest[action.dest]
    if action.required:
        return {"FILE": [str(root / "good.json")], "DIR": [str(root / "sets")]}.get(
            str(action.metavar), ["1"]
        )
    return None


def _bad(
    rng: random.Random, world: World, action: argparse.Action, output: Path
) -> list[str] | None:
    """Return values of the kind that an option takes, none of them good."""
    if action.nargs == 0:
        return []
    count = action.nargs if isinstance(action.nargs, int) else 1
    if action.nargs == "+":
        count = rng.choice((1, 1, 2, 3))
    return [_bad_value(rng, world, action, output) for _ in range(count)]


def _bad_value(rng: random.Random, world: World, action: argparse.Action, output: Path) -> str:
    if action.choices is not None or action.type is not None:
        return rng.choice(NUMBERS + TEXTS[:6])
    if action.dest in OUTPUTS:
        # nothing that could be written, as no command is to write anywhere but here
        names = ("pipe", "circle", "good.json" if action.metavar == "DIR" else "sets")
        odd = [str(world.root / name) for name in names]
        deep = [str(output / f"{ESCAPES}/x.json"), str(output / "x/y/z")]
        return rng.choice([*odd, *deep, *UNWRITABLE])
    pools = [SYSTEM, [str(world.root / name) for name in PATHS], TEXTS]
    suffixes = SUFFIXES.get(action.dest, ())
    if suffixes:
        pools += [world.files[rng.choice(suffixes)]] * 4
    if action.metavar == "DIR":
        pools += [world.folders] * 4
    return rng.choice(rng.choice(pools))


# files


def _good_files(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = root / "sets" / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=2, img_size=32).state_dict()
    save_file(state, root / "good.safetensors")
    (root / "good.json").write_text('{"keep_rate": 0.7}')
    (root / "log.jsonl").write_text('{"epoch": 1, "train_loss": 1.0, "top1": 5.0}\n')


def png(width: int, height: int, *, bits: int = 1, pixels: bytes = b"") -> bytes:
    """A PNG that says it is of that size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b"")


def _bad_folders(root: Path) -> list[str]:
    """Make folders of which no command can read pictures, or not all."""
    made = []

    def folder(name: str, **files: bytes) -> Path:
        path = root / "folders" / name
        for split in ("", "train/", "val/"):
            for label in ("a", "b"):
                (path / f"{split}{label}").mkdir(parents=True)
                for file, content in files.items():
                    (path / f"{split}{label}" / f"{file}.png").write_bytes(content)
        made.append(str(path))
        return path

    folder("empty")
    folder("bombs", x=png(10**5, 10**5))
    folder("long", x=png(80_000_000, 1))
    folder("longer", x=png(60_000, 1, pixels=bytes(7501)))
    folder("texts", x=b"hello")
    folder(f"escapes {ESCAPES}", x=b"hello")
    folder("one empty file", x=b"")
    os.mkfifo(folder("pipes") / "train" / "a" / "x.png")
    (folder("devices") / "a" / "x.png").symlink_to("/dev/zero")
    back = folder("back", x=(root / "sets/train/a/0.png").read_bytes())
    (back / "again").symlink_to(back)
    links = root / "full of links"
    for i in range(30):
        (links / str(i)).mkdir(parents=True)
        for name in ("x", "y"):
            (links / str(i) / name).symlink_to(links / str(i + 1))
    made.append(str(links))
    shards = root / "shards"
    shards.mkdir()
    os.mkfifo(shards / "_info.json")
    return [*made, f"wds/{shards}", f"wds/{root / 'sets'}", f"hfds/{root / 'sets'}"]


def _bad_contents(root: Path) -> dict[str, list[bytes]]:
    """Return what is in bad files, by suffix."""
    weights = (root / "good.safetensors").read_bytes()
    picture = (root / "sets/train/a/0.png").read_bytes()
    anything = [b"", b"\0" * 1000, b"hello\n", MEGABYTE.encode(), random.Random(0).randbytes(5000)]
    texts = [
        *(
            b"[" * 100_000,
            b"{}",
            b"[]",
            b"null",
            b"1e999",
            b"9" * 5000,
            b'"' + MEGABYTE.encode() + b'"',
        ),
        *(b'{"keep_rate": 0.5, "keep_rate": 0.7}', b'{"keep_rate": NaN}', b'{"keep_rate": 1e999}'),
        *(b'{"centres": ' + b"9" * 400 + b"}", b'{"neighbours": ' + b"9" * 400 + b"}"),
        *(b'{"align": ' + b"9" * 400 + b"}", b'{"blocks": [' + b"1," * 10**5 + b"1]}"),
        *(b'{"tokens": [' + b"9" * 4000 + b"]}", b'{"method": "' + ESCAPES.encode() + b'"}'),
        *(json.dumps({ESCAPES: 1}).encode(), json.dumps({MEGABYTE: 1}).encode(), b"\xff\xfe{}"),
        *(b'{"size_power": true}', b'{"keep_rate": []}', b'{"method": ["bat"]}', b'{"pairs": "1"}'),
    ]
    logs = [
        *(b'{"epoch": 1e999, "top1": 1}', b'{"epoch": ' + b"9" * 5000 + b', "top1": 1}'),
        *(
            b'{"epoch": 1, "top1": ' + b"9" * 400 + b"}",
            b'{"epoch": 1, "top1": "' + ESCAPES.encode() + b'"}',
        ),
        *(b"epoch,train_loss\n1,2,3\n", b"epoch,train_loss\n" + ESCAPES.encode() + b",1\n"),
        *(b'epoch,"train_loss\n', b"a," * 10**5),
    ]
    pictures = [png(10**5, 10**5), png(80_000_000, 1), png(60_000, 1), picture[:100], _bytes("F")]
    return {
        ".json": [*anything, *texts],
        ".txt": [*anything, *texts, *logs, b"a\na\n", ESCAPES.encode(), b"a\n" + ESCAPES.encode()],
        ".jsonl": [*anything, *texts, *logs],
        ".csv": [*anything, *logs],
        ".safetensors": [*anything, weights[:-9], weights[9:], *_bad_states(safe=True)],
        ".pth": [*anything, *_bad_states(safe=False)],
        ".bin": [*anything, weights],
        **{suffix: [*anything, *pictures] for suffix in (".png", ".webp", ".tif")},
        **{suffix: [*anything, weights] for suffix in (".onnx", ".pt2", ".xml")},
    }


def _bytes(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (30, 30)).save(file, "TIFF")
    return file.getvalue()


def _bad_states(*, safe: bool) -> list[bytes]:
    """Return files that hold weights of another kind or shape, packed weights, or none."""
    state = timm.create_model("test_vit", num_classes=2, img_size=32).state_dict()
    changed = [
        {key: value.to(torch.int8) for key, value in state.items()},
        {key: value > 0 for key, value in state.items()},
        {key: value.to(torch.float8_e4m3fn) for key, value in state.items()},
        {key: value[:0] for key, value in state.items()},
        {MEGABYTE[:1000] + ESCAPES: torch.ones(1)},
    ]
    found = []
    for each in changed:
        path = io.BytesIO()
        if safe:
            found.append(save(each))
        else:
            torch.save(each, path)
            found.append(path.getvalue())
    if safe:
        return found
    expanded = {key: torch.zeros(1).expand(10**12) for key in state}
    for thing in (expanded, [1], None, {"model": None}, {1: torch.ones(1)}, torch.nn.Linear(1, 1)):
        path = io.BytesIO()
        torch.save(thing, path)
        found.append(path.getvalue())
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(found[0])) as archive,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
        with packed.open("archive/data/999", "w", force_zip64=True) as file:
            for _ in range(64):
                file.write(bytes(2**23))
    return [*found, bomb.getvalue()]
