"""Devices and processes, by accelerate: one or many, as ``accelerate launch`` or ``torchrun`` started them."""

import importlib.util
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env

from batvit.training.batches import ALONE, Part


class StoppedError(RuntimeError):
    """The run was asked to stop (SIGTERM), and its checkpoint is written."""


def accelerator_on(
    device: torch.device,
    precision: str,
    *,
    log_with: Sequence[str] = (),
    folder: Path | None = None,
) -> Accelerator:
    """What runs a model on a device, or on the devices of all processes.

    Raises:
        ValueError: if the precision is not for this device, or a tracker is not installed.
    """
    on_cpu = device.type == "cpu"
    if on_cpu and precision == "fp16":
        raise ValueError(
            "precision fp16 needs a GPU, and this model is on the CPU; give bf16 or fp32, or move the model"
        )
    lacking = next((name for name in log_with if importlib.util.find_spec(name) is None), None)
    if lacking is not None:
        raise ValueError(
            f"the tracker {lacking} is not installed; install it with pip install {lacking}, or leave it out"
        )
    # accelerate keeps device and precision for the whole process, and would refuse a second run in another
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(log_with) or None,
        project_dir=None if folder is None else str(folder),
        # a model stays where it is; of many processes each has its own device
        device_placement=False,
    )


def part_of(device: str) -> tuple[Part, str]:
    """Which process this is, and its device: the one asked for, if it is alone. Nothing is put on any device yet."""
    state = PartialState(cpu=device.startswith("cpu"))
    return Part(state.process_index, state.num_processes), str(
        state.device
    ) if state.num_processes > 1 else device


def counted_by(part: Part) -> Part:
    """Whose validation pictures a process counts: its own, or those of all (FSDP), where all must take every step together."""
    return ALONE if parse_flag_from_env("ACCELERATE_USE_FSDP") else part


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the weights only (FSDP)."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


class Stop:
    """Whether SIGTERM came."""

    asked = False

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let SIGTERM ask, instead of end the process, while the block runs. Only the main thread may hear signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
