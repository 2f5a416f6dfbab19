"""Batches that do not fit: told before they are filled, and from other errors afterwards."""

import pytest
import timm
import torch

from batvit.measure.memory import Fitting, check_batch, each_that_fits, is_memory


@pytest.mark.parametrize(
    ("error", "of_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("you tried to allocate memory"), True),
        (RuntimeError("Storage size calculation overflowed with sizes"), True),
        (RuntimeError("a bug"), False),
        (ValueError("bad"), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error, of_memory):
    assert is_memory(error) == of_memory


@pytest.fixture(scope="module")
def model():
    return timm.create_model("test_vit")


def test_a_batch_beyond_the_machines_memory_is_refused(model):
    check_batch(model, 1)
    with pytest.raises(MemoryError, match=r"GiB of pictures, where .* GiB are there"):
        check_batch(model, 10**12)


def test_what_fits_is_measured_up_to_the_first_that_does_not(model):
    seen = []

    def measure(batch_size):
        seen.append(batch_size)
        if batch_size == 4:
            raise RuntimeError("CUDA out of memory\nmore lines")
        return 10 * batch_size

    found = each_that_fits(measure, (1, 2, 4, 8), model)
    assert (found.results, seen) == ([10, 20], [1, 2, 4])
    assert str(found.failure) == "batch 4: CUDA out of memory"
    assert each_that_fits(measure, (1, 8), model) == Fitting([10, 80], None)
    found = each_that_fits(measure, (2, 10**12, 1), model)
    assert found.results == [20]
    assert str(found.failure).startswith("batch 1000000000000: ")


def test_another_error_is_no_matter_of_memory(model):
    def broken(batch_size):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        each_that_fits(broken, (1,), model)
