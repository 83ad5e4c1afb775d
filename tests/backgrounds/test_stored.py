"""Stored backgrounds are given back as they are, with what their method knows beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import Captured, Smooth
from napari_txm_bgcorr.backgrounds.stored import StoredBackgrounds
from napari_txm_bgcorr.core import BackgroundMethod, LazyTiles, Scan, TilePrediction
from napari_txm_bgcorr.errors import MethodError

STACK = np.arange(4 * 6 * 5, dtype=np.float32).reshape(4, 6, 5) + 100
SCAN = Scan.from_array(np.full((4, 6, 5), 50, np.uint16), flats=np.full((6, 5), 90, np.uint16))


class Seer(Smooth):
    """Sees more than a background."""

    workers = 3

    def predict_tiles(self, tiles: Any, index: Any = None) -> TilePrediction:
        wrong = np.zeros(tiles.shape, np.float32)
        return TilePrediction(wrong, free=wrong + 0.5, sd=wrong + 0.1)


def test_each_tile_has_its_own_in_any_order_and_only_those_are_read() -> None:
    read: list[int] = []

    def tile(i: int) -> np.ndarray:
        read.append(i)
        return STACK[i]

    stored = StoredBackgrounds(LazyTiles((4, 6, 5), np.float32, tile), "auto")
    index = np.array([3, 0, 3])
    got = stored.background(SCAN.tiles[index], index)  # type: ignore[index]
    np.testing.assert_array_equal(got, STACK[index])
    assert set(read) == {0, 3} and got.dtype == np.float32


def test_unknown_tiles_have_none() -> None:
    with pytest.raises(MethodError, match="auto: only the tiles of its own scan"):
        StoredBackgrounds(STACK, "auto").background(np.zeros((1, 6, 5)))


def test_fitting_computes_nothing() -> None:
    stored = StoredBackgrounds(STACK, "auto")
    assert isinstance(stored, BackgroundMethod)
    assert stored.fit(SCAN) is stored and stored.describe() == {} and stored.workers == 1


def test_what_else_the_method_sees_comes_along_without_its_background() -> None:
    index = np.array([2])
    tiles = np.asarray(SCAN.tiles)[index]
    plain = StoredBackgrounds(STACK, "s", Smooth()).predict_tiles(tiles, index)
    assert plain.free is None and plain.sd is None
    seen = StoredBackgrounds(STACK, "s", Seer()).predict_tiles(tiles, index)
    for prediction in (plain, seen):
        np.testing.assert_array_equal(prediction.background, STACK[index])
    assert seen.free is not None and (seen.free == 0.5).all()
    assert seen.sd is not None and (seen.sd == np.float32(0.1)).all()


def test_whether_references_were_used_is_the_methods_word() -> None:
    fitted = Captured().fit(SCAN)
    stored = StoredBackgrounds(STACK, "captured", fitted)
    assert stored.knows_drift and not stored.follows_shape
    assert stored.with_references(SCAN) is SCAN and stored.describe() == fitted.describe()
    plain = StoredBackgrounds(STACK, "smooth", Smooth())
    assert not plain.knows_drift and not plain.follows_shape
    assert plain.with_references(SCAN) is SCAN
    assert StoredBackgrounds(STACK, "s", Seer()).workers == 3
