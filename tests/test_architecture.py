"""Who imports whom, who prints, how long things are: each with a proof that it can fail."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from importlib.util import resolve_name
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOT = REPOSITORY / "src"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
SOURCES = {name: path.read_text() for name, path in FILES.items()}
DOOR = "batvit"
# from the ground up: an import never climbs
FLOORS = (
    ("core", "checks", "storage", "module_copy"),
    ("config", "data"),
    ("plans", "measure"),
    ("reduction",),
    ("backbones",),
    ("models", "inspection", "budget", "training"),
    ("deploy", "compare", "tune", "testing"),
    ("",),
    ("cli", "__main__"),
)
HEAVY = {
    "torch",
    "timm",
    "transformers",
    "torchvision",
    "PIL",
    "matplotlib",
    "sklearn",
    "numpy",
    "accelerate",
}
# they take any module, so they know no method
NEUTRAL = ("training", "measure", "data", "storage")
METHOD = ("core", "plans", "config", "reduction", "backbones")


def within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def rooms(*names):
    return tuple(f"batvit.{name}" for name in names)


def files_of(*packages):
    return [pytest.param(path, id=name) for name, path in FILES.items() if within(name, packages)]


# the checkers


parsed = functools.cache(ast.parse)


def imports(source, package="batvit"):
    """Every module that an import names, wherever it stands; of ``from a import b`` also a.b."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def imports_of(path):
    return imports(path.read_text(), ".".join(path.relative_to(ROOT).parent.parts))


def named_by_strings(source, modules):
    """The modules that a source names in strings, whole or as the end of an f-string."""
    strings, beginnings = set(), {""}
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            beginnings.add(node.values[0].value)
    beginnings = {
        beginning for beginning in beginnings if not beginning or beginning.startswith("batvit.")
    }
    return {beginning + string for beginning in beginnings for string in strings} & set(modules)


def graph(sources):
    """The arrows between files: imports, the faces of the folders above them, and strings.

    The door stands above all and runs nothing when it is opened, which a test below holds.
    """
    arrows = {}
    for name, source in sources.items():
        is_face = any(other.startswith(f"{name}.") for other in sources)
        package = name if is_face else name.rpartition(".")[0]
        targets = (files_named(source, package, sources) | named_by_strings(source, sources)) & set(
            sources
        )
        for target in set(targets):
            # whoever comes from outside opens the folder first
            face = target.rpartition(".")[0]
            while face and face != DOOR:
                if not within(name, {face}):
                    targets.add(face)
                face = face.rpartition(".")[0]
        arrows[name] = targets - {name, DOOR}
    return arrows


def files_named(source, package, sources):
    """The modules that imports name; ``from a import b`` names the file b, where it is one."""
    names = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                is_file = f"{origin}.{alias.name}" in sources
                names.add(f"{origin}.{alias.name}" if is_file else origin)
    return names


def through_the_door(source, package="batvit"):
    """What a file takes from the door itself: its arrow would lead to whatever stands behind."""
    found = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name == DOOR}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names = {alias.name for alias in node.names if origin == DOOR}
            found |= {name for name in names if f"{DOOR}.{name}" not in SOURCES}
    return found


def circles(arrows):
    """The files that can be reached from themselves, each with the way."""
    found = {}
    for start in arrows:
        way = way_to(arrows, start, {start})
        if way:
            found[start] = way
    return found


def way_to(arrows, start, goals):
    """The shortest way along arrows from a file to any of some others, or None."""
    ways, seen = [[start]], set()
    while ways:
        way = ways.pop(0)
        for target in sorted(arrows[way[-1]]):
            if target in goals:
                return [*way, target]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def floor_of(name):
    room = name.removeprefix("batvit").removeprefix(".").partition(".")[0]
    return next(number for number, names in enumerate(FLOORS) if room in names)


def climbing(arrows):
    """The arrows that lead to a higher floor."""
    return {
        (name, target)
        for name in arrows
        for target in arrows[name]
        if floor_of(target) > floor_of(name)
    }


def runs_at_import(source, package):
    """What importing a file imports: not what stands in functions or is for type checkers."""
    found = set()
    todo = [parsed(source)]
    while todo:
        node = todo.pop()
        for_checkers = isinstance(node, ast.If) and is_for_checkers(node.test)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= imports(ast.unparse(node), package)
        elif not for_checkers and not later:
            todo += list(ast.iter_child_nodes(node))
    return found


def is_for_checkers(test):
    """Whether a condition is ``TYPE_CHECKING``, and not its opposite."""
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def loads(name, sources):
    """The packages besides ours and the standard library that importing a file loads."""
    todo, seen, found = [name], set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        is_face = any(other.startswith(f"{name}.") for other in sources)
        for target in runs_at_import(sources[name], name if is_face else name.rpartition(".")[0]):
            if target in sources:
                todo += [target, target.rpartition(".")[0] or target]
            elif not target.startswith("batvit"):
                found.add(target.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def beyond(names, allowed):
    """What is imported besides the standard library and the allowed packages.

    ``from batvit`` alone imports nothing.
    """
    return {
        name
        for name in names
        if name != "batvit" and not within(name, {*sys.stdlib_module_names, *allowed})
    }


def prints(source):
    """What writes to the terminal: the name print, rich, and the standard streams."""
    found = {name for name in imports(source) if within(name, {"rich"})}
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Name) and node.id == "print":
            found.add("print")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
            found.add(ast.unparse(node))
    return found


