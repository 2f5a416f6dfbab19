"""The counts of a compiled graph are those of the configuration."""

import json

import pytest
import torch

from batvit.config import BATConfig
from batvit.plans.plan import Counts
from batvit.reduction.frozen_counts import frozen_counts
from batvit.reduction.schedule import counts_at
from batvit.reduction.site import Reduce


def in_json(config):
    return json.dumps(config.to_dict())


@pytest.mark.parametrize("mode", ["paper", "training-free", "gradual"])
def test_they_are_those_of_the_schedule(mode):
    config = BATConfig.preset(mode, keep_rate=0.6)
    for block in config.sites(12):
        found = frozen_counts(in_json(config), block, 12, 196, 1)
        assert found == counts_at(config, block, depth=12, patches=196, prefix=1)


def test_why_there_are_none_is_returned():
    config = BATConfig(tokens=(8,), blocks=(0,))
    found = frozen_counts(in_json(config), 0, 1, 4, 1)
    assert found == "block 0: 8 tokens cannot go on where 4 come in; lower tokens"


@pytest.mark.unchecked
def test_in_a_graph_a_site_has_the_same_counts():
    site = Reduce(BATConfig(keep_rate=0.5), 3, depth=12, prefix=1, class_token=True)

    def tokens_out(x):
        return x + site.counts(x.shape[0]).tokens_out

    torch._dynamo.reset()
    graph = torch.compile(tokens_out, fullgraph=True, backend="eager")
    assert torch.equal(graph(torch.zeros(196)), torch.full((196,), 98.0))
    assert site.counts(196) == Counts(3, 196, 76, 7, 29, 98)
    torch._dynamo.reset()
