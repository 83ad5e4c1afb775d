"""Cells of a tile, and places spread over a scan."""

import numpy as np
import pytest

from napari_txm_bgcorr.core.smooth_fields import Coarse, spread_indices


@pytest.mark.parametrize(("count", "limit"), [(1, 64), (64, 64), (961, 64), (5, 2), (9, 1)])
def test_tiles_are_spread_over_the_scan(count, limit):
    chosen = spread_indices(count, limit)
    assert len(chosen) == min(count, limit) == len(set(chosen))
    assert chosen[0] == 0 and (limit == 1 or chosen[-1] == count - 1)


@pytest.mark.parametrize("shape", [(64, 64), (22, 26), (2, 640), (100, 37)])
def test_cells_of_a_smooth_image_give_it_back(shape):
    """But for the last cut cell."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = (0.1 * x - 0.2 * y + 0.05 * x * y).astype(np.float32)
    coarse = Coarse(shape, 16)
    rows, columns = (n * c for n, c in zip(coarse.size, coarse.cell, strict=True))
    back = coarse.expand(coarse.mean(image))
    assert back.shape == shape
    np.testing.assert_allclose(back[:rows, :columns], image[:rows, :columns], atol=0.01)
