"""The engine of a reduction, whatever library the model comes from.

- ``schedule``: how many tokens go on at each site, by the configuration and the image size.
- ``frozen_counts``: the same as a constant of a compiled graph.
- ``tokens``: :class:`Tokens`, what goes from block to block after the first site.
- ``features``: what tokens are to torch's functions, and to whoever listens to a block.
- ``autograd_function``: the refusal of autograd functions that would lose the gradients of tokens.
- ``site``: :class:`Reduce`, what happens at a site: importance, plan, merge.
- ``block``: :class:`ReducedBlock`, a block from the first site on.
- ``wrapped``: what wrappers make of a block or a model: derived classes, modules around it.
- ``grid``: feature maps of the full grid from a model whose blocks merge tokens.
- ``self_check``: the proof, before a model is patched, that an opened block computes what it did.

To extend: a new way to choose tokens is a plan (:mod:`batvit.plans`), a new library an adapter
(:mod:`batvit.backbones`), which derives from :class:`ReducedBlock` and, for feature maps, from
:class:`WithGrid`.
"""
