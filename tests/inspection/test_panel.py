"""The pixels of a panel, by hand."""

import numpy as np
import pytest
from PIL import Image

from batvit.inspection.panel import EMPTY, HATCH, INATTENTIVE_BORDER, paint, patch_means

SCALE = 4


def painted(groups, attentive, colour=(200.0, 120.0, 40.0)):
    groups = np.array(groups)
    means = np.full((*groups.shape, 3), colour)
    return paint(means, groups, np.full(groups.shape, attentive), SCALE)


def test_an_attentive_group_alone_has_its_colour_and_no_border():
    pixels = painted([[0, 0], [0, 0]], attentive=True)
    assert pixels.shape == (8, 8, 3)
    assert (pixels == (200, 120, 40)).all()


def test_a_border_is_a_pixel_wide_on_both_sides():
    pixels = painted([[0, 1]], attentive=False)
    borders = (pixels == INATTENTIVE_BORDER).all(axis=-1)
    assert borders[:, 3:5].all()
    assert not borders[:, :3].any()
    assert not borders[:, 5:].any()


def test_pruned_patches_are_hatched():
    pixels = painted([[-1]], attentive=False)
    assert set(np.unique(pixels).tolist()) == {EMPTY, HATCH}


def test_a_group_has_the_mean_colour_of_its_patches_wherever_they_are():
    means = np.zeros((1, 3, 3))
    means[0, 0] = 100
    means[0, 2] = 200
    pixels = paint(means, np.array([[0, 1, 0]]), np.full((1, 3), True), SCALE)
    assert (pixels[1, 1] == 150).all()
    assert (pixels[1, -2] == 150).all()


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_means_are_of_each_patch(size):
    image = Image.new("RGB", size, (10, 20, 30))
    means = patch_means(image, (3, 2))
    assert means.shape == (3, 2, 3)
    assert (means == (10, 20, 30)).all()
