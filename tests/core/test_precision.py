import pytest
import torch

from batvit.core.precision import full_precision, products

SEED = torch.Generator().manual_seed(0)
TOKENS = torch.randn(2, 5, 8, generator=SEED)
OTHERS = torch.randn(2, 3, 8, generator=SEED)


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
