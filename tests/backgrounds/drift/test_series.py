"""Series: the level's drift is followed, references tie it, and the specimen is no drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.smooth import Captured, Smooth
from napari_txm_bgcorr.core.correction import BackgroundMethod
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.quality import metrics as quality
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_series

SIZE, COUNT = 64, 31
START = np.datetime64("2024-01-01T00:00:00", "s")


def made(
    drift: np.ndarray, *, slab: bool = True, flats: bool = True, seed: int = 0
) -> tuple[Scan, np.ndarray]:
    """A specimen that turns under a beam whose log level drifts; and the true log beams."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(-60, 60, COUNT)
    shape = 9 + 0.1 * ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 9) * 20
    wide = 0.2 + 0.05 * ndimage.gaussian_filter(rng.standard_normal((SIZE, 3 * SIZE)), 2) * 6
    tiles, true = [], []
    for angle, level in zip(np.deg2rad(angles), drift, strict=True):
        moved = np.roll(wide, round(20 * np.sin(angle)), axis=1)[:, SIZE : 2 * SIZE]
        thick = moved / np.cos(angle) if slab else moved
        true.append(shape + level)
        tiles.append(np.exp(true[-1] - thick) * (1 + 0.005 * rng.standard_normal(thick.shape)))
    hours = np.arange(COUNT) * 0.12
    scan = Scan(
        tiles=np.stack(tiles).astype(np.float32), kind="series", source=Source(Path("m"), "made"),
        names=tuple(f"t{k}" for k in range(COUNT)), angles_deg=angles,
        times=START + np.rint(hours * 3600).astype("timedelta64[s]"),
    )  # fmt: skip
    if flats:
        ends = np.stack([true[0], true[0], true[-1], true[-1]])
        noise = 1 + 0.005 * rng.standard_normal(ends.shape)
        when = np.array([-0.1, -0.08, hours[-1] + 0.1, hours[-1] + 0.12])
        scan = replace(
            scan, flats=(np.exp(ends) * noise).astype(np.float32),
            flat_times=START + np.rint(when * 3600).astype("timedelta64[s]"),
        )  # fmt: skip
    return scan, np.stack(true)


def errors(method: BackgroundMethod, scan: Scan, true: np.ndarray) -> tuple[float, float]:
    """Error with one scale for all, and of the level of each projection."""
    off = np.log(method.background(scan.tiles, np.arange(COUNT))) - true
    return float(np.std(off)), float(np.std(off.mean(axis=(1, 2))))


BUMP = 0.04 * np.sin(np.linspace(0, 3 * np.pi, COUNT))


def test_a_beam_that_stands_still_is_left_alone() -> None:
    scan, true = made(np.zeros(COUNT))
    joint = DriftModel(Captured()).fit(scan)
    bare = Captured().fit(scan)
    assert errors(joint, scan, true)[0] < errors(bare, scan, true)[0] + 0.002


def test_without_references_the_level_is_relative() -> None:
    scan, true = made(BUMP, flats=False)
    joint = DriftModel(Smooth()).fit(scan)
    assert joint.describe()["joint"]["level"]["from"] == "relative"
    assert "relative" in joint.notes[0]
    assert errors(joint, scan, true)[0] < errors(Smooth().fit(scan), scan, true)[0] + 0.002


def test_a_few_projections_are_a_series_too() -> None:
    scan, true = made(BUMP)
    few = replace(
        scan, tiles=scan.tiles[:5], names=scan.names[:5], times=scan.times[:5],
        angles_deg=scan.angles_deg[:5],
    )  # fmt: skip
    model = DriftModel(Captured()).fit(few)
    off = np.log(model.background(few.tiles, np.arange(5))) - true[:5]
    bare = np.log(Captured().fit(few).background(few.tiles, np.arange(5))) - true[:5]
    assert off.std() < bare.std() + 0.002
    assert model.positions is None and "registration" not in model.describe()["joint"]


def simulated(seed: int) -> SimulatedScan:
    drawn = simulate_series(
        31, size=64, hours_per_tile=0.12, references=4, reference_hours=0.1, darks=1,
        family="bl01b", seed=seed,
    )  # fmt: skip
    return replace(drawn, scan=replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:])))


def test_errors_fall_on_simulated_series() -> None:
    """One scale for the series, mean of four: never above that of the method."""
    better = {Captured: 1.001}  # the sample may never leave: references are kept
    drawn = [simulated(seed) for seed in range(1, 5)]
    for method, most in better.items():
        found = []
        for one in drawn:
            lit = ndimage.binary_erosion(one.session.aperture, iterations=2, border_value=1)
            index = np.arange(0, 31, 3)
            for fitted in (method().fit(one.scan), DriftModel(method()).fit(one.scan)):
                beams = fitted.background(one.scan.tiles[index], index) - one.scan.dark()
                truth = [one.backgrounds[int(i)] for i in index]
                error = quality.mosaic_errors(beams, truth, [lit] * len(index))["mosaic"]
                found.append(np.sqrt(np.mean(error**2)))
        before, after = np.mean(found[::2]), np.mean(found[1::2])
        assert after < most * before, method.name
