"""Start a check in two processes that can talk to one another, by gloo."""

import importlib.util
import json
import os
import socket
import traceback
from datetime import timedelta

import torch
from torch import distributed, multiprocessing


def failures(file, cases, folder):
    """Run the function ``check`` of a file in two processes for one case after the other.

    Returns for every case what went wrong, in both processes; nothing where all went well.
    """
    multiprocessing.spawn(_process, (file, cases, folder), nprocs=2)
    told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return dict(zip(cases, map("".join, zip(*told, strict=True)), strict=True))


def _process(rank, file, cases, folder):
    torch.set_num_threads(1)
    # the address that the machine's own name stands for may be out of reach
    os.environ["GLOO_SOCKET_IFNAME"] = next(
        name for _, name in socket.if_nameindex() if name.startswith("lo")
    )
    distributed.init_process_group(
        "gloo",
        f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=5),
    )
    spec = importlib.util.spec_from_file_location("checks", file)
    checks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checks)
    told = []
    for case in cases:
        told.append(_told(checks.check, case))
        distributed.barrier()
    (folder / f"{rank}.json").write_text(json.dumps(told))
    distributed.destroy_process_group()


def _told(check, case):
    try:
        check(*case)
    except Exception:  # noqa: BLE001 - whatever it is, the test says it
        return traceback.format_exc()
    return ""
