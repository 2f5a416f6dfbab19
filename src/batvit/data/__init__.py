"""Pictures, from wherever they come, and the batches of them that a model takes.

- ``pictures``: one picture decoded, strictly.
- ``folder``: an image folder, with one sub-folder a class.
- ``hf_dataset``: a Hugging Face dataset.
- ``tar_shards``: a folder of tar shards.
- ``digits``: handwritten digits; ``digits.npz`` holds them.
- ``sources``: training and validation pictures of any of these kinds, opened by a name.
- ``loading``: batches for evaluation, as a model expects them.
"""
