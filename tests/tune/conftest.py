"""What tests of the search share: two small models, their costs, and a loss that is a function."""

import pytest
import timm
import torch

from batvit.backbones.registry import anatomy_of
from batvit.reduction.site import config_of
from batvit.tune.cost_model import CostModel, count_samples
from batvit.tune.objective import Score, TuningSet
from batvit.tune.search import Search
from batvit.tune.space import Candidate, varied_configs
from batvit.tune.trials import open_study

WEIGHTS = (0.02, 0.3, 0.18, 0.18, 0.5, 0.02, 0.01, 0.02, 0.02, 0.02, 0.0)


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=96, depth=5, embed_dim=48, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="session")
def candidate():
    """One for the small model."""
    return Candidate(3, 1, 3, 1.0, 0.5, 0.1, 2, "tokens", "size", True)


@pytest.fixture(scope="session")
def counted(model):
    """MACs of as many configurations as a cost model needs."""
    return count_samples(model, varied_configs(anatomy_of(model), 13))


@pytest.fixture(scope="session")
def cost(model, counted):
    return CostModel.fit(model, counted)


@pytest.fixture(scope="session")
def deep():
    """Twelve small blocks, as many as the starting points are for."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=192, depth=12, embed_dim=12, num_heads=3, num_classes=4
    ).eval()


@pytest.fixture(scope="session")
def cost_of_deep(deep):
    return CostModel(12, anatomy_of(deep).patches, 1, WEIGHTS)


@pytest.fixture(scope="session")
def tuning_set():
    """Makes a tuning set of random pictures."""

    def make(model, *, labelled=False, samples=6):
        draw = torch.Generator().manual_seed(1)
        batches = []
        for _ in range(samples // 3):
            images = torch.randn(3, 3, 96, 96, generator=draw)
            labels = torch.randint(0, 4, (3,), generator=draw)
            batches.append((images, labels))
        return TuningSet.of(model, batches, labelled=labelled)

    return make


@pytest.fixture(scope="session")
def data(model, tuning_set):
    return tuning_set(model)


@pytest.fixture
def stub(monkeypatch):
    """Lets a function of the configuration be the loss, and ten times that the drop.

    The function may raise. By default the loss grows as the tokens left in the end become few.
    """

    def left_over(config):
        return 1 / config.tokens[-1]

    def patch(loss_of=left_over):
        def score(model, data, report=lambda step, loss: None):
            loss = float(loss_of(config_of(model)))
            report(0, loss)
            return Score(torch.tensor([loss]), torch.tensor([10 * loss]))

        monkeypatch.setattr("batvit.tune.search.score", score)

    return patch


@pytest.fixture
def search(deep, cost_of_deep, tmp_path):
    """Opens the same search on no pictures, new or as it was left."""

    def opened(goal, seed=0, folder=tmp_path):
        no_pictures = TuningSet([], None, [])
        return Search(deep, no_pictures, cost_of_deep, goal, open_study(folder, seed=seed))

    return opened
