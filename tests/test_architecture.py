"""Who imports whom, who prints, how long things are: each rule with a proof that its checker can fail."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import batvit

ROOT = Path(__file__).parents[1] / "src"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
HEAVY = {
    "timm",
    "transformers",
    "torchvision",
    "PIL",
    "torch._dynamo",
    "matplotlib",
    "sklearn",
    "accelerate",
}
# they take any module, so they know no method; modules that are not written yet are not looked at
NEUTRAL = tuple(
    f"batvit.{name}"
    for name in (
        "data",
        "digits",
        "evaluate",
        "benchmark",
        "curves",
        "training.config",
        "training.batches",
        "training.checkpoints",
        "training.learner",
        "training.loop",
        "training.objective",
        "training.pictures",
        "training.processes",
        "training.progress",
        "training.readers",
        "training.record",
        "macs",
        "copies",
        "checkpoint",
        "files",
        "timing",
        "plots",
    )
)
METHOD = ("batvit.core", "batvit.plans", "batvit.backbones", "batvit.config")


def within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files_of(*packages):
    return [pytest.param(path, id=name) for name, path in FILES.items() if within(name, packages)]


# the checkers


def imports(source, package="batvit"):
    """Every module that a source names in an import, wherever the import stands; of ``from a import b`` also a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def imports_of(path):
    return imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))


def beyond(names, allowed):
    """What is imported besides the standard library and the allowed packages; ``from batvit`` alone imports nothing."""
    return {
        name
        for name in names
        if name != "batvit" and not within(name, {*sys.stdlib_module_names, *allowed})
    }


def method_in(names):
    """The method among the imports: its packages, or what the door hands out."""
    return {
        name
        for name in names
        if within(name, METHOD) or name.removeprefix("batvit.") in batvit.__all__
    }


def prints(source):
    """What writes to the terminal: the name print, rich, and the standard streams."""
    found = {name for name in imports(source) if within(name, {"rich"})}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id == "print":
            found.add("print")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            found.add(ast.unparse(node))
    return found


def is_long(source):
    """250 lines or more."""
    return len(source.splitlines()) >= 250


def long_functions(source):
    """Functions of 40 lines or more, not counting their docstrings."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines >= 40:
                found[node.name] = lines
    return found


def run(code):
    """What a fresh interpreter prints, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def loaded(statement):
    """The modules that a fresh interpreter has after a statement."""
    return set(run(f"{statement}\nimport sys\nprint(*sys.modules)"))


# who imports whom


def test_importing_everything_but_adapters_loads_torch_and_no_vision_library():
    # batvit.core alone would not do less: Python opens the door, batvit/__init__.py, before any room behind it
    modules = loaded("import batvit, batvit.core, batvit.plans")
    assert {"torch", "jaxtyping"} <= modules
    assert not HEAVY & modules
    assert "batvit.backbones.timm_vit" not in modules


def test_a_fresh_interpreter_would_show_a_heavy_import():
    assert HEAVY & loaded("import PIL") == {"PIL"}


@pytest.mark.parametrize("path", files_of("batvit.core"))
def test_the_core_imports_torch_alone(path):
    assert not beyond(imports_of(path), {"torch", "jaxtyping", "batvit.core"})


@pytest.mark.parametrize("path", files_of("batvit.plans"))
def test_plans_import_the_core_and_the_configuration(path):
    assert not beyond(
        imports_of(path), {"torch", "jaxtyping", "batvit.core", "batvit.plans", "batvit.config"}
    )


@pytest.mark.parametrize("path", files_of(*NEUTRAL))
def test_training_and_measuring_do_not_import_the_method(path):
    assert not method_in(imports_of(path))


@pytest.mark.parametrize(
    "path", [p for p in files_of("batvit") if not within(p.id, ("batvit.cli", "batvit.__main__"))]
)
def test_nobody_imports_the_command_line(path):
    assert not {name for name in imports_of(path) if within(name, {"batvit.cli"})}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import timm.layers", {"timm.layers"}),
        ("def f():\n    from timm import create_model", {"timm", "timm.create_model"}),
        ("from batvit import cli", {"batvit", "batvit.cli"}),
        ("from ..cli import main", {"batvit.cli", "batvit.cli.main"}),
        ("from . import config", {"batvit.core", "batvit.core.config"}),
    ],
)
def test_imports_are_found(source, found):
    assert imports(source, "batvit.core") == found


def test_imports_that_go_too_far_are_found():
    assert beyond(
        imports("import math, numpy\nfrom batvit.config import Counts"), {"torch", "batvit.core"}
    ) == {
        "numpy",
        "batvit.config",
        "batvit.config.Counts",
    }
    assert method_in(imports("from batvit import macs, patch")) == {"batvit.patch"}
    assert method_in(imports("import batvit.core.merge")) == {"batvit.core.merge"}
    assert not method_in(imports("from batvit.macs import count_macs"))


# who prints


@pytest.mark.parametrize(
    "path", [p for p in files_of("batvit") if not within(p.id, ("batvit.cli",))]
)
def test_only_the_command_line_prints(path):
    assert not prints(path.read_text())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("print(1)", {"print"}),
        ("map(print, [1])", {"print"}),
        ("from rich.console import Console", {"rich.console", "rich.console.Console"}),
        ("import sys\nsys.stderr.write('1')", {"sys.stderr"}),
        ('"""print(1)"""', set()),
    ],
)
def test_printing_is_found(source, found):
    assert prints(source) == found


# how long things are


@pytest.mark.parametrize("path", files_of("batvit"))
def test_files_and_functions_are_short(path):
    assert not is_long(path.read_text())
    assert not long_functions(path.read_text())


ADAPTERS = sorted((ROOT / "batvit" / "backbones").glob("*_*.py"))


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_adapters_are_thin(path):
    assert len(path.read_text().splitlines()) < 120


def test_length_is_found():
    assert is_long("\n" * 250)
    assert not is_long("\n" * 249)
    assert long_functions("def f():\n" + "    x = 1\n" * 39) == {"f": 40}
    assert not long_functions("def f():\n" + "    x = 1\n" * 38)
    assert not long_functions('def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 38)
    assert long_functions("class A:\n    async def f(self):\n" + "        x = 1\n" * 39) == {
        "f": 40
    }


# the door


def public_names(module):
    """What a fresh interpreter finds in a module, less what starts with an underscore and what is a module."""
    code = f"import types, {module} as m\nprint(*(n for n, v in vars(m).items() if not isinstance(v, types.ModuleType)))"
    return {name for name in run(code) if not name.startswith("_")}


def test_all_is_what_can_be_imported():
    # what needs other libraries is imported when asked for
    assert public_names("batvit") - {"LATER"} | set(batvit.LATER) == set(batvit.__all__)
    assert batvit.__all__ == sorted(batvit.__all__)
    assert all(hasattr(batvit, name) for name in batvit.__all__)


def test_a_name_that_all_forgets_is_found(tmp_path, monkeypatch):
    (tmp_path / "door.py").write_text("from math import pi, e\n__all__ = ['pi']\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert public_names("door") == {"pi", "e"}
