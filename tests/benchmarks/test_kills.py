"""Commands killed at random moments end, when they are run again, as if they had not been."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


# in a process of its own, which forks and must not have started threads
@pytest.mark.parametrize(
    ("command", "kills"), [("eval", 3), ("export", 2), ("tune", 2), ("compare", 2)]
)
def test_a_killed_command_loses_nothing(command, kills, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", str(kills), "--commands", command, "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{command}, SIGKILL",
        f"{command}, SIGTERM",
    ]
    for line in lines:
        assert "0 results that were not whole" in line
        assert f"run again {kills} of {kills} end the same, 0 drafts left" in line
