"""Whether products of float32 are rounded: the setting of torch, whichever way it was made."""

import pytest
import torch

from batvit.core.rounding import rounds_products


@pytest.fixture(autouse=True)
def settings():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("setting", "expected"), [("highest", False), ("high", True), ("medium", True)]
)
def test_the_setting_of_all_products_is_read(setting, expected):
    torch.set_float32_matmul_precision(setting)
    assert rounds_products("cuda") == expected


def test_the_setting_of_cuda_alone_is_read():
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = True
    assert rounds_products("cuda")
    torch.backends.cuda.matmul.allow_tf32 = False
    assert not rounds_products("cuda")
