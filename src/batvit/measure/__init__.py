"""Measuring of any module, against the dense model: nothing here knows the method.

- ``accuracy``: top-1, top-5, agreement and loss of several models in one pass, and intervals of
  their differences
- ``block_speed``: one block at several numbers of tokens
- ``clock``: interleaved timing, the definition of a speed-up, peak memory
- ``compiling``: what is said where ``torch.compile`` does not work
- ``logits``: the one place that runs a classifier and checks its logits
- ``macs``: multiply-accumulates and parameters
- ``memory``: batches that do not fit into memory
- ``pareto``: what nothing beats in both cost and loss
- ``plot``: the speed-up over the batch size, as a figure
- ``speed``: two models side by side
- ``tables``: rows as CSV and as plain text
"""
