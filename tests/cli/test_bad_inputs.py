"""Whatever is given to whatever option: one line and exit code 2, or what was asked; no hang."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from bad_inputs import World, cases, command_parser
from command_runs import ends

from batvit.cli import COMMANDS
from batvit.cli.console import LONGEST_LINE

SEED = int(os.environ.get("BATVIT_SEED", "0"))
NUMBER = int(os.environ.get("BATVIT_BAD_INPUTS", "300"))
PROCESSES = 20
# a machine that is not quiet is no hang
SECONDS = 120
LARGEST_MEMORY = 2 * 2**30


class HangError(BaseException):
    """A command did not end. No command takes it for an error of its own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def time_limit():
    """Raise in the middle of whatever a command does."""

    def stop(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def complaint(code, out, err):
    """What is wrong with how a command ended, or None."""
    foreign = {character for character in out + err if not character.isprintable()} - {"\n"}
    if foreign:
        return f"printed {foreign}"
    if code == 0:
        return None
    if code != 2:
        return f"ended with {code}"
    if "Traceback" in err or not err.startswith("batvit ") or err.count("\n") != 1:
        return f"said {err[:2000]}"
    if len(err) > LONGEST_LINE + 10:
        return f"said {len(err)} characters"
    return None


@pytest.mark.parametrize("part", range(10))
def test_in_process(world, time_limit, capsys, monkeypatch, tmp_path, part):
    monkeypatch.chdir(tmp_path)
    complaints = []
    for case in cases(world, number=NUMBER, seed=SEED)[part::10]:
        time_limit()
        try:
            code = ends(*case.argv)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            code = repr(error)[:500]
        signal.setitimer(signal.ITIMER_REAL, 0)
        torch.set_num_threads(1)
        wrong = complaint(code, *capsys.readouterr())
        if wrong is not None:
            complaints.append((case.name, wrong, [text[:200] for text in case.argv]))
    assert not complaints, "\n".join(map(str, complaints))


def test_as_processes(world):
    complaints = []
    some = [case for case in cases(world, number=NUMBER, seed=SEED + 1) if can_be_typed(case)]
    for case in some[:: len(some) // PROCESSES][:PROCESSES]:
        code, out, err, memory = measured([sys.executable, "-m", "batvit", *case.argv], world.root)
        wrong = complaint(code, out, err)
        if memory > LARGEST_MEMORY:
            wrong = f"took {memory / 2**30:.1f} GiB"
        if wrong is not None:
            complaints.append((case.name, wrong, [text[:200] for text in case.argv]))
    assert not complaints, "\n".join(map(str, complaints))


def can_be_typed(case):
    """Whether a system takes such arguments: none with a NUL byte, or very long."""
    return all("\0" not in text and len(text) < 10**5 and text.isascii() for text in case.argv)


# the peak of a process counts what the process that started it held: this one holds little
WATCH = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss * 1024))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured(command, folder):
    """How a process ends, what it says, and its peak memory in bytes."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    peak = folder / "peak"
    peak.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", WATCH, str(peak), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
        # so that what it started ends with it
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "no end", "", "", 0
    return process.returncode, out, err, int(peak.read_text())


# the generator


def test_every_command_and_every_option_is_tried(world):
    tried = {case.name for seed in range(30) for case in cases(world, number=300, seed=seed)}
    for command in COMMANDS:
        options = {action.dest for action in command_parser(command)._actions} - {"help"}
        named = {
            dest
            for name in tried
            if name.split(" ", 1)[0] == command
            for dest in name.split(" ", 1)[1].split(", ")
        }
        assert named == options


def test_a_seed_gives_the_same_cases(world):
    assert cases(world, number=50, seed=3) == cases(world, number=50, seed=3)
    assert cases(world, number=50, seed=3) != cases(world, number=50, seed=4)
