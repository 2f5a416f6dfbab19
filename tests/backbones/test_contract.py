"""One contract for every family."""

import copy
import pickle
import threading

import pytest
import torch
from families import FAMILIES, family, pictures

import batvit
from batvit.backbones.patch import geometry

MODES = ("paper", "training_free")
pytestmark = pytest.mark.parametrize("name", FAMILIES)


def run(model, x):
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("mode", MODES)
def test_keeping_everything_equals_the_untouched_model(name, mode):
    model = family(name)
    x = pictures(model)
    expected = run(model, x)
    batvit.patch(model, mode=mode, keep_rate=1.0)
    assert type(model.blocks[1]).__name__ == "ReducedBlock"
    found = run(model, x)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("mode", MODES)
def test_unpatch_restores_bit_for_bit(name, mode):
    model = family(name)
    x = pictures(model)
    expected, keys = run(model, x), list(model.state_dict())
    attributes = [sorted(vars(block)) for block in model.blocks]
    batvit.patch(model, mode=mode, keep_rate=0.5)
    assert list(model.state_dict()) == keys
    assert not torch.equal(run(model, x), expected)
    batvit.unpatch(model)
    assert list(model.state_dict()) == keys
    assert [sorted(vars(block)) for block in model.blocks] == attributes
    assert torch.equal(run(model, x), expected)
    assert batvit.config_of(model) is None


def test_counts_are_those_of_the_configuration(name):
    model = family(name)
    batvit.patch(model, tokens=(20, 11, 5), blocks=(1, 2, 4))
    prefix = geometry(model).prefix
    seen = []
    for block in model.blocks[:-1]:
        block.register_forward_hook(lambda m, a, out: seen.append(getattr(out, "x", out).shape[1] - prefix))
    with batvit.trace(model) as trace:
        out = run(model, pictures(model))
    patches = geometry(model).patches
    assert seen == [patches, 20, 11, 11]
    assert [site.origin.groups for site in trace.sites] == [20, 11, 5]
    assert all(site.origin.is_total and site.origin.is_onto for site in trace.sites)
    assert all(torch.equal(site.size, site.origin.sizes.float()) for site in trace.sites)
    assert out.isfinite().all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
def test_copies_compute_the_same_and_are_independent(name, copied):
    model = batvit.patch(family(name), keep_rate=0.6)
    x = pictures(model)
    expected = run(model, x)
    twin = copied(model)
    assert torch.equal(run(twin, x), expected)
    assert batvit.config_of(twin) == batvit.config_of(model)
    batvit.unpatch(twin)
    assert torch.equal(run(model, x), expected)


def test_gradient_checkpointing_gives_the_same_gradients(name):
    model = batvit.patch(family(name), keep_rate=0.6)
    x = pictures(model)
    gradients = []
    for checkpointing in (False, True):
        model.set_grad_checkpointing(checkpointing)
        model.zero_grad()
        model(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.blocks.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    assert sum(g.abs().sum() for g in gradients[0]) > 0
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision(name, dtype):
    model = batvit.patch(family(name), keep_rate=0.6)
    x = pictures(model)
    with torch.autocast("cpu", dtype=dtype):
        assert run(model, x).isfinite().all()
    assert run(model.to(dtype), x.to(dtype)).dtype == dtype


def test_two_threads_call_one_model_at_once(name):
    model = batvit.patch(family(name), keep_rate=0.6)
    inputs = [pictures(model, batch=b, seed=b) for b in (1, 3)]
    expected = [run(model, x) for x in inputs]
    wrong = []

    def work(x, y):
        wrong.extend(1 for _ in range(10) if not torch.equal(run(model, x), y))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_second_patch_replaces_the_first(name):
    model = family(name)
    x = pictures(model)
    expected = run(batvit.patch(copy.deepcopy(model), mode="paper", keep_rate=0.4), x)
    batvit.patch(model, keep_rate=0.8, blocks=(1, 2))
    batvit.patch(model, mode="paper", keep_rate=0.4)
    assert torch.equal(run(model, x), expected)
    assert batvit.config_of(model) == batvit.BATConfig.preset("paper", keep_rate=0.4)


def test_every_picture_is_reduced_on_its_own(name):
    model = batvit.patch(family(name), keep_rate=0.5)
    x = pictures(model, batch=4)
    together = run(model, x)
    for i in range(4):
        torch.testing.assert_close(run(model, x[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-4)


def test_info_agrees_with_what_runs(name):
    model = batvit.patch(family(name), keep_rate=0.5)
    with batvit.trace(model) as trace:
        run(model, pictures(model))
    found = batvit.info(model)
    assert [found.blocks[s.counts.block].tokens_out for s in trace.sites] == [s.origin.groups for s in trace.sites]
    assert found.macs < found.dense_macs
    assert found.dense_macs == batvit.info(batvit.unpatch(model)).macs
