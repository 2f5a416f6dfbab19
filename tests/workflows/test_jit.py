"""``torch.jit.trace`` of a patched model, and the tools that start from such a trace."""

import openvino
import pytest
import timm
import torch
from photographs import model_and_photographs, needs_photographs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import batvit
from batvit.plans import PLANS
from batvit.reduction.site import reductions
from batvit.testing.run_contract import randomised

pytestmark = [
    pytest.mark.unchecked,
    # torch's own: tracing is old, and what is fixed to an image size it says of the dense model too
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
SIZE = 96


def dense(**settings):
    small = {"img_size": SIZE, "depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": 7}
    return randomised(timm.create_model("deit_tiny_patch16_224", **(small | settings)))


def noise(batch, seed=0):
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def remembered(model):
    """All that the sites of a model have kept of its passes."""
    kept = []
    for site in reductions(model).values():
        for patches, counts in site._counts.items():
            kept.extend([patches, *counts])
    return kept


CONFIGS = {
    "training-free": {"keep_rate": 0.6, "blocks": (1,)},
    "gradual": {"mode": "gradual", "keep_rate": 0.6},
    "all neighbours": {"keep_rate": 0.6, "blocks": (0, 1), "neighbours": None},
    "greedy": {"keep_rate": 0.6, "blocks": (1,), "matching": "greedy"},
}
for name, known in PLANS.items():
    fields = {"method": name, "keep_rate": 0.6, "blocks": (1,), **known.paper_fields}
    CONFIGS[name] = {"config": batvit.BATConfig(**fields)}


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS.keys())
@torch.no_grad()
def test_a_trace_computes_what_the_model_does_for_any_batch(fields):
    model = batvit.patch(dense(), **fields)
    # its own check traces a second time
    traced = torch.jit.trace(model, noise(2))
    for batch in (1, 2, 5):
        torch.testing.assert_close(traced(noise(batch, seed=3)), model(noise(batch, seed=3)))
    assert {type(number) for number in remembered(model)} == {int}


@torch.no_grad()
def test_a_trace_does_not_depend_on_whether_the_model_ran_before():
    fresh = batvit.patch(dense(), keep_rate=0.6, blocks=(1,))
    used = batvit.patch(dense(), keep_rate=0.6, blocks=(1,))
    used.load_state_dict(fresh.state_dict())
    used(noise(2))
    graphs = [torch.jit.trace(model, noise(2)) for model in (fresh, used)]
    lines = [str(graph.inlined_graph).count("\n") for graph in graphs]
    assert lines[0] == lines[1]
    assert torch.equal(graphs[0](noise(3)), graphs[1](noise(3)))


@torch.no_grad()
def test_a_trace_of_a_hooked_attention_captures_its_queries_and_keys():
    model = batvit.patch(dense(), keep_rate=0.6, blocks=(1,))
    expected = model(noise(2))
    heard = []
    model.blocks[1].attn.register_forward_hook(lambda *given: heard.append(given))
    torch.testing.assert_close(torch.jit.trace(model, noise(2))(noise(2)), expected)
    assert heard


def test_groups_can_be_recorded_while_a_graph_is_traced():
    model = batvit.patch(dense(), keep_rate=0.6, blocks=(1,))
    with batvit.trace(model) as trace:
        torch.jit.trace(model, noise(2), check_trace=False)
    assert trace.image_size == (SIZE, SIZE)
    assert [type(side) for side in trace.image_size] == [int, int]


# the tools


@pytest.mark.parametrize(
    "name", ["training-free", "gradual", "tome", "topk", "random", "pitome", "mctf", "diffrate"]
)
@torch.no_grad()
def test_openvino_converts_a_model_by_an_example(name):
    model = batvit.patch(dense(), **CONFIGS[name])
    graph = openvino.convert_model(model, example_input=noise(2))
    run = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (2, 5):
        found = torch.from_numpy(run(noise(batch, seed=3).numpy())[0])
        torch.testing.assert_close(found, model(noise(batch, seed=3)), rtol=1e-4, atol=1e-4)


def test_tensorboard_draws_the_graph(tmp_path):
    model = batvit.patch(dense(), keep_rate=0.6, blocks=(1,))
    with SummaryWriter(tmp_path) as writer:
        writer.add_graph(model, noise(2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert "reduce" in str(events.Graph())
    assert {type(number) for number in remembered(model)} == {int}


def test_fvcore_counts_fewer_operations():
    # it scripts a function of its own, at which torch warns
    from fvcore.nn import FlopCountAnalysis

    model = dense()
    before = FlopCountAnalysis(model, noise(1)).unsupported_ops_warnings(False).total()
    batvit.patch(model, keep_rate=0.6, blocks=(1,))
    expected = model(noise(1))
    counted = FlopCountAnalysis(model, noise(1)).unsupported_ops_warnings(False)
    by_module = counted.by_module()
    assert by_module["blocks.0"] > by_module["blocks.2"]
    assert by_module["blocks.2.mlp"] == by_module["blocks.0.mlp"] * 24 // 37
    assert counted.total() < before
    assert torch.equal(model(noise(1)), expected)


# pictures


@needs_photographs
@torch.no_grad()
def test_photographs_get_the_logits_of_the_model(tmp_path):
    model, images = model_and_photographs(tmp_path, every=60, batch_size=17)
    traced = torch.jit.trace(model, images[:2])
    torch.testing.assert_close(traced(images), model(images))
