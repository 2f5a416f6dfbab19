"""The setting of torch as a constant of a graph, which is made anew when it changes."""

import pytest
import torch

from batvit.core import Assignment, merge
from batvit.core.frozen_rounding import frozen_rounding
from batvit.core.rounding import rounds_products

pytestmark = pytest.mark.unchecked


def test_it_says_what_is_set():
    assert frozen_rounding("cpu") == rounds_products("cpu")


def test_a_graph_merges_in_three_parts_only_where_products_are_rounded():
    products = []

    def backend(graph, inputs):
        products.append(sum("matmul" in str(node.target) for node in graph.graph.nodes))
        return graph.forward

    x = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    alone = Assignment.identity(2, 8)
    before = torch.get_float32_matmul_precision()
    compiled = torch.compile(lambda x: merge(x, alone), fullgraph=True, backend=backend)
    try:
        for setting in ("highest", "high"):
            torch.set_float32_matmul_precision(setting)
            assert torch.equal(compiled(x), x)
    finally:
        torch.set_float32_matmul_precision(before)
        torch._dynamo.reset()
    # the sum of the weights, and of the tokens
    assert products == [2, 6]
