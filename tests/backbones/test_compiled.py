"""What cannot run under a shape checker: graphs. One contract for every family."""

import shutil

import pytest
import torch
from families import FAMILIES, family, pictures
from torch.utils._pytree import tree_leaves

import batvit
from batvit.backbones.patch import anatomy_of

# of these the tower, which alone is compiled, is another's
SAME = ("augreg", "hf_clip", "hf_siglip")
GRAPHS = [name for name in FAMILIES if name not in SAME]
pytestmark = pytest.mark.unchecked
compiler = shutil.which("g++") or shutil.which("clang++")


def close(found, expected):
    """Two outputs, whatever holds their tensors."""
    for x, y in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def reduced_tower(name, mode):
    """A block that reduces, and one after it; of one family one before it, too."""
    depth, site = (3, 1) if name == "deit" else (2, 0)
    return anatomy_of(batvit.patch(family(name, depth=depth), mode=mode, keep_rate=0.6, blocks=(site,))).tower


@pytest.mark.parametrize(("name", "mode"), [*((name, "training_free") for name in GRAPHS), ("deit", "paper")])
def test_one_graph_and_no_recompilation(name, mode):
    model = reduced_tower(name, mode)
    first, second = pictures(model, seed=1), pictures(model, seed=2)
    graph = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for x in (first, second):
            close(graph(x), model(x))


@pytest.mark.parametrize("name", GRAPHS)
def test_exports(name):
    model = reduced_tower(name, "training_free")
    x = pictures(model)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        close(program.module()(x), model(x))


@pytest.mark.skipif(compiler is None, reason="torch's default backend needs a C++ compiler")
def test_the_default_backend_computes_the_same():
    model = batvit.patch(family("deit", depth=2), keep_rate=0.6, blocks=(0,))
    x = pictures(model)
    results = []
    for run in (model, torch.compile(model, fullgraph=True)):
        logits = run(x)
        model.zero_grad()
        logits.square().sum().backward()
        results.append((logits, *(parameter.grad for parameter in model.parameters())))
    (expected, *slopes), (found, *others) = results
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for one, other in zip(slopes, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
