"""Compiled: one graph, for every family."""

import shutil

import pytest
import torch
from families import GRAPHS, close, family, pictures, reduced_tower

import batvit

pytestmark = pytest.mark.unchecked
compiler = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "training-free") for name in GRAPHS), ("deit", "paper"), ("deit", "gradual")],
)
def test_one_graph_and_no_recompilation(name, mode):
    model = reduced_tower(name, mode)
    first, second = pictures(model, seed=1), pictures(model, seed=2)
    graph = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for x in (first, second):
            close(graph(x), model(x))


def test_patched_again_it_is_compiled_again():
    model = reduced_tower("deit", "training-free")
    graph = torch.compile(model, fullgraph=True, backend="eager")
    x = pictures(model)
    with torch.no_grad():
        for keep_rate in (0.5, 0.8, 0.65, 0.5):
            batvit.patch(model, keep_rate=keep_rate, blocks=(1,))
            close(graph(x), model(x))


def test_other_image_sizes_are_compiled_too():
    model = batvit.patch(family("dynamic"), keep_rate=0.6)
    graph = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        for side in (64, 48, 80):
            x = torch.randn(6, 3, side, side, generator=torch.Generator().manual_seed(side))
            found, expected = graph(x), model(x)
            assert found.shape == expected.shape
            # a graph adds in another order: on some processors a near tie goes the other way
            same = torch.isclose(found, expected, rtol=1e-4, atol=1e-4).all(dim=1)
            assert same.sum() >= 5


def test_an_image_too_small_is_refused_as_it_is_without_a_graph():
    model = batvit.patch(family("dynamic"), tokens=(8,), blocks=(0,))
    for run in (model, torch.compile(model, backend="eager")):
        with (
            torch.no_grad(),
            pytest.raises(ValueError, match="8 tokens cannot go on where 1 come in; lower tokens"),
        ):
            run(torch.zeros(1, 3, 16, 16))


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
