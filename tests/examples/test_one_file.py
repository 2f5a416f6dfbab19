import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import batvit
from batvit.reduction.schedule import schedule

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_file.py"


@pytest.fixture(scope="module")
def one_file(imported):
    return imported(EXAMPLE)


@pytest.mark.parametrize("keep_rate", [0.7, 0.5])
def test_one_file_equals_the_library(one_file, keep_rate):
    model = timm.create_model("deit_tiny_patch16_224").eval()
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.02
            )
    config = batvit.BATConfig.preset("paper", keep_rate=keep_rate)
    sites = {
        c.block: (c.attentive, c.pairs, c.centres) for c in schedule(config, depth=12, patches=196)
    }
    other = one_file.VisionTransformer(sites).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dense, expected, found = model(x), batvit.patch(model, config)(x), other(x)
    assert (expected - dense).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_file_runs_alone():
    hidden = "import sys; sys.modules['timm'] = sys.modules['batvit'] = None"
    program = f"{hidden}; exec(open({str(EXAMPLE)!r}).read())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "torch.Size([2, 1000])" in done.stdout
