"""The adapters, one a library, and the two verbs that use them.

- ``patch``: patch, unpatch, and what asks a patched model for its counts.
- ``registry``: which adapter knows a model; here a library is added to those that are built in.
- ``adapter``: :class:`Adapter` and :class:`Anatomy`, what batvit needs to know of a model.
- ``attention_capture``: the queries and keys of an attention module that runs as it is.
- ``during_training``: what a training loop needs of a reduction.
- ``held_model``: the adapter of a model that a library wrapped around another.
- ``timm_common``, ``timm_vit``, ``timm_eva``: timm.
- ``transformers_families``, ``transformers_blocks``: transformers' families, a row each, and the
  reduced classes made of the rows.
- ``transformers_common``, ``transformers_interface``: what all their layers have in common.
- ``transformers_nested``, ``transformers_rotary``, ``transformers_softmax``: layers that differ.
- ``transformers_tower``, ``transformers_vit``: where the layers are in a model; the adapter.
- ``transformers_refusals``: why other models cannot be reduced.
- ``transformers_saved``: models of transformers that were saved while they were patched.
- ``transformers_notice``, ``transformers_card``: what transformers says of such a model, and in its
  model card.
- ``torch_multihead``: blocks around ``nn.MultiheadAttention``, as the next two have them.
- ``torchvision_vit``, ``open_clip_vit``: torchvision and open_clip.

A new library is one file named after it, with an ``ADAPTER``, and one entry of
:data:`batvit.backbones.registry.LIBRARIES`. Outside batvit :func:`batvit.register` takes the same
adapter (``examples/own_backbone.py``), and ``batvit.testing`` proves that it is right.
"""
