"""Devices, processes and signals: by accelerate, as ``accelerate launch`` or ``torchrun`` start."""

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
    """Return what runs a model on a device, or on the devices of all processes.

    It begins accelerate's state anew, see :func:`reset_accelerate`.

    Args:
        device: of the model.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        log_with: trackers of accelerate.
        folder: for what they write.

    Raises:
        ValueError: if the precision is not for this device, or a tracker is not installed.
    """
    on_cpu = device.type == "cpu"
    if on_cpu and precision == "fp16":
        raise ValueError(
            "precision=fp16 needs a GPU, and this model is on the CPU; "
            "give precision=bf16 or precision=fp32, or move the model"
        )
    for name in log_with:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"the tracker {name} is not installed; "
                f"install it with pip install {name}, or leave it out"
            )
    reset_accelerate()
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        log_with=list(log_with) or None,
        project_dir=None if folder is None else str(folder),
        # a model stays where it is; of many processes each has its own device
        device_placement=False,
    )


def reset_accelerate() -> None:
    """Make accelerate forget the device and precision of earlier runs in this process.

    It keeps both for the whole process, and would refuse a second run in another. An
    ``Accelerator`` that was made before cannot be used any more.
    """
    AcceleratorState._reset_state(reset_partial_state=True)


def part_of(device: str) -> tuple[Part, str]:
    """Return which process this is, and its device; nothing is put on any device yet.

    Args:
        device: the one asked for, which it has if it is alone.
    """
    state = PartialState(cpu=device.startswith("cpu"))
    part = Part(state.process_index, state.num_processes)
    own_device = device if part == ALONE else str(state.device)
    return part, own_device


def validation_part(part: Part) -> Part:
    """Return of whom a process evaluates the validation pictures: its own, or those of all.

    With FSDP it counts those of all, as all processes must take every step together.
    """
    return ALONE if parse_flag_from_env("ACCELERATE_USE_FSDP") else part


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether each process holds a part of the weights only (FSDP)."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


class StopRequest:
    """Knows whether SIGTERM came."""

    asked = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember that the signal came; this is its handler."""
        self.asked = True


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """While the block runs, let SIGTERM ask instead of end the process.

    Only the main thread can do that; in another one SIGTERM stays as it is.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, stop.handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
