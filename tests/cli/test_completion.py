"""Completion in shells: what is printed is a script of the shell that knows all commands."""

import subprocess
import sys

import pytest
from command_runs import ends

from batvit.cli import COMMANDS
from batvit.cli.completion import SHELLS

WORDS = """
source {script}
COMP_WORDS=({words})
COMP_CWORD={last}
_shtab_batvit
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The file that bash reads, and a folder with a file to complete."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "cat.jpg").touch()
    done = subprocess.run(
        [sys.executable, "-m", "batvit", "--print-completion", "bash"],
        check=True,
        capture_output=True,
        text=True,
    )
    (folder / "completion.sh").write_text(done.stdout)
    return folder / "completion.sh"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("com",), {"compare"}),
        (("e",), {"eval", "export"}),
        (("tune", "--target"), {"--target-speedup", "--target-macs"}),
        (("info", "--mo"), {"--mode"}),
        (("eval", "--precision", ""), {"fp32", "bf16", "fp16"}),
    ],
)
def test_bash_completes(script, words, found):
    typed = " ".join(["batvit", *(word or "''" for word in words)])
    code = WORDS.format(script=script, words=typed, last=len(words))
    done = subprocess.run(
        ["bash", "-c", code], check=True, capture_output=True, text=True, cwd=script.parent
    )
    assert set(done.stdout.split()) == found


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_all_commands(capsys, shell):
    assert ends("--print-completion", shell) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)


def test_without_its_package_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert ends("--print-completion", "bash") == 2
    said = capsys.readouterr().err
    assert "pip install shtab, or batvit with its extra [shell]" in said
    assert said.count("\n") == 1
