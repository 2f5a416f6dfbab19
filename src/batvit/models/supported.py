"""Which models can be reduced, of every library that is installed."""

import importlib
import importlib.util

from batvit.backbones.registry import LIBRARIES, families


def supported() -> dict[str, dict[str, str]]:
    """Return the families that :func:`batvit.patch` takes, by library, each with an example.

    Of libraries that are not installed, nothing is known.

    Examples:
        >>> batvit.supported()["timm"]["DeiT"]
        'deit_small_patch16_224'
    """
    # an adapter is asked once its library is imported; batvit.models registers one more
    for library in ("batvit.models", *LIBRARIES):
        if importlib.util.find_spec(library) is not None:
            importlib.import_module(library)
    return families()