def is_long(source):
    """320 lines or more."""
    return len(source.splitlines()) >= 320


def long_functions(source):
    """Functions whose body has 40 lines or more, not counting their docstrings."""
    found = {}
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
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


# the house


def test_the_root_holds_the_door_three_modules_and_rooms():
    files = {path.name for path in (ROOT / "batvit").iterdir() if path.is_file()}
    assert {"__init__.py", "__main__.py", "py.typed"} <= files
    assert len(files) <= 6


def test_the_face_of_every_room_says_what_its_files_hold():
    for face in (ROOT / "batvit").glob("*/__init__.py"):
        text = ast.get_docstring(ast.parse(face.read_text()))
        readme = face.with_name("README.md")
        text += readme.read_text() if readme.is_file() else ""
        files = [file.name for file in face.parent.iterdir() if file.is_file()]
        assert not unnamed(files, text), face


def unnamed(files, text):
    """The files of a folder that a text does not name: modules by their stem, others whole."""
    named = {name.strip("`") for name in re.findall(r"`+[\w.]+`+", text)}
    found = []
    for file in files:
        stem, _, suffix = file.partition(".")
        if not stem.startswith("__") and (stem if suffix == "py" else file) not in named:
            found.append(file)
    return found


def test_a_file_that_is_not_named_is_found():
    text = "- ``formats``, ``report.html``: two files. - `one`: another."
    assert unnamed(["__init__.py", "formats.py", "report.html", "one.py"], text) == []
    assert unnamed(["format.py", "report.css"], text) == ["format.py", "report.css"]


# who imports whom


@pytest.fixture(scope="module")
def arrows():
    return graph(SOURCES)


def test_no_files_import_one_another_in_a_circle(arrows):
    assert not circles(arrows)


def test_no_arrow_climbs_a_floor(arrows):
    assert not climbing(arrows)


@pytest.mark.parametrize(
    "path", files_of(*rooms(*(room for floor in FLOORS[:-2] for room in floor)))
)
def test_what_stands_below_the_door_does_not_go_through_it(path):
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert through_the_door(path.read_text(), package) <= {"__version__"}


def test_a_way_through_the_door_is_found():
    assert through_the_door("from batvit import patch, checks") == {"patch"}
    assert through_the_door("def f():\n    import batvit\n    batvit.patch") == {"batvit"}
    assert through_the_door("from .. import patch", "batvit.core") == {"patch"}
    assert not through_the_door("import batvit.checks\nfrom batvit import tune")


def test_training_measuring_and_data_reach_no_method(arrows):
    method = {name for name in SOURCES if within(name, rooms(*METHOD))}
    assert method
    for name in SOURCES:
        if within(name, rooms(*NEUTRAL)):
            assert way_to(arrows, name, method) is None, name


def test_a_circle_is_found_wherever_the_import_stands():
    def in_a_circle(first, second):
        arrows = graph(
            {"batvit": "", "batvit.a": first, "batvit.b": second, "batvit.c": "import batvit.a"}
        )
        return set(circles(arrows))

    assert in_a_circle("import batvit.b", "import math") == set()
    for back in (
        "import batvit.a",
        "def f():\n    from batvit.a import g",
        "if TYPE_CHECKING:\n    from batvit import a",
        "importlib.import_module('batvit.a')",
        "NAMES = ('a', 'c')\nimportlib.import_module(f'batvit.{NAMES[0]}')",
        "from . import a",
    ):
        assert in_a_circle("import batvit.b", back) >= {"batvit.a", "batvit.b"}, back


def test_a_circle_through_the_face_of_a_folder_is_found():
    sources = {
        "batvit": "",
        "batvit.a": "from batvit.room.b import f",
        "batvit.room": "",
        "batvit.room.b": "",
    }
    assert not circles(graph(sources))
    # whoever imports b from outside opens the room, which imports a
    assert circles(graph(sources | {"batvit.room": "import batvit.a"}))
    # inside the room its face is open already
    assert not circles(graph(sources | {"batvit.room": "from batvit.room.b import f"}))


def test_an_arrow_that_climbs_is_found():
    sources = {
        "batvit": "",
        "batvit.measure": "",
        "batvit.measure.macs": "",
        "batvit.core.merge": "",
        "batvit.cli": "",
    }
    assert not climbing(graph(sources | {"batvit.cli": "import batvit.measure.macs"}))
    assert climbing(
        graph(sources | {"batvit.core.merge": "def f():\n    import batvit.measure.macs"})
    ) == {
        ("batvit.core.merge", "batvit.measure.macs"),
        ("batvit.core.merge", "batvit.measure"),
    }


