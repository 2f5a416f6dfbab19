"""Tools that listen to the modules of a model: what they say of a reduced one is true."""

import pytest
import torch
from families import family, pictures
from torch import nn

import batvit
from batvit.backbones.registry import anatomy_of

captum = pytest.importorskip("captum.attr", reason="captum is not installed")
grad_cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")

FAMILIES = ["deit", "dinov3", "torchvision"]


def reduced(name, **settings):
    model = batvit.patch(family(name, 4), keep_rate=0.5, blocks=(1,), align=1, **settings)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model, pictures(model), anatomy_of(model)


def tokens_after(anatomy):
    """(prefix + tokens) after each block: half of the patches go on after the second."""
    whole = anatomy.patches + anatomy.prefix
    half = anatomy.patches // 2 + anatomy.prefix
    # where the head reads patches, the last block gives the grid back
    return [whole, half, half, whole if anatomy.reads_patches else half]


@pytest.mark.parametrize("name", FAMILIES)
def test_torchinfo_counts_the_tokens_that_are_left(name):
    model, x, anatomy = reduced(name)
    expected = model(x)
    statistics = torchinfo.summary(model, input_data=x, verbose=0, depth=4)
    sizes = {each.layer_id: each for each in statistics.summary_list}
    by_module = {id(each.module): each.output_size for each in sizes.values()}
    found = [by_module[id(block)] for block in anatomy.blocks]
    assert found == [[2, tokens, 48] for tokens in tokens_after(anatomy)]
    batvit.unpatch(model)
    dense = torchinfo.summary(model, input_data=x, verbose=0, depth=4)
    assert statistics.total_params == dense.total_params
    batvit.patch(model, keep_rate=0.5, blocks=(1,), align=1)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_captum_has_the_activation_and_the_gradient_of_a_block(name):
    model, x, anatomy = reduced(name)
    expected = model(x)
    block = anatomy.blocks[2]
    tokens = tokens_after(anatomy)[2]
    activation = captum.LayerActivation(model, block).attribute(x)
    assert activation.shape == (2, tokens, 48)
    slope = captum.LayerGradientXActivation(model, block).attribute(x, target=3)
    heard = []
    hook = block.register_forward_hook(lambda module, args, output: heard.append(output))
    logits = model(x)
    hook.remove()
    own = torch.autograd.grad(logits[:, 3].sum(), heard[0])[0] * heard[0]
    assert slope.abs().sum() > 0
    torch.testing.assert_close(slope.as_subclass(torch.Tensor), own.as_subclass(torch.Tensor))
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_captum_puts_features_of_its_own_batch_into_no_block(name):
    model, x, anatomy = reduced(name)
    block = anatomy.blocks[2]
    method = captum.LayerIntegratedGradients(model, block)
    with pytest.raises(Exception, match=r"a .*block.* takes|batch") as caught:
        method.attribute(x, baselines=torch.zeros_like(x), target=3, n_steps=4)
    message = str(caught.value) + str(caught.value.__cause__)
    assert "features" in message or "sizes of its tokens" in message
    # of the input it works as ever
    whole = captum.IntegratedGradients(model).attribute(x[:1], target=3, n_steps=4)
    assert whole.shape == x[:1].shape


@pytest.mark.parametrize("name", FAMILIES)
def test_grad_cam_lays_out_the_grid_and_nothing_else(name):
    model, x, anatomy = reduced(name)
    rows, columns = anatomy.grid

    def as_dense(features):
        patches = features[:, anatomy.prefix :]
        return patches.reshape(len(patches), rows, columns, -1).permute(0, 3, 1, 2)

    target = [grad_cam.utils.model_targets.ClassifierOutputTarget(3)] * 2
    cam = grad_cam.GradCAM(model, [anatomy.blocks[2]], reshape_transform=as_dense)
    with pytest.raises(ValueError, match=r"forward_intermediates.*grid\(\).*unpatch"):
        cam(x, target)
    cam.activations_and_grads.release()
    # every block before the first site has a grid of its own
    cam = grad_cam.GradCAM(model, [anatomy.blocks[0]], reshape_transform=as_dense)
    assert cam(x, target).shape == (2, *x.shape[-2:])
    cam.activations_and_grads.release()


def summary_by_shape(model, x):
    """What the summary of Lightning keeps: of every module the shapes that come in and go out."""
    shapes = {}

    def shape_of(batch):
        if hasattr(batch, "shape"):
            return list(batch.shape)
        if isinstance(batch, list | tuple):
            return [shape_of(each) for each in batch]
        return "?"

    hooks = [
        module.register_forward_hook(
            lambda _, args, output, name=name: shapes.update(
                {name: (shape_of(args), shape_of(output))}
            )
        )
        for name, module in model.named_modules()
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.mark.parametrize("name", FAMILIES)
def test_a_summary_by_shapes_has_those_of_the_tokens(name):
    model, x, anatomy = reduced(name)
    shapes = summary_by_shape(model, x)
    tokens = tokens_after(anatomy)
    for i, block in enumerate(anatomy.blocks):
        path = next(name for name, module in model.named_modules() if module is block)
        arrived, left = shapes[path]
        assert left == [2, tokens[i], 48]
        assert arrived[0] == [2, tokens[max(0, i - 1)], 48]
    site = next(name for name in shapes if name.endswith("reduce"))
    assert shapes[site][1] == [2, tokens[1], 48]


def test_global_hooks_hear_tensors():
    model, x, _ = reduced("deit")
    kinds = []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: kinds.append(isinstance(output, torch.Tensor))
    )
    model(x)
    hook.remove()
    assert kinds
    assert all(kinds)
