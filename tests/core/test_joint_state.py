"""What a joint stage found travels as arrays, and comes back to the same bits."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from napari_txm_bgcorr.core.joint import JointOptions
from napari_txm_bgcorr.core.joint_state import Restored, arrays_of, restored

from napari_txm_bgcorr.core.classical import Captured
from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.tile_median import TileMedian
from tests.core.test_mosaic import SIZE, make_scan
from tests.core.test_series import BUMP, made


@lru_cache
def fitted(kind: str, dark: bool = False) -> tuple[Joint, Scan]:
    """A joint stage that was applied, and its scan."""
    if kind == "mosaic":
        scan, method = make_scan(np.zeros((16, SIZE, SIZE)))[0], TileMedian()
    else:
        scan, method = made(BUMP)[0], Captured()
    if dark:
        size = scan.tiles.shape[-1]
        pedestal = np.arange(size, dtype=np.float32) + np.zeros((3, size, 1), np.float32)
        flats = None if scan.flats is None else scan.flats + pedestal[0]
        scan = replace(scan, tiles=scan.tiles + pedestal[0], darks=pedestal, flats=flats)
    joint = Joint(method, JointOptions(least_seam=0), positions_px=scan.positions_px).fit(scan)
    assert joint.joined is not None and joint.joined.applied, joint.reason
    return joint, scan


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["mosaic", "series"])
def test_backgrounds_come_back_bit_by_bit(kind: str, dark: bool) -> None:
    joint, scan = fitted(kind, dark)
    arrays = arrays_of(joint)
    assert ("dark" in arrays) == dark
    assert sum(one.nbytes for one in arrays.values()) < np.asarray(scan.tiles).nbytes
    copies = {name: np.frombuffer(one.tobytes(), one.dtype).reshape(one.shape)
              for name, one in arrays.items()}  # fmt: skip
    again = restored(Joint(TileMedian()), copies, joint.describe(), scan)
    index = np.arange(len(scan))
    np.testing.assert_array_equal(
        again.background(scan.tiles, index), joint.background(scan.tiles, index)
    )
    assert again.describe() == joint.describe()
    assert again.fit(scan) is again


def test_a_stage_that_stepped_aside_has_nothing_to_tell() -> None:
    assert arrays_of(Joint(TileMedian())) == {}  # not fitted
    _, scan = fitted("mosaic")
    aside = Joint(TileMedian(), JointOptions(least_tiles=99)).fit(scan)
    assert aside.reason and arrays_of(aside) == {}


@pytest.mark.parametrize("name", ["shape", "lit", "change", "levels", "cell_px"])
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    joint, scan = fitted("mosaic")
    arrays = arrays_of(joint)
    without = {key: one for key, one in arrays.items() if key != name}
    for wrong in (without, arrays | {name: arrays[name][:-1]}):
        with pytest.raises(MethodError, match="made"):
            restored(Joint(TileMedian()), wrong, {}, scan)


def test_backgrounds_that_are_not_finite_are_refused() -> None:
    joint, scan = fitted("mosaic")
    arrays = arrays_of(joint)
    with pytest.raises(MethodError, match="not finite"):
        restored(Joint(TileMedian()), arrays | {"shape": arrays["shape"] * np.nan}, {}, scan)


def test_it_answers_for_tiles_of_its_scan_only() -> None:
    joint, scan = fitted("mosaic")
    again = restored(Joint(TileMedian()), arrays_of(joint), {}, scan)
    assert isinstance(again, Restored)
    with pytest.raises(MethodError, match="not of the scan"):
        again.background(np.asarray(scan.tiles[:1]))
    with pytest.raises(MethodError, match="fitted to"):
        again.fit(replace(scan, tiles=scan.tiles[:, :-1]))
