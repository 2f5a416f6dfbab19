"""The door: what ``batvit`` hands out, without loading anything before it is asked for."""

import ast
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

import batvit

TREE = ast.parse(Path(batvit.__file__).read_text())


def run(code):
    """What a fresh interpreter prints, with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def names_for_type_checkers():
    """Each name that a type checker sees, and the module that it comes from."""
    (block,) = [
        node
        for node in TREE.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "typing.TYPE_CHECKING"
    ]
    found = {}
    for node in block.body:
        for alias in node.names:
            found[alias.name] = node.module
    return found


def test_to_import_it_loads_nothing():
    code = "import sys, batvit\nprint(*{name.partition('.')[0] for name in sys.modules})"
    assert not {"torch", "timm", "numpy", "matplotlib", "PIL", "jaxtyping"} & set(run(code))


def test_all_is_what_can_be_imported():
    # what else its file has is private, or a module
    code = "import types, batvit\nprint(*(n for n, v in vars(batvit).items() if n[0] != '_'))"
    assert set(run(code)) == {"backbones", "checks", "typing"}
    assert batvit.__all__ == sorted(batvit.__all__)
    assert all(hasattr(batvit, name) for name in batvit.__all__)


def test_a_star_imports_all():
    code = "from batvit import *\nprint(*(name for name in dir() if name[0] != '_'))"
    assert set(run(code)) == set(batvit.__all__)


def test_type_checkers_see_what_is_handed_out():
    seen = names_for_type_checkers()
    assert set(seen) == set(batvit.__all__)
    for name, module in seen.items():
        if name in ("compare", "tune"):
            assert module == "batvit"
            assert isinstance(getattr(batvit, name), types.ModuleType)
        else:
            assert getattr(batvit, name) is getattr(sys.modules[module], name)


def test_dir_names_what_is_not_loaded_yet():
    assert set(batvit.__all__) <= set(run("import batvit\nprint(*dir(batvit))"))


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match="module 'batvit' has no attribute 'nonsense'"):
        batvit.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="nonsense"):
        from batvit import nonsense  # noqa: F401


@pytest.mark.parametrize("name", sorted(set(batvit.__all__) - {"compare", "tune"}))
def test_what_it_hands_out_can_be_pickled(name):
    value = getattr(batvit, name)
    assert pickle.loads(pickle.dumps(value)) is value


def test_a_pickle_is_read_where_nothing_is_loaded(tmp_path):
    path = tmp_path / "config.pkl"
    path.write_bytes(pickle.dumps(batvit.BATConfig(keep_rate=0.5)))
    code = f"import pickle\nprint(pickle.load(open({str(path)!r}, 'rb')).keep_rate)"
    assert run(code) == ["0.5"]


def test_no_name_hides_a_room():
    root = Path(batvit.__file__).parent
    rooms = {path.stem for path in root.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms & set(batvit.__all__) == {"compare", "tune"}


def test_the_core_is_enough_to_patch_and_draw(tmp_path):
    """Without the packages of the extras, a model is patched, run, timed and drawn."""
    Image.new("RGB", (40, 30), (90, 60, 30)).save(tmp_path / "picture.png")
    code = f"""
import sys
from batvit.checks import EXTRAS
for package in (*EXTRAS, "sklearn", "transformers", "open_clip", "pandas"):
    sys.modules[package] = None
import timm, torch, batvit
from batvit.cli import main
model = timm.create_model("deit_tiny_patch16_224", depth=2).eval()
batvit.patch(model, keep_rate=0.5, blocks=(0,))
with torch.inference_mode(), batvit.trace(model):
    print(*model(torch.zeros(1, 3, 224, 224)).shape)
model = "deit_tiny_patch16_224"
torch.save(timm.create_model(model).state_dict(), {str(tmp_path / "weights.pth")!r})
weights = ["--checkpoint", {str(tmp_path / "weights.pth")!r}]
main(["info", model, "--keep-rate", "0.5"])
picture = [{str(tmp_path / "picture.png")!r}, "-o", {str(tmp_path / "groups.png")!r}]
print("drawn", main(["draw", model, *picture, *weights]))
print("trained", main(["train", "--recipe", "deit_tiny", "--data", "digits", "-o", "x"]))
"""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert found.stdout.split()[:2] == ["1", "1000"], found.stderr
    assert "drawn 0" in found.stdout
    assert "trained 2" in found.stdout
    assert found.stderr.splitlines()[-1].startswith(
        "batvit train: this needs the package accelerate: pip install accelerate"
    )
