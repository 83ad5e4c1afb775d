"""Correcting chosen tiles again: the same as for the whole scan, or by tiles nearby alone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.smooth import CLASSICAL
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.errors import MethodError
from napari_txm_bgcorr.workflows.redo import nearby, redo_tiles, subset
from tests.mosaic.scenes import make_scene


def test_redone_tiles_are_those_of_the_whole_scan():
    scan = make_scene().scan
    whole = {r.index: r for r in correct_tiles(scan, CLASSICAL["tile-median"]().fit(scan))}
    for result in redo_tiles(scan, CLASSICAL["tile-median"](), [7, 2]):
        np.testing.assert_array_equal(result.transmission, whole[result.index].transmission)
        np.testing.assert_array_equal(result.background, whole[result.index].background)


def test_a_local_reference_sees_only_what_is_nearby():
    scan = make_scene(4).scan
    tiles = np.array(scan.tiles)
    near = nearby(scan, 5, 1)
    assert near == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    (before,) = redo_tiles(scan, CLASSICAL["tile-median"](), [5], local=1)
    assert before.index == 5
    far = [i for i in range(16) if i not in near]
    tiles[far] = tiles[far][:, ::-1] * 3
    changed = subset(scan, range(16))
    object.__setattr__(changed, "tiles", tiles)
    object.__setattr__(changed, "grid", scan.grid)
    (after,) = redo_tiles(changed, CLASSICAL["tile-median"](), [5], local=1)
    np.testing.assert_array_equal(before.background, after.background)
    (whole,) = redo_tiles(changed, CLASSICAL["tile-median"](), [5])
    assert not np.array_equal(whole.background, after.background)


def test_nearby_in_a_series_is_in_time():
    scan = make_scene(kind="series").scan
    assert nearby(scan, 0, 2) == [0, 1, 2]
    assert nearby(scan, 8, 1) == [7, 8]


def test_subset_keeps_what_belongs_to_its_tiles():
    scan = make_scene().scan
    part = subset(scan, [7, 4])
    assert part.names == ("t7", "t4")
    assert part.times.tolist() == scan.times[[7, 4]].tolist()
    assert part.grid is None
    assert (part.positions_px[0] - part.positions_px[1]).tolist() == [-48, 0]
    np.testing.assert_array_equal(part.tiles[1], scan.tiles[4])


@pytest.mark.parametrize("wrong", [[9], [-1], [], [1, 1]])
def test_wrong_tiles_are_refused_before_anything_is_fitted(wrong: list[int]):
    scan = make_scene().scan

    class Never:
        name, workers = "never", 1

        def fit(self, scan: object, progress: object = None) -> Never:
            raise AssertionError("fitted")

    with pytest.raises(MethodError, match="give different tiles from 0 to 8"):
        list(redo_tiles(scan, Never(), wrong))
    with pytest.raises(MethodError, match="local 0"):
        list(redo_tiles(scan, Never(), [1], local=0))


def test_stop_is_obeyed_between_tiles():
    scan = make_scene().scan
    asked = iter([False, True])
    done = redo_tiles(
        scan, CLASSICAL["tile-median"](), [1, 2, 3], local=1, should_stop=lambda: next(asked)
    )
    assert [r.index for r in done] == [1]
