"""Outlines, coloured cells and picking of tiles: geometry that napari then only draws."""

import numpy as np
import pytest
from napari.layers import Layer

from napari_txm_bgcorr.gui.layers.canvas import CanvasLayout
from napari_txm_bgcorr.gui.layers.tile_overlay import (
    cell_picture,
    cells_layer,
    outlines_layer,
    tile_at,
)
from tests.gui.helpers import make_scan

PLACE = {"scale": (0.03, 0.03), "translate": (1.0, 2.0)}


@pytest.fixture
def layout():
    return CanvasLayout.of(make_scan(grid=(2, 3), size=64, overlap=16))


def test_a_point_belongs_to_the_tile_whose_centre_is_nearest(layout):
    for i, corner in enumerate(layout.corners):
        assert tile_at(layout, corner + 31.5) == i
    left, right = (int(i) for i in np.argsort(layout.corners[:3, 1])[:2])
    edge = layout.corners[right][1]  # both tiles cover 16 px from here
    row = layout.corners[left][0] + 32
    assert tile_at(layout, (row, edge + 3)) == left
    assert tile_at(layout, (row, edge + 12)) == right
    assert tile_at(layout, (-1, 5)) is None and tile_at(layout, (5, layout.shape[1])) is None


def test_outlines_enclose_each_tile_and_its_pixels(layout):
    edges, arguments, kind = outlines_layer(layout, PLACE, "tiles")
    assert edges.shape == (4 * 6, 2, 2)
    layer = Layer.create(edges, arguments, kind)
    for i, four in enumerate(edges.reshape(6, 4, 2, 2)):
        ends = np.concatenate([four[:, 0], four.sum(axis=1)])
        np.testing.assert_array_equal(ends.min(axis=0), layout.corners[i] - 0.5)
        np.testing.assert_array_equal(ends.max(axis=0), layout.corners[i] + 63.5)
    np.testing.assert_allclose(layer.scale, PLACE["scale"])
    some, _, _ = outlines_layer(layout, PLACE, "tiles", [2])
    np.testing.assert_array_equal(some, edges[8:12])
    none, _, _ = outlines_layer(layout, PLACE, "tiles", [])
    assert none.shape == (0, 2, 2)


def test_cells_are_the_tiles_values_where_the_tiles_are(layout):
    values = np.arange(6.0)
    values[4] = np.nan
    picture, step = cell_picture(layout, values)
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            i = tile_at(layout, ((y + 0.5) * step - 0.5, (x + 0.5) * step - 0.5))
            found = picture[y, x]
            assert np.isnan(found) if i is None or i == 4 else found == i


def test_the_cells_lie_on_the_mosaic(layout):
    layer = Layer.create(*cells_layer(layout, np.arange(6.0), PLACE, "seam", (0, 5)))
    first = layer.data_to_world((-0.5, -0.5))  # edges of the pixels, not their centres
    last = layer.data_to_world(np.array(layer.data.shape) - 0.5)
    np.testing.assert_allclose(first, np.array([1, 2]) - 0.5 * 0.03)
    beyond = np.array(last) - (np.array(layout.shape) - 0.5) * 0.03 - [1, 2]
    assert (beyond > -0.03 * 4).all() and (beyond < 1e-9).all()
