"""Engines of every format are modules for inference."""

import pytest
import torch

from batvit.deploy.load import load_engine

pytestmark = pytest.mark.unchecked
SUFFIXES = (".onnx", ".xml", ".pt2")
IMAGES = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (2, 1, 32, 32), (3, 32, 32), (2, 3, 32)])
def test_images_of_another_shape_are_refused(files, suffix, shape):
    with pytest.raises(ValueError, match=r"takes images of \(3, 32, 32\), got \("):
        load_engine(files / f"good{suffix}")(torch.zeros(shape))


def test_results_do_not_change_when_the_next_are_computed(files):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for suffix in SUFFIXES:
        engine = load_engine(files / f"good{suffix}")
        first = engine(images)
        kept = first.clone()
        engine(images.flip(0))
        assert torch.equal(first, kept)
        assert not torch.equal(first, kept.flip(0))


@pytest.mark.parametrize(
    ("suffix", "runtime"),
    [(".onnx", "ONNX Runtime 1."), (".xml", "OpenVINO 20"), (".pt2", "torch 2.")],
)
def test_an_engine_is_a_module_for_inference(files, suffix, runtime):
    engine = load_engine(files / f"good{suffix}", threads=1).eval()
    assert not engine.training
    assert engine.runtime.startswith(runtime)
    assert engine.num_classes == 7
    assert engine.pretrained_cfg["mean"] == (0.485, 0.456, 0.406)
    assert engine.train().training
    assert engine(IMAGES).shape == (1, 7)


def test_other_engines_have_no_weights_of_torch(files):
    for suffix in SUFFIXES[:2]:
        engine = load_engine(files / f"good{suffix}", threads=1)
        assert not list(engine.parameters())
