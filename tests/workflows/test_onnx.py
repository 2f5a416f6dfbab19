"""``torch.onnx.export`` of a patched model, by torch's caller and by timm's; ONNX quantised."""

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import torchvision
import transformers
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic
from onnxruntime.quantization import quantize_static as quantize_by_pictures
from onnxruntime.quantization.shape_inference import quant_pre_process
from photographs import model_and_photographs, needs_photographs
from timm.utils.onnx import onnx_export
from torch import nn

import batvit
from batvit.plans import PLANS
from batvit.testing.run_contract import randomised

pytestmark = [
    pytest.mark.unchecked,
    # of torch's own translation, and of its older exporter
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
SIZE = 48
SMALL = {"img_size": SIZE, "patch_size": 8, "depth": 2, "num_classes": 7}
SITE = {"keep_rate": 0.6, "blocks": (0,)}


def timm_model():
    return timm.create_model("test_vit", **SMALL)


def torchvision_model():
    return torchvision.models.VisionTransformer(SIZE, 8, 2, 4, 48, 96, num_classes=7)


class Embedder(nn.Module):
    """What a service exports: a model of transformers, and what it does with its tokens."""

    def __init__(self):
        super().__init__()
        size = {"image_size": SIZE, "patch_size": 8, "hidden_size": 48, "num_attention_heads": 4}
        layers = {"num_hidden_layers": 2, "intermediate_size": 96}
        self.tower = transformers.ViTModel(transformers.ViTConfig(**size, **layers))
        self.head = nn.Linear(48, 5)

    def forward(self, images):
        pixels = images / 2 + 0.1
        tokens = self.tower(pixel_values=pixels).last_hidden_state
        return nn.functional.normalize(self.head(tokens.mean(dim=1)), dim=-1)


def noise(batch, seed=0):
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def exported(model, path, images=None):
    """Write a file as torch's documentation says, for any batch; give its session."""
    images = noise(2) if images is None else images
    torch.onnx.export(
        model,
        (images,),
        path,
        dynamo=True,
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def answer(session, images):
    name = session.get_inputs()[0].name
    return torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def assert_same(session, model):
    for batch in (1, 2, 5):
        images = noise(batch, seed=3)
        torch.testing.assert_close(answer(session, images), model(images), rtol=1e-4, atol=1e-5)


def config(method):
    return batvit.BATConfig(**(SITE | {"method": method} | dict(PLANS[method].paper_fields)))


ALONE = {"bat": timm_model, "tome": torchvision_model, "topk": timm_model}


@pytest.mark.parametrize("name", ALONE)
@torch.no_grad()
def test_a_model_alone_is_exported_for_any_batch(name, tmp_path):
    model = batvit.patch(randomised(ALONE[name]()), config(name))
    assert_same(exported(model, tmp_path / "model.onnx"), model)


@torch.no_grad()
def test_a_tower_inside_a_larger_model_is_exported(tmp_path):
    model = randomised(Embedder())
    batvit.patch(model.tower, **SITE)
    assert_same(exported(model, tmp_path / "model.onnx"), model)


@pytest.mark.parametrize("method", ["bat", "topk"])
@torch.no_grad()
def test_equal_importances_go_to_the_lower_index(method, tmp_path):
    model = randomised(timm_model())
    qkv = model.blocks[0].attn.qkv
    # queries of zero see all tokens alike
    qkv.weight[: model.embed_dim] = 0
    qkv.bias[: model.embed_dim] = 0
    batvit.patch(model, config(method))
    with batvit.trace(model) as trace:
        model(noise(2))
    kept = trace.sites[0].attentive[0].nonzero().flatten()
    assert torch.equal(kept, torch.arange(len(kept)))
    assert_same(exported(model, tmp_path / "model.onnx"), model)


@torch.no_grad()
def test_timms_script_exports_and_checks(tmp_path):
    model = batvit.patch(randomised(timm_model()), **SITE)
    path = str(tmp_path / "model.onnx")
    onnx_export(model, path, noise(2), check=True, check_forward=True, use_dynamo=True)
    assert_same(onnxruntime.InferenceSession(path), model)


def by_torchscript(model, path):
    torch.onnx.export(model, (noise(2),), path, dynamo=False, verbose=False)


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (timm_model, by_torchscript),
        (torchvision_model, by_torchscript),
        (Embedder, by_torchscript),
        (timm_model, lambda model, path: onnx_export(model, path, noise(2), use_dynamo=False)),
    ],
    ids=["timm", "torchvision", "inside a larger model", "timm's script"],
)
@torch.no_grad()
def test_the_torchscript_exporter_is_refused_in_one_line(make, write, tmp_path):
    model = make().eval()
    batvit.patch(getattr(model, "tower", model), **SITE)
    with pytest.raises(TypeError, match=r"^the TorchScript exporter .*dynamo=True") as caught:
        write(model, str(tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)


def test_shapes_that_may_change_are_named_as_for_the_dense_model():
    images = noise(2)
    batch = torch.export.Dim("batch", min=1, max=64)
    model = timm_model().eval()
    for patched in (False, True):
        if patched:
            batvit.patch(model, **SITE)
        for shapes in (({0: batch},), {"x": {0: batch}}):
            program = torch.export.export(model, (images,), dynamic_shapes=shapes)
            assert program.module()(noise(5)).shape == (5, 7)


# ONNX Runtime's quantiser, of the file that batvit writes


class Pictures(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"images": noise(4, seed).numpy()} for seed in range(3)])

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture(scope="module")
def quantisable(tmp_path_factory):
    """A model, and the file of it that the quantiser has prepared."""
    folder = tmp_path_factory.mktemp("quantised")
    model = batvit.patch(randomised(timm_model()), **SITE)
    batvit.export(model, folder / "model.onnx")
    quant_pre_process(folder / "model.onnx", folder / "prepared.onnx")
    return model, folder / "prepared.onnx"


@torch.no_grad()
def test_the_quantiser_knows_every_shape_of_our_file(quantisable):
    model, prepared = quantisable
    assert_same(onnxruntime.InferenceSession(prepared), model)
    graph = onnx.load(prepared).graph
    known = {value.name for value in (*graph.value_info, *graph.output)}
    unknown = {name for node in graph.node for name in node.output if name} - known
    assert not unknown


def dynamic(prepared, path):
    quantize_dynamic(prepared, path, weight_type=QuantType.QInt8)


def static(prepared, path):
    quantize_by_pictures(prepared, path, Pictures(), op_types_to_quantize=["MatMul", "Gemm"])


@pytest.mark.parametrize("quantise", [dynamic, static])
@torch.no_grad()
def test_our_file_is_quantised(quantise, quantisable, tmp_path):
    model, prepared = quantisable
    quantise(prepared, tmp_path / "int8.onnx")
    operators = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert operators & {"MatMulInteger", "QLinearMatMul", "DequantizeLinear"}
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    images = noise(16, seed=5)
    found = answer(session, images)
    assert found.shape == (16, 7)
    # weights and numbers of 8 bits, of a model of random weights
    together = np.corrcoef(found.flatten(), model(images).flatten())[0, 1]
    assert together > 0.9


# pictures


@needs_photographs
@torch.no_grad()
def test_photographs_get_the_logits_of_the_model(tmp_path):
    model, images = model_and_photographs(tmp_path, every=90, batch_size=12)
    session = exported(model, tmp_path / "model.onnx", images[:2])
    torch.testing.assert_close(answer(session, images), model(images), rtol=1e-3, atol=1e-3)
