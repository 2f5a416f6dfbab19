"""Models written for other engines, and run by them.

- ``export``: write a model, checked against the model itself before the file is there.
- ``pictures``: which pictures a file is compared and calibrated on.
- ``load``: a written file as a module that can be evaluated and timed.
- ``pair``: two files of one model, dense and reduced: whether they compare, and what they cost.
- ``metadata``: what a file says of the model in it.
- ``formats``: the table of formats, read without loading torch.
- ``format``: what every format must do; ``onnx_format``, ``openvino_format`` and ``torch_format``
  each do it.

A new format is one such file and one line in ``formats``.
"""
