"""Two processes do what one does."""

import json
import os
import shlex
import socket
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file

import batvit
from batvit.cli import main
from batvit.storage.weights import save_weights
from batvit.training.batches import Part
from batvit.training.processes import accelerator_on, validation_part

COMMON = shlex.split(
    "train --model test_vit --device cpu --img-size 32 --data digits --mode paper --keep-rate 0.5 "
    "--batch-size 64 --epochs 2 --lr 1e-3 --log-every 1 --mixup 0.8 --cutmix 1 --distill soft "
    "--ema 0.9 --keep-warmup-epochs 1 --drop-path 0.2"
)


def arguments(folder, name, *more):
    return (
        *COMMON,
        "--checkpoint",
        str(folder / "weights.safetensors"),
        "--output",
        str(folder / name),
        *more,
    )


def alone(folder, name, *more):
    """In this process."""
    assert main(arguments(folder, name, *more)) == 0


def two(folder):
    """Two processes, each update in two parts."""
    # the address that the machine's own name stands for may be out of reach
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "GLOO_SOCKET_IFNAME": loopback,
    }
    # without a GPU it would start one process; told that there are several, it starts them through
    # torchrun's own code
    launcher = shlex.split(
        "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0 "
        "-m batvit"
    )
    command = [sys.executable, *launcher, *arguments(folder, "two", "--grad-accum-steps", "2")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    save_weights(timm.create_model("test_vit", num_classes=10), folder / "weights.safetensors")
    alone(folder, "one")
    return folder


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_two_processes_reproduce_one(folder):
    said = two(folder)
    one, other = (log_of(folder / name) for name in ("one", "two"))
    assert [line["update"] for line in one] == [line["update"] for line in other]
    for name in ("loss", "train_loss", "eval_loss", "lr"):
        first, second = ([line[name] for line in lines if name in line] for lines in (one, other))
        assert first
        # gradients are added up in another order
        torch.testing.assert_close(torch.tensor(second), torch.tensor(first), rtol=2e-3, atol=0)
    # of 360 digits each process counted its half
    for first, second in zip(one, other, strict=True):
        assert abs(first.get("top1", 0) - second.get("top1", 0)) <= 2 * 100 / 360
    weights = [load_file(folder / name / "last.safetensors") for name in ("one", "two")]
    moved = torch.cat([(weights[0][key] - weights[1][key]).flatten() for key in weights[0]])
    assert (
        moved.norm() <= 1e-2 * torch.cat([value.flatten() for value in weights[0].values()]).norm()
    )
    assert batvit.BATConfig.beside(folder / "two" / "last.safetensors").keep_rate is not None
    assert [
        json.loads((folder / name / "run.json").read_text())["processes"] for name in ("one", "two")
    ] == [1, 2]
    # the first process alone talks
    assert len(said.stdout.splitlines()) == 3


def test_accumulated_parts_reproduce_a_whole_batch(folder):
    alone(folder, "parts", "--grad-accum-steps", "4")
    one, parts = (
        torch.tensor([line["loss"] for line in log_of(folder / name) if "loss" in line])
        for name in ("one", "parts")
    )
    torch.testing.assert_close(parts, one, rtol=2e-3, atol=0)


def test_where_all_processes_take_every_step_together_each_counts_all(monkeypatch):
    assert validation_part(Part(1, 2)) == Part(1, 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert validation_part(Part(1, 2)) == Part(0, 1)


def test_accelerate_forgets_the_run_before():
    first = accelerator_on(torch.device("cpu"), "bf16")
    assert first.mixed_precision == "bf16"
    assert accelerator_on(torch.device("cpu"), "fp32").mixed_precision == "no"
