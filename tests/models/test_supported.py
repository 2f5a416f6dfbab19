"""What can be reduced, of every library that is installed."""

import subprocess
import sys

import timm

import batvit


def test_lvvit_is_among_timms_families():
    assert batvit.supported()["timm"]["LV-ViT"] == "lvvit_small_patch16_224"


def test_every_example_of_timm_can_be_made():
    for name in batvit.supported()["timm"].values():
        assert timm.is_model(name.partition(".")[0]), name


def test_a_library_that_is_not_installed_is_left_out():
    code = """
import importlib.util
there = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "open_clip" else there(name)
import batvit
print(*sorted(batvit.supported()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "timm" in done.stdout.split()
    assert "open_clip" not in done.stdout.split()
