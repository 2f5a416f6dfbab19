"""Looking into a model: what it costs, and what becomes of each patch.

- ``summary``: tokens and MACs of every block.
- ``tracing``: what a patched model does with each patch, and how diverse the tokens stay.
- ``drawing``: a trace as a picture; ``panel`` paints the pixels of one of its panels.
- ``groups``: both for one picture.
- ``plot``: the diversity of the tokens as a figure.
- ``block_timing``: how long a block takes at every number of tokens that matters.
"""
