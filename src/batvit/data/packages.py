"""The packages that only some kinds of data need."""

import importlib.util

PACKAGES = {"hfds": "datasets", "wds": "webdataset"}
"""the package of each kind of data"""


def check_package(kind: str) -> None:
    """Refuse a kind of data whose package is not installed.

    Raises:
        ValueError: naming what to install.
    """
    package = PACKAGES[kind]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f'{kind}/ needs the package {package}; install it with pip install "batvit[data]"'
        )