def test_a_method_behind_others_is_found():
    arrows = graph(
        {
            "batvit.training.loop": "import batvit.module_copy",
            "batvit.module_copy": "def f():\n    import batvit.checks",
            "batvit.checks": "from batvit.core import merge",
            "batvit.core": "",
        }
    )
    way = ["batvit.training.loop", "batvit.module_copy", "batvit.checks", "batvit.core"]
    assert way_to(arrows, "batvit.training.loop", {"batvit.core"}) == way


def test_every_file_stands_on_a_floor():
    for name in SOURCES:
        floor_of(name)


def test_importing_everything_but_adapters_loads_torch_and_no_vision_library():
    modules = loaded(
        "import batvit, batvit.core, batvit.plans; batvit.patch, batvit.trace, batvit.BATConfig"
    )
    assert {"torch", "jaxtyping"} <= modules
    assert not (HEAVY - {"torch", "numpy"} | {"torch._dynamo"}) & modules
    assert "batvit.backbones.timm_vit" not in modules


def test_opening_the_door_loads_nothing():
    assert not HEAVY & loaded("import batvit")
    assert not loads("batvit", SOURCES)


def test_a_fresh_interpreter_would_show_a_heavy_import():
    assert HEAVY & loaded("import PIL") == {"PIL"}


@pytest.mark.parametrize("path", files_of("batvit.core"))
def test_the_core_imports_torch_alone(path):
    assert not beyond(imports_of(path), {"torch", "jaxtyping", "batvit.core"})


@pytest.mark.parametrize(
    "path", [p for p in files_of("batvit") if not within(p.id, rooms("cli", "__main__"))]
)
def test_nobody_imports_the_command_line(path):
    assert not {name for name in imports_of(path) if within(name, {"batvit.cli"})}


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_benchmarks_and_examples_call_the_library(folder):
    for path in (REPOSITORY / folder).glob("*.py"):
        assert not {name for name in imports(path.read_text()) if within(name, {"batvit.cli"})}, (
            path
        )


@pytest.mark.parametrize(
    "name", [name for name in SOURCES if within(name, rooms("cli", "__main__"))]
)
def test_a_command_loads_nothing_heavy_before_it_runs(name):
    assert not HEAVY & loads(name, SOURCES)


def test_what_is_loaded_at_import_is_told_from_what_is_loaded_later():
    sources = {
        "batvit": "",
        "batvit.a": "import batvit.b\ndef f():\n    import torch",
        "batvit.b": "if TYPE_CHECKING:\n    import timm\nclass A:\n    import numpy",
    }
    assert loads("batvit.a", sources) == {"numpy"}


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
        imports("import math, numpy\nfrom batvit.plans import Counts"), {"torch", "batvit.core"}
    ) == {
        "numpy",
        "batvit.plans",
        "batvit.plans.Counts",
    }


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


ADAPTERS = sorted((ROOT / "batvit").glob("backbones/*_*.py"))
ADAPTERS.append(ROOT / "batvit/models/lvvit_adapter.py")


def test_adapters_are_looked_at():
    assert {"timm_vit", "open_clip_vit", "lvvit_adapter"} <= {path.stem for path in ADAPTERS}


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.stem)
def test_adapters_are_thin(path):
    assert len(path.read_text().splitlines()) < 160


def test_length_is_found():
    assert is_long("\n" * 320)
    assert not is_long("\n" * 319)
    assert long_functions("def f():\n" + "    x = 1\n" * 40) == {"f": 40}
    assert not long_functions("def f():\n" + "    x = 1\n" * 39)
    assert not long_functions('def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 39)
    assert not long_functions('def f():\n    """One."""\n')
    method = "class A:\n    async def f(self):\n" + "        x = 1\n" * 40
    assert long_functions(method) == {"f": 40}


# the tests


def test_every_module_with_behaviour_has_its_test_file():
    # one contract for all plans; the parts of a command are tested through it
    together = {
        "batvit.plans": "test_plans.py",
        "batvit.cli.bench_tables": "test_cli_bench.py",
        "batvit.backbones.timm_eva": "test_timm_common.py",
        "batvit.backbones.torchvision_vit": "test_torch_multihead.py",
        "batvit.backbones.transformers_blocks": "test_transformers_common.py",
    }
    for name, source in SOURCES.items():
        path = FILES[name].relative_to(ROOT / "batvit")
        behaves = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(source).body
        )
        if not behaves or path.name in ("__init__.py", "__main__.py"):
            continue
        folder = REPOSITORY / "tests" / path.parent
        names = [f"test_{path.stem}.py", f"test_cli_{path.stem}.py"]
        names += [file for module, file in together.items() if within(name, {module})]
        assert any((folder / each).is_file() for each in names), (
            f"no tests/{path.parent}/test_{path.stem}.py"
        )


def test_globs_of_the_linter_match_files():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for pattern in settings["tool"]["ruff"]["lint"]["per-file-ignores"]:
        for each in expand(pattern):
            assert any(REPOSITORY.glob(each)), each


def expand(pattern):
    """A pattern with braces as those without."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inner, _, after = rest.partition("}")
    return [f"{before}{part}{after}" for part in inner.split(",")]
