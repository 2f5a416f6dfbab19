"""Public names have examples, which are run as they stand, and say what they raise."""

import ast
import copy
import doctest
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import batvit
from batvit.backbones import registry

ROOT = Path(batvit.__file__).parent
FACES = ("batvit", "batvit.compare", "batvit.testing", "batvit.training", "batvit.tune")
# what the functions of the door give back
RESULTS = {
    "batvit.deploy.export": ("Exported",),
    "batvit.deploy.format": ("Engine",),
    "batvit.inspection.summary": ("Info",),
    "batvit.measure.accuracy": ("Evaluation",),
    "batvit.measure.speed": ("SpeedComparison",),
}
REFUSES_NOTHING = {
    "batvit.Anatomy",
    "batvit.config_of",
    "batvit.supported",
    "batvit.testing.randomised",
}
# a docstring whose example goes on where that of a function ends
GOES_ON = re.compile(r"the example of :func:`(?:batvit\.)?(?:compare\.|tune\.)?(\w+)`")
PARSER = doctest.DocTestParser()


def public():
    """Each public function and class by its name."""
    found = {}
    for face in FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            found[f"{face}.{name}"] = getattr(module, name)
    for module, names in RESULTS.items():
        for name in names:
            found[f"{module}.{name}"] = getattr(importlib.import_module(module), name)
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


PUBLIC = public()


def lacks(text, *, raises):
    """What a docstring should have and has not."""
    missing = []
    if not re.search(r"^Examples:$", text, re.MULTILINE) or not PARSER.get_examples(text):
        missing.append("Examples")
    if raises and not re.search(r"^Raises:$", text, re.MULTILINE):
        missing.append("Raises")
    return missing


def is_exception(value):
    return isinstance(value, type) and issubclass(value, Exception)


def docstrings(source):
    """Each docstring with an example, by the name of what has it."""
    found = {}
    todo = [("", ast.parse(source))]
    while todo:
        name, node = todo.pop()
        text = ast.get_docstring(node)
        if text is not None and PARSER.get_examples(text):
            found[name] = text
        for child in node.body:
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                todo.append((f"{name}.{child.name}".lstrip("."), child))
    return found


@functools.cache
def examples():
    """Chains of docstrings: one that stands alone, and those that go on where it ends."""
    chains = {}
    followers = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        for name, text in docstrings(path.read_text()).items():
            goes_on = GOES_ON.search(text)
            if goes_on:
                followers.append((goes_on[1], module, f"{module}.{name}", text))
            else:
                chains[f"{module}.{name}"] = [(module, f"{module}.{name}", text)]
    for before, module, name, text in followers:
        (start,) = (
            chain
            for chain in chains
            if chain.endswith(f".{before}") and same_room(chain, module, before)
        )
        chains[start].append((module, name, text))
    return chains


def same_room(chain, module, before):
    """Whether it is the function meant: ``run`` is in two rooms."""
    return before != "run" or chain.split(".")[1] == module.split(".")[1]


def run(chain):
    """Run the examples of docstrings, one after the other; return what was not as it says."""
    said = []
    names = {"batvit": batvit, "copy": copy, "timm": timm, "torch": torch}
    runner = doctest.DocTestRunner(verbose=False)
    for module, name, text in chain:
        file = importlib.import_module(module)
        names = vars(file) | names
        test = PARSER.get_doctest(text, names, name, file.__file__, 0)
        runner.run(test, out=said.append, clear_globs=False)
        names = test.globs
    return "".join(said)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to write into, with labelled pictures; models are the same in each test."""
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(4):
            picture = Image.new("RGB", (40, 30), (60 * i, 90, 30))
            picture.save(tmp_path / "pictures" / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "REGISTERED", [*registry.REGISTERED])
    torch.manual_seed(0)


@pytest.mark.unchecked
@pytest.mark.parametrize("name", examples())
def test_the_examples_of_docstrings_are_right(name, folder):
    assert not run(examples()[name])


@pytest.mark.parametrize("name", [name for name in PUBLIC if not is_exception(PUBLIC[name])])
def test_a_public_name_has_an_example_and_says_what_it_raises(name):
    value = PUBLIC[name]
    checks_itself = inspect.isclass(value) and "__post_init__" in vars(value)
    raises = inspect.isroutine(value) or checks_itself
    assert not lacks(inspect.getdoc(value), raises=raises and name not in REFUSES_NOTHING)


def test_every_public_name_is_run():
    run_names = {name for chain in examples().values() for _, name, _ in chain}
    for value in PUBLIC.values():
        if not is_exception(value):
            assert f"{value.__module__}.{value.__qualname__}" in run_names


def test_what_is_missing_is_found():
    assert lacks("Do.", raises=True) == ["Examples", "Raises"]
    assert lacks("Do.\n\nExamples:\n    None.", raises=False) == ["Examples"]
    assert lacks("Do.\n\nExamples:\n    >>> 1\n    1", raises=True) == ["Raises"]
    assert not lacks("Do.\n\nRaises:\n    E: x\n\nExamples:\n    >>> 1\n    1", raises=True)


def test_an_example_that_is_wrong_is_found():
    source = 'def f():\n    """Do.\n\n    >>> torch.ones(2).sum().item()\n    {}\n    """\n'
    (text,) = docstrings(source.format("2.0")).values()
    assert not run([("batvit.checks", "f", text)])
    (text,) = docstrings(source.format("3.0")).values()
    assert "Expected:\n    3.0\nGot:\n    2.0" in run([("batvit.checks", "f", text)])
    (text,) = docstrings("class A:\n    '''B.\n\n    >>> warnings.warn('x')\n    '''").values()
    assert "UserWarning" in run([("warnings", "A", text.replace("warnings.", ""))])
