"""Gradients of each sample: torch.func, and opacus on top of it."""

import pytest
import torch
from families import family, pictures
from torch.func import functional_call, grad, vmap

import batvit
from batvit.plans import PLANS

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")


def reduced(name, **settings):
    return batvit.patch(family(name, 4).train(), keep_rate=0.6, blocks=(1, 2), **settings)


def by_samples(model, x):
    """The gradients of every parameter for one picture after the other."""
    found = []
    for picture in x:
        model.zero_grad()
        model(picture[None]).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    return found


def by_vmap(model, x):
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights, picture):
        return functional_call(model, weights, (picture[None],)).square().sum()

    return vmap(grad(loss), in_dims=(None, 0))(weights, x)


CASES = [
    *[("deit", {"method": method}) for method in PLANS],
    ("deit", {"mode": "gradual"}),
    ("eva02", {}),
    ("dinov2", {"mode": "paper"}),
]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_vmap_has_the_gradients_of_every_sample(name, settings):
    model = reduced(name, **settings)
    x = pictures(model, batch=3)
    found = by_vmap(model, x)
    for i, expected in enumerate(by_samples(model, x)):
        for key, slope in expected.items():
            torch.testing.assert_close(found[key][i], slope, rtol=1e-3, atol=1e-4)


def test_vmap_over_models():
    model = reduced("deit").eval()
    x = pictures(model)
    models = [
        {key: p.detach() * scale for key, p in model.named_parameters()} for scale in (1, 1.1)
    ]
    stacked = {key: torch.stack([each[key] for each in models]) for key in models[0]}
    found = vmap(lambda weights: functional_call(model, weights, (x,)))(stacked)
    for one, weights in zip(found, models, strict=True):
        torch.testing.assert_close(one, functional_call(model, weights, (x,)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["deit", "dinov2"])
@pytest.mark.filterwarnings("ignore")
def test_opacus_clips_by_samples(name):
    opacus = pytest.importorskip("opacus", reason="opacus is not installed")
    model = reduced(name)
    x = pictures(model, batch=3)
    expected = by_samples(model, x)
    watched = opacus.GradSampleModule(model, loss_reduction="sum")
    watched(x).square().sum().backward()
    for key, parameter in watched._module.named_parameters():
        for i in range(3):
            torch.testing.assert_close(
                parameter.grad_sample[i], expected[i][key], rtol=1e-3, atol=1e-4
            )
