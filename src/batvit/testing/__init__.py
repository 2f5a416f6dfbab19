"""Does it work: a backbone that keeps its promises, and the whole library on handwritten digits.

- ``run_contract``: :func:`check_backbone` runs the contract on a model, and :func:`randomised`
  gives it weights that show what is dropped.
- ``contract``: the checks, one function a promise.
- ``demo``: train, reduce, fine-tune, compare and draw, as ``batvit demo`` does.
"""

from batvit.testing.run_contract import check_backbone, randomised

__all__ = ["check_backbone", "randomised"]
