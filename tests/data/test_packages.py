"""Packages that only some kinds of data need."""

import pytest

from batvit.data.packages import check_package


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match=r'wds/ needs the package webdataset; install it with pip install "batvit\[data\]"',
    ):
        check_package("wds")
