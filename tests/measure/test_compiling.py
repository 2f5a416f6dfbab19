"""Which errors are blamed on the compiler, and in which words."""

import pytest
import torch
from torch._dynamo.exc import TorchRuntimeError, Unsupported
from torch._inductor.exc import InductorError

from batvit.measure.compiling import explained_compiler


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("torch.compile is not supported on Python 3.20+"), "is not supported"),
        (InductorError(RuntimeError("no g++"), None), "no g++"),
        (Unsupported("a graph break"), "a graph break"),
    ],
    ids=["nowhere", "backend", "graph"],
)
def test_an_error_of_the_compiler_is_one_line_with_a_remedy(error, reason):
    words = r"torch.compile does not work here \(.*\); run"
    with pytest.raises(ValueError, match=words) as said, explained_compiler():
        raise error
    assert reason in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "error",
    [TorchRuntimeError("the model's own"), RuntimeError("a bug"), torch.OutOfMemoryError("x")],
    ids=["model", "bug", "memory"],
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as said, explained_compiler():
        raise error
    assert said.value is error
