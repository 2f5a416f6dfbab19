"""What tests of several measurements start from."""

import pytest
import torch


@pytest.fixture
def quiet(monkeypatch):
    """Neither notes of torch's profiler on standard error, nor graphs that are left."""
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    yield
    torch.compiler.reset()


@pytest.fixture
def noted(monkeypatch):
    """What runs compiled, by its output's last dimension, and every mode that was asked for."""
    compiled, log, modes = torch.compile, [], []

    def backend(graph, inputs, mode="default"):
        modes.append(mode)

        def run(*arguments):
            result = graph.forward(*arguments)
            log.append(f"compiled {result[0].shape[-1]}")
            return result

        return run

    monkeypatch.setattr(
        torch, "compile", lambda model, **settings: compiled(model, backend=backend, **settings)
    )
    return log, modes
