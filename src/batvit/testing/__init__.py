"""What every supported model must do, for those who write an adapter.

- ``run_contract``: :func:`check_backbone` runs the contract on a model, and :func:`randomised`
gives
  it weights that show what is dropped.
- ``contract``: the checks, one function a promise.
"""

from batvit.testing.run_contract import check_backbone, randomised

__all__ = ["check_backbone", "randomised"]
