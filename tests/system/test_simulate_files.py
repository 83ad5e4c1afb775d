"""A simulated session as the instrument would have written it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_txm_bgcorr import io
from napari_txm_bgcorr.simulation.acquisition import (
    SimulatedScan,
    simulate_mosaic,
    simulate_series,
    simulate_tile,
)
from napari_txm_bgcorr.workflows.simulate import write_simulation

MADE = {
    "tile": lambda: simulate_tile(size=64, seed=4),
    "series": lambda: simulate_series(5, size=64, references=2, seed=4),
    "mosaic": lambda: simulate_mosaic(2, 3, size=64, references=2, darks=1, seed=4),
}


@pytest.mark.parametrize("kind", MADE)
def test_an_xradia_simulation_reads_back_as_it_was_drawn(kind: str, tmp_path: Path) -> None:
    simulated: SimulatedScan = MADE[kind]()
    drawn = simulated.scan
    write_simulation(simulated, tmp_path / "out", {"kind": kind}, "xrm")
    suffix = ".txrm" if kind == "series" else ".xrm"
    found = io.read(tmp_path / "out" / f"{kind}{suffix}")
    assert found.kind == drawn.kind and found.grid == drawn.grid and not found.notes
    for i in range(len(drawn)):
        np.testing.assert_array_equal(found.tiles[i], drawn.tiles[i])
    assert found.pixel_nm == pytest.approx(drawn.pixel_nm)
    assert (found.energy_ev, found.exposure_s) == (drawn.energy_ev, drawn.exposure_s)
    assert found.binning == drawn.binning
    np.testing.assert_array_equal(found.times, drawn.times)
    if drawn.positions_px is None:
        assert found.positions_px is None
    else:
        np.testing.assert_allclose(found.positions_px, drawn.positions_px, atol=0.01)
    truth = tifffile.imread(tmp_path / "out/truth/background" / f"{drawn.names[0]}.tif")
    np.testing.assert_array_equal(truth, simulated.backgrounds[0])


def test_references_of_an_xradia_simulation_carry_their_times(tmp_path: Path) -> None:
    simulated = MADE["mosaic"]()
    write_simulation(simulated, tmp_path / "out", {"kind": "mosaic"}, "xrm")
    found = io.read_references([tmp_path / "out/references"], like=simulated.scan)
    np.testing.assert_array_equal(np.asarray(found.images[:]), np.asarray(simulated.scan.flats[:]))
    np.testing.assert_array_equal(found.times, simulated.scan.flat_times)
    np.testing.assert_array_equal(found.exposures_s, simulated.scan.flat_exposures_s)
    darks = io.read_references([tmp_path / "out/darks"], like=simulated.scan, role="darks")
    assert len(darks) == 1
