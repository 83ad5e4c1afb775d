"""What a drift model found travels as arrays, and comes back to the same bits."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from napari_txm_bgcorr.backgrounds.drift.lazy_backgrounds import DriftBackgrounds
from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.drift.restore import Restored, restored
from napari_txm_bgcorr.backgrounds.smooth import Captured
from napari_txm_bgcorr.backgrounds.tile_median import TileMedian
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.errors import MethodError
from tests.backgrounds.drift.scans import SIZE, make_scan
from tests.backgrounds.drift.test_series import BUMP, made


@lru_cache
def fitted(kind: str, dark: bool = False) -> tuple[DriftModel, Scan]:
    """A fitted model, and its scan."""
    if kind == "series":
        scan, method = made(BUMP)[0], Captured()
    else:
        scan, method = make_scan(np.zeros((16, SIZE, SIZE)))[0], TileMedian()
    if dark:
        size = scan.tiles.shape[-1]
        pedestal = np.arange(size, dtype=np.float32) + np.zeros((3, size, 1), np.float32)
        flats = None if scan.flats is None else scan.flats + pedestal[0]
        scan = replace(scan, tiles=scan.tiles + pedestal[0], darks=pedestal, flats=flats)
    return DriftModel(method, positions_px=scan.positions_px).fit(scan), scan


def arrays_of(model: DriftModel) -> dict[str, np.ndarray]:
    """What a share of a job writes for the others."""
    assert model.backgrounds is not None
    return model.backgrounds.arrays()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["mosaic", "series"])
def test_backgrounds_come_back_bit_by_bit(kind: str, dark: bool) -> None:
    model, scan = fitted(kind, dark)
    arrays = arrays_of(model)
    assert ("dark" in arrays) == dark
    copies = {name: np.frombuffer(one.tobytes(), one.dtype).reshape(one.shape)
              for name, one in arrays.items()}  # fmt: skip
    again = restored(DriftModel(TileMedian()), copies, model.describe(), scan)
    index = np.arange(len(scan))
    np.testing.assert_array_equal(
        again.background(scan.tiles, index), model.background(scan.tiles, index)
    )
    for i in (0, len(scan) - 1):
        np.testing.assert_array_equal(again.backgrounds.uncertainty(i), model.uncertainty(i))
    assert again.describe() == model.describe()
    assert again.fit(scan) is again


def test_what_travels_is_small() -> None:
    """Per tile no more than its cells, twice: a tile of 1024 px has 64 x 64 of them at most."""
    arrays = arrays_of(fitted("mosaic")[0])
    for name in ("change", "sd"):
        assert arrays[name].dtype == np.float32
        assert max(arrays[name].shape[1:]) < 2 * 64
    alone = {"pattern", "lit", "levels", "cell_px"}
    assert sum(arrays[name].nbytes for name in alone) < 2 * 4 * SIZE * SIZE


def test_a_fitted_model_is_pickled_with_its_backgrounds() -> None:
    model, scan = fitted("mosaic")
    again = pickle.loads(pickle.dumps(model))
    index = np.array([3, 9])
    np.testing.assert_array_equal(
        again.background(scan.tiles[index], index), model.background(scan.tiles[index], index)
    )
    assert again.describe() == model.describe()


@pytest.mark.parametrize("name", ["pattern", "lit", "change", "levels", "sd", "cell_px"])
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    model, scan = fitted("mosaic")
    arrays = arrays_of(model)
    without = {key: one for key, one in arrays.items() if key != name}
    for wrong in (without, arrays | {name: arrays[name][:-1]}):
        with pytest.raises(MethodError, match="made"):
            restored(DriftModel(TileMedian()), wrong, {}, scan)


def test_backgrounds_that_are_not_finite_are_refused() -> None:
    model, scan = fitted("mosaic")
    arrays = arrays_of(model)
    with pytest.raises(MethodError, match="not finite"):
        restored(
            DriftModel(TileMedian()), arrays | {"pattern": arrays["pattern"] * np.nan}, {}, scan
        )


def test_it_answers_for_tiles_of_its_scan_only() -> None:
    model, scan = fitted("mosaic")
    again = restored(DriftModel(TileMedian()), arrays_of(model), {}, scan)
    assert isinstance(again, Restored)
    with pytest.raises(MethodError, match="not of the scan"):
        again.background(np.asarray(scan.tiles[:1]))
    with pytest.raises(MethodError, match="fitted to"):
        again.fit(replace(scan, tiles=scan.tiles[:, :-1]))


def test_backgrounds_are_put_together_from_their_parts() -> None:
    """Pattern, what a tile is off it, level, dark; nothing but the pattern behind the aperture."""
    size = (8, 12)
    lit = np.ones(size, bool)
    lit[:2, :2] = False
    pattern = np.linspace(-0.1, 0.1, 96, dtype=np.float32).reshape(size)
    pattern[~lit] = 3.0
    change = np.full((2, 4, 6), 0.02, np.float32)
    dark = np.full(size, 100, np.float32)
    made = DriftBackgrounds(
        dark, pattern, lit, change, np.array([8.0, 9.0]), np.full_like(change, 0.03), (2, 2)
    )
    for i, level in enumerate((8.0, 9.0)):
        log = np.where(lit, pattern + 0.02 + level, 3.0)
        np.testing.assert_allclose(made[i], np.exp(log) + 100, rtol=1e-5)
        np.testing.assert_allclose(made.uncertainty(i), np.where(lit, 0.03, 0), rtol=1e-4)
