"""One contract for every family."""

from functools import cache

import pytest
from families import FAMILIES, pictures, small

from batvit.testing.contract import CHECKS
from batvit.testing.run_contract import check_backbone

NOT_OFFERED = {(name, "gradient_checkpointing") for name in ("torchvision", "hf_mgp")}


@cache
def made(name):
    """Each check works on a copy."""
    return small(name)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_contract(name, check):
    passed = check_backbone(lambda: made(name), pictures(made(name)), only=check)
    assert passed == ([] if (name, check) in NOT_OFFERED else [check])
