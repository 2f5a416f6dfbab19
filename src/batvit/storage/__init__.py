"""What lies on disk, and how it gets there; nothing here knows a model.

- ``files``: paths checked before any work, whole files or none, errors in one line.
- ``drafts``: what is being written, hidden until it is whole; those of the dead are removed.
- ``reading``: files that a user names, read: regular files alone, and none without an end.
- ``formats``: the suffixes of figures and pictures.
- ``figures``: colours and markers that all figures share, and how a figure is saved.
- ``pictures``: how a picture is saved.
- ``weights``: state dicts read and written, and never code.
- ``run_folder``: a folder that one run writes into: new, claimed, or resumed as it was begun.
- ``provenance``: versions, commit, machine and files that a result comes from.
"""
