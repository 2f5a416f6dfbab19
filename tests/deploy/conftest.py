"""Small models, and exported files, that the tests of several files start from."""

import zipfile
from contextlib import contextmanager

import pytest
import timm

import batvit
from batvit.deploy import export as exporter
from batvit.deploy.export import export
from batvit.deploy.load import load_engine
from batvit.testing.run_contract import randomised

TRACED = {}
TRACE = exporter._program


@pytest.fixture(scope="session")
def traced_once():
    """A model that is written more than once is traced the first time alone."""

    @contextmanager
    def once(key):
        def program(plain, shape):
            if key not in TRACED:
                TRACED[key] = TRACE(plain, shape)
            return TRACED[key]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(exporter, "_program", program)
            yield

    return once


@pytest.fixture(scope="session")
def dense():
    """Make a model of 36 patches unless said otherwise; every parameter random."""

    def make(name="deit_tiny_patch16_224", **settings):
        small = {
            "img_size": 48,
            "patch_size": 8,
            "depth": 2,
            "embed_dim": 48,
            "num_heads": 3,
            "num_classes": 7,
        }
        return randomised(timm.create_model(name, **(small | settings)))

    return make


@pytest.fixture(scope="session")
def reduced(dense):
    """Make one with a site with pairs, and clusters by the nearest neighbour alone."""

    def make(**settings):
        fields = {
            "keep_rate": 0.6,
            "blocks": (0,),
            "pairs": 4,
            "neighbours": 2,
            "importance_power": 0.25,
        }
        return batvit.patch(dense(), **(fields | settings))

    return make


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with one dense model in each format."""
    folder = tmp_path_factory.mktemp("files")
    settings = {"img_size": 32, "depth": 1, "embed_dim": 48, "num_heads": 3, "num_classes": 7}
    model = randomised(timm.create_model("deit_tiny_patch16_224", **settings))
    for suffix in (".onnx", ".xml", ".pt2"):
        export(model, folder / f"good{suffix}")
    return folder


@pytest.fixture
def refuses():
    """Check that loading ends with one line; give it."""

    def check(path, kind=ValueError, **settings):
        with pytest.raises(kind) as caught:
            load_engine(path, **settings)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        return message

    return check


@pytest.fixture(scope="session")
def rewrite():
    """Copy an archive: other contents, by the end of their names, replace, add or (None) remove."""

    def copy(source, target, contents):
        with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
            root = before.namelist()[0].split("/")[0]
            entries = {name: before.read(name) for name in before.namelist()}
            for end, content in contents.items():
                entries[f"{root}/{end}"] = content
            for name, content in entries.items():
                if content is not None:
                    after.writestr(name, content)

    return copy
