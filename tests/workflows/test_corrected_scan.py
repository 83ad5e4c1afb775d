"""A scan corrected in memory: lazy, equal to tile by tile, and never corrected twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import Smooth
from napari_txm_bgcorr.core import LazyTiles, Scan, correct_tiles
from napari_txm_bgcorr.errors import AlreadyCorrectedError, ConfigError
from napari_txm_bgcorr.workflows import CorrectionConfig, correct_scan

SIZE = 32
SMOOTH = CorrectionConfig(method="smooth")


def scan_of(count: int = 5) -> tuple[Scan, list[int]]:
    """Tiles of counts, and which of them were read."""
    read: list[int] = []
    tiles = np.random.default_rng(0).poisson(5000, (count, SIZE, SIZE)).astype(np.uint16)

    def tile(i: int) -> Any:
        read.append(i)
        return tiles[i]

    lazy = LazyTiles((count, SIZE, SIZE), np.uint16, tile)
    return replace(Scan.from_array(tiles), tiles=lazy), read


def test_it_is_lazy_and_equals_tile_by_tile() -> None:
    scan, read = scan_of()
    whole = correct_scan(scan, SMOOTH)
    assert read == []
    assert whole.transmission.shape == whole.background.shape == (5, SIZE, SIZE)
    assert whole.transmission.dtype == np.float32 and whole.valid.dtype == bool
    for result in correct_tiles(scan, Smooth().fit(scan)):
        np.testing.assert_array_equal(whole.transmission[result.index], result.transmission)
        np.testing.assert_array_equal(whole.background[result.index], result.background)
        np.testing.assert_array_equal(whole.valid[result.index], result.valid)
    assert whole.uncertainty is None and whole.raw is whole.scan.tiles
    made = whole.provenance()
    assert made["method"] == "smooth"
    assert made["config"] == {} and made["command"] == ""  # there is no file to name


def test_parts_of_one_tile_cost_one_correction() -> None:
    scan, read = scan_of()
    whole = correct_scan(scan, SMOOTH)
    for stack in (whole.background, whole.transmission, whole.valid):
        stack[3]
    assert read == [3]


def test_correcting_twice_is_refused_unless_forced() -> None:
    scan, _ = scan_of()
    done = replace(scan, provenance=correct_scan(scan, SMOOTH).provenance())
    with pytest.raises(AlreadyCorrectedError, match="already corrected with smooth"):
        correct_scan(done, SMOOTH)
    again = correct_scan(done, SMOOTH.replaced(force=True))
    assert again.transmission[0].shape == (SIZE, SIZE)


def test_uncertainty_is_not_saved_where_none_is_stated(tmp_path: Any) -> None:
    scan, _ = scan_of()
    with pytest.raises(ConfigError, match="states none"):
        correct_scan(scan, SMOOTH).save(tmp_path / "out", parts=("uncertainty",))
    assert list(tmp_path.iterdir()) == []
