import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from batvit.core.precision import full_precision, products, rows_of

precision = sys.modules["batvit.core.precision"]

SEED = torch.Generator().manual_seed(0)
TOKENS = torch.randn(2, 5, 8, generator=SEED)
OTHERS = torch.randn(2, 3, 8, generator=SEED)


class RoundedFactors(TorchFunctionMode):
    """Rounds the factors of products of float32 to so many bits behind the first."""

    def __init__(self, bits):
        super().__init__()
        self.bits = bits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul, torch.bmm):
            args = [self.rounded(factor) for factor in args]
        return func(*args, **(kwargs or {}))

    def rounded(self, x):
        lost = 2 ** (23 - self.bits)
        bits = x.contiguous().view(torch.int32)
        return ((bits + lost // 2) & -lost).view(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_products_are_float32_and_those_of_the_tokens_as_they_are(dtype):
    a, b = TOKENS.to(dtype), OTHERS.to(dtype)
    found = products(a, b)
    assert found.dtype == torch.float32
    exact = a.double() @ b.double().transpose(1, 2)
    # bfloat16 is rounded once, to 8 bits
    tolerance = 2**-8 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


def test_products_of_float16_do_not_overflow():
    large = torch.full((1, 1, 4), 1000.0, dtype=torch.float16)
    assert products(large, large).item() == 4e6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_shorten_products(dtype):
    expected = products(TOKENS, OTHERS)
    with torch.autocast("cpu", dtype=dtype):
        assert (TOKENS @ OTHERS.transpose(1, 2)).dtype == dtype
        found = products(TOKENS, OTHERS)
        with full_precision(TOKENS):
            assert (TOKENS @ OTHERS.transpose(1, 2)).dtype == torch.float32
    assert torch.equal(found, expected)


def test_on_the_meta_device_there_is_nothing_to_keep():
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(TOKENS.to("meta")):
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("bits", [7, 10], ids=["bfloat16", "TF32"])
def test_a_row_that_is_one_one_gives_its_row_bit_for_bit_in_rounded_products(monkeypatch, bits):
    # as hardware does that rounds factors and adds in float32
    monkeypatch.setattr(precision, "rounds_products", lambda device: True)
    shares = torch.zeros(2, 3, 5)
    shares[:, 0, 3] = 1
    shares[:, 1, 0] = 1
    shares[:, 2, 1:3] = 0.5
    with RoundedFactors(bits):
        assert not torch.equal((shares @ TOKENS)[:, 0], TOKENS[:, 3])
        found = rows_of(shares, TOKENS)
    assert torch.equal(found[:, :2], TOKENS[:, [3, 0]])
    torch.testing.assert_close(found[:, 2], TOKENS[:, 1:3].mean(1))
