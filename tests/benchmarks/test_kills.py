"""Commands killed at random moments end, when they are run again, as if they had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


# in a process of its own, which forks and must not have started threads
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize(
    ("command", "kills"), [("eval", 3), ("export", 1), ("tune", 1), ("compare", 1)]
)
def test_a_killed_command_loses_nothing(command, kills, kind, tmp_path):
    options = ("--kills", str(kills), "--commands", command, "--signals", kind, "--seed", "1")
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{command}, {kind}: ")
    assert "0 results that were not whole" in line
    assert f"run again {kills} of {kills} end the same, 0 drafts left" in line
