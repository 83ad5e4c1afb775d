"""Physics simulator of a full-field X-ray microscope: tiles, series and mosaics with truth.

A session (`draw_session`) is one instrument on one day, a specimen (`draw_specimen`) a map of
transmission; a scan exposes parts of the one under the other. Everything is made when it is
asked for, and is the same for the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Kind, LazyTiles, Scan, Source, raster_positions
from napari_txm_bgcorr.errors import ConfigError

from .illumination import FAMILIES, Family
from .random_fields import Floats
from .session import SimulatedSession, draw_session
from .specimen_canvas import cut_out, once
from .specimens import SPECIMENS, draw_specimen, free_of_sample

__all__ = [
    "FAMILIES",
    "SPECIMENS",
    "Family",
    "SimulatedScan",
    "SimulatedSession",
    "draw_session",
    "draw_specimen",
    "free_of_sample",
    "simulate_mosaic",
    "simulate_series",
    "simulate_tile",
]

FIELD_NM = 15_000  # side of the field of view
ENERGY_EV = 8500.0
EXPOSURE_S = 60.0
_START = np.datetime64("2026-01-01T08:00:00", "s")
_LAYERS = 4  # of a rotating specimen


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """A scan with everything a real one hides.

    Attributes
    ----------
    scan : Scan
        Raw tiles and what a reader would know: nominal positions, times, references.
    backgrounds : (T, Y, X) lazy float32, counts
        Beam alone, without dark.
    transmissions : (T, Y, X) lazy float32
        Of the specimen, in (0, 1.6].
    session : SimulatedSession
        The instrument; `session.dark` is the pedestal.
    hours : (T,) float64
        When each tile was taken, since the first one.
    positions_px : (T, 2) float64 or None
        True top left corners (y, x) of a mosaic's tiles, whole pixels.
    """

    scan: Scan
    backgrounds: LazyTiles
    transmissions: LazyTiles
    session: SimulatedSession
    hours: NDArray[np.float64]
    positions_px: NDArray[np.float64] | None = None

    def free(self, index: int) -> NDArray[np.bool_]:
        """Pixels `(Y, X)` of tile `index` that are free of sample, see `free_of_sample`."""
        return free_of_sample(self.transmissions[index])


def simulate_tile(
    *,
    size: int = 512,
    specimen: str | None = None,
    family: str | None = None,
    drift: float = 1.0,
    references: int = 0,
    reference_hours: float = 0.25,
    darks: int = 0,
    seed: int = 0,
) -> SimulatedScan:
    """Simulate one image; see `simulate_mosaic` for the parameters."""
    stage = _Stage(size, specimen, family, drift, references, reference_hours, darks, seed)
    canvas = once(lambda: draw_specimen(stage.rng(1), (size, size), specimen))
    return stage.scan("single", np.zeros(1), lambda _: canvas())


def simulate_mosaic(
    rows: int,
    columns: int,
    *,
    size: int = 512,
    overlap: float | None = 0.2,
    jitter_px: float = 20.0,
    skew_px: float = 3.0,
    specimen: str | None = None,
    family: str | None = None,
    drift: float = 1.0,
    hours_per_tile: float = 1 / 60,
    references: int = 0,
    reference_hours: float = 0.25,
    darks: int = 0,
    seed: int = 0,
    covered_rows: int = 0,
) -> SimulatedScan:
    """Simulate overlapping tiles of one large specimen, row by row from the bottom left.

    Parameters
    ----------
    rows, columns : int
    size : int
        Pixels along a tile; every size shows the same field.
    overlap : float or None
        Nominal share of a tile that its neighbour shows again; None draws one for rows and one
        for columns from what is in use: 3 to 20 %, most often 4 to 7 %.
    jitter_px : float
        Greatest error of the stage in each direction, in pixels of a 512 px tile.
    skew_px : float
        Sideways shift from row to row, in pixels of a 512 px tile.
    specimen : str or None
        Name in `SPECIMENS`; None mixes kinds.
    family : str or None
        Name in `FAMILIES`; None draws one that is not held out.
    drift : float
        Factor on the usual change of the background with time.
    hours_per_tile : float
    references : int
        Images without specimen: the first half before the scan, the rest after it.
    reference_hours : float
        How long before the first or after the last tile.
    darks : int
        Images without beam.
    seed : int
    covered_rows : int
        Rows of tiles about the middle that a slab lies over as well, from side to side: no beam
        passes there without absorption.

    Returns
    -------
    SimulatedScan

    Raises
    ------
    ConfigError
        If a number is out of range or a name is unknown.
    """
    if not 0 <= covered_rows <= rows:
        raise ConfigError(f"simulate: covered rows {covered_rows}: give 0 to {rows}")
    if min(rows, columns) < 1:
        raise ConfigError(f"simulate: grid {rows} x {columns}: give at least 1 x 1")
    if overlap is not None and not 0 <= overlap < 0.9:
        raise ConfigError(f"simulate: overlap {overlap}: give a share from 0 to below 0.9")
    stage = _Stage(size, specimen, family, drift, references, reference_hours, darks, seed)
    shares = (overlap, overlap) if overlap is not None else _drawn_overlaps(stage.rng(7))
    step = (round(size * (1 - shares[0])), round(size * (1 - shares[1])))
    nominal = raster_positions((rows, columns), step)
    px = size / 512
    at = _true_positions(stage.rng(2), nominal, columns, jitter_px * px, skew_px * px)
    start = (rows - covered_rows) // 2 * columns
    under = at[start : start + covered_rows * columns]
    cut = cut_out(at, size, specimen, (stage.rng(1), stage.rng(6)), under)
    hours = np.arange(rows * columns, dtype=np.float64) * hours_per_tile
    return stage.scan(
        "mosaic",
        hours,
        cut,
        true=at,
        grid=(rows, columns),
        positions_px=nominal,
    )


def simulate_series(
    projections: int,
    *,
    size: int = 512,
    specimen: str | None = None,
    family: str | None = None,
    drift: float = 1.0,
    hours_per_tile: float = 1 / 60,
    angles_deg: tuple[float, float] = (-60.0, 60.0),
    references: int = 0,
    reference_hours: float = 0.25,
    darks: int = 0,
    seed: int = 0,
) -> SimulatedScan:
    """Simulate projections of a flat specimen that rotates about a vertical axis.

    The specimen is a few layers at different depths: with the angle they shift against each
    other, shrink sideways and grow thicker.

    Parameters
    ----------
    projections : int
    angles_deg : (first, last)
        Within (-70, 70).
    size, specimen, family, drift, hours_per_tile, references, reference_hours, darks, seed
        As in `simulate_mosaic`.

    Raises
    ------
    ConfigError
        If a number is out of range or a name is unknown.
    """
    if projections < 1:
        raise ConfigError(f"simulate: projections {projections}: give at least 1")
    if max(map(abs, angles_deg)) > 70:
        raise ConfigError(f"simulate: angles {angles_deg}: give angles within -70 to 70 degrees")
    stage = _Stage(size, specimen, family, drift, references, reference_hours, darks, seed)
    angles = np.linspace(*angles_deg, projections)
    layers = once(lambda: _draw_layers(stage.rng(1), size, specimen))
    return stage.scan(
        "series",
        np.arange(projections, dtype=np.float64) * hours_per_tile,
        lambda i: _project(layers(), np.deg2rad(angles[i]), size),
        angles_deg=angles,
    )


@dataclass(frozen=True)
class _Stage:
    """Common part of the three kinds of scan: the instrument, the clock and the seeds."""

    size: int
    specimen: str | None
    family: str | None
    drift: float
    references: int
    reference_hours: float
    darks: int
    seed: int

    def rng(self, *tag: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *tag])

    def scan(
        self,
        kind: Kind,
        hours: NDArray[np.floating],
        cut: Callable[[int], Floats],
        *,
        true: NDArray[np.float64] | None = None,
        **facts: Any,
    ) -> SimulatedScan:
        """Scan whose tile `i` shows the transmission `cut(i)` at `hours[i]`."""
        if self.specimen is not None and self.specimen not in SPECIMENS:
            known = ", ".join(SPECIMENS)
            raise ConfigError(f"simulate: specimen {self.specimen!r}: unknown; choose {known}")
        session = draw_session(self.rng(0), size=self.size, family=self.family)
        shape = (len(hours), self.size, self.size)

        def raw(i: int) -> NDArray[np.uint16]:
            return session.expose(cut(i), hours[i], self.rng(3, i), drift=self.drift)

        def beam(i: int) -> Floats:
            return session.background(hours[i], drift=self.drift)

        scan = Scan(
            tiles=LazyTiles(shape, np.uint16, raw),
            kind=kind,
            source=Source(Path("simulated"), "simulated"),
            names=tuple(f"sim_{i + 1:04d}" for i in range(len(hours))),
            times=_START + _seconds(hours),
            pixel_nm=FIELD_NM / self.size,
            energy_ev=ENERGY_EV,
            exposure_s=EXPOSURE_S,
            binning=1024 // self.size if 1024 % self.size == 0 else None,
            **self._references(session, hours),
            **facts,
        )
        backgrounds = LazyTiles(shape, np.float32, beam)
        return SimulatedScan(
            scan,
            backgrounds,
            LazyTiles(shape, np.float32, cut),
            session,
            np.asarray(hours, np.float64),
            true,
        )

    def _references(
        self, session: SimulatedSession, hours: NDArray[np.floating]
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        clear = np.ones((self.size, self.size), np.float32)
        if self.references > 0:
            before = (self.references + 1) // 2
            when = np.full(self.references, hours[-1] + self.reference_hours)
            when[:before] = -self.reference_hours
            when += np.arange(self.references) / 60

            def flat(i: int) -> NDArray[np.uint16]:
                return session.expose(clear, when[i], self.rng(4, i), drift=self.drift)

            out["flats"] = LazyTiles((self.references, *clear.shape), np.uint16, flat)
            out["flat_times"] = _START + _seconds(when)
            out["flat_energies_ev"] = np.full(self.references, ENERGY_EV)
            out["flat_exposures_s"] = np.full(self.references, EXPOSURE_S)
        if self.darks > 0:

            def dark(i: int) -> NDArray[np.uint16]:
                return session.expose(0 * clear, 0.0, self.rng(5, i))

            out["darks"] = LazyTiles((self.darks, *clear.shape), np.uint16, dark)
        return out


def _seconds(hours: NDArray[np.floating]) -> NDArray[np.timedelta64]:
    return np.asarray(np.rint(hours * 3600), "timedelta64[s]")


def _drawn_overlaps(rng: np.random.Generator) -> tuple[float, float]:
    """Overlaps of rows and of columns, a few hundredths apart."""
    usual = rng.random() < 0.6
    share = rng.uniform(0.04, 0.07) if usual else rng.uniform(0.03, 0.20)
    other = np.clip(share + rng.normal(0, 0.015), 0.03, 0.20)
    return float(share), float(other)


def _true_positions(
    rng: np.random.Generator,
    nominal: NDArray[np.float64],
    columns: int,
    jitter: float,
    skew: float,
) -> NDArray[np.float64]:
    at = nominal + rng.uniform(-jitter, jitter, nominal.shape)
    at[:, 1] += np.arange(len(at)) // columns * skew
    at = np.rint(at)
    out: NDArray[np.float64] = at - at.min(axis=0)
    return out


def _draw_layers(
    rng: np.random.Generator, size: int, specimen: str | None
) -> list[tuple[float, Floats]]:
    """(depth in pixels, optical thickness (H, 3 H) float32) of each layer."""
    layers = []
    for depth in np.linspace(-0.12, 0.12, _LAYERS):
        image = draw_specimen(rng, (size, 3 * size), specimen, field_px=size)
        layers.append((depth * size, -np.log(image) * np.float32(1.4 / _LAYERS)))
    return layers


def _project(layers: list[tuple[float, Floats]], angle: float, size: int) -> Floats:
    """Transmission through tilted layers."""
    thickness = np.zeros((size, size), np.float32)
    across = np.arange(size) - (size - 1) / 2
    for depth, layer in layers:
        x = (across - depth * np.sin(angle)) / np.cos(angle) + (layer.shape[1] - 1) / 2
        x = np.clip(x, 0, layer.shape[1] - 1.001)
        left = x.astype(np.int64)
        part = (x - left).astype(np.float32)
        thickness += layer[:, left] * (1 - part) + layer[:, left + 1] * part
    thickness /= np.float32(np.cos(angle))
    return np.clip(np.exp(-thickness), 0.02, 1.6).astype(np.float32)
