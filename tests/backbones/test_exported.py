"""Exported by torch: one graph, for every family."""

import pytest
import torch
from families import GRAPHS, close, pictures, reduced_tower

pytestmark = pytest.mark.unchecked


@pytest.mark.parametrize("name", GRAPHS)
def test_exports(name):
    model = reduced_tower(name, "training-free")
    x = pictures(model)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        close(program.module()(x), model(x))
