"""Does it work: a backbone that keeps its promises, and the whole library on handwritten digits.

- ``contract``: what every backbone promises, one function a promise.
- ``run_contract``: all of it on one model.
- ``demo``: train, reduce, fine-tune, compare and draw, as ``batvit demo`` does.
"""
