"""The cases of the evaluation, drawn from simulated sessions with their truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import Scan, Source
from napari_txm_bgcorr.simulation import FAMILIES, SimulatedSession, draw_session, draw_specimen

__all__ = ["CASES", "EVALUATION", "Case", "SimulatedCase", "Truth", "draw_case", "families"]

Image = NDArray[np.float32]
EVALUATION = 0x45564C  # first word of the spawn key; training's begins with 0 or 1
OVERLAP = 0.2
EXPOSURE_S = 60.0
HOURS_PER_TILE = (EXPOSURE_S + 5) / 3600  # and the motor
MONTHS_2 = 1440.0
RIM = 1 / 128  # of the field: half-lit edge of the aperture, left out of the judgement
START = np.datetime64("2024-01-01T00:00:00", "s")


@dataclass(frozen=True)
class Case:
    """Data that a user has: tiles, and references of some age.

    Attributes
    ----------
    name : str
    side : int
        Mosaic of `side` x `side` tiles; 1: single tiles.
    ages_h : tuple of float
        Time of the first tile less that of each reference.
    """

    name: str
    side: int = 1
    ages_h: tuple[float, ...] = ()


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("tile"),
        Case("tile, reference 10 min old", 1, (1 / 6,)),
        Case("tile, reference 8 h old", 1, (8.0,)),
        Case("tile, reference 2 months old", 1, (MONTHS_2,)),
        Case("tile, 8 references of the day", 1, tuple(range(16, 0, -2))),
        Case("mosaic 3x3", 3),
        Case("mosaic 3x3, reference 8 h old", 3, (8.0,)),
    )
}


@dataclass(frozen=True, eq=False)
class Truth:
    """Truth of one tile.

    Attributes
    ----------
    reference : (Y, X) float32, counts
        What a perfect reference reads, less the dark where the scan knows it.
    sample : (Y, X) float32
        Transmission of the specimen.
    lit : (Y, X) bool
        Where it is judged.
    """

    reference: Image
    sample: Image
    lit: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """A case in one session: its scans, each with the truth of its tiles."""

    case: Case
    group: str
    session: int
    lit: NDArray[np.bool_]
    scans: tuple[tuple[Scan, tuple[Truth, ...]], ...]


def families(group: str) -> list[str]:
    """Names of the illumination families of a group."""
    return [name for name, f in FAMILIES.items() if f.held_out == (group == "held-out")]


def draw_case(case: Case, group: str, session: int, size: int, seed: int) -> SimulatedCase:
    """Draw one case in one session.

    The session (instrument, drift) is the same for all cases, and so are the raw tiles of all
    cases of one size: they differ in the references only. Every second session has no dark
    image, as at TLS BL01B. Single tiles come in twos, of different specimens.

    Parameters
    ----------
    case : Case
    group : {"seen", "held-out"}
    session : int
    size : int
        Pixels along a tile.
    seed : int
    """
    key = (EVALUATION, int(group == "held-out"), session)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    names = families(group)
    family = names[session % len(names)] if group == "held-out" else None
    instrument = draw_session(rng, size=size, family=family)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, case.side)))
    lit = ndimage.binary_erosion(
        instrument.aperture, iterations=max(1, round(RIM * size)), border_value=1
    )
    dark = session % 2 == 0
    repeats = 2 if case.side == 1 else 1
    streams = rng.spawn(repeats)
    scans = tuple(_scan(case, instrument, lit, dark, own, session) for own in streams)
    return SimulatedCase(case, group, session, lit, scans)


def _scan(
    case: Case,
    instrument: SimulatedSession,
    lit: NDArray[np.bool_],
    dark: bool,
    rng: np.random.Generator,
    session: int,
) -> tuple[Scan, tuple[Truth, ...]]:
    size, side = instrument.size, case.side
    step = round(size * (1 - OVERLAP))
    whole = size + step * (side - 1)
    specimen = draw_specimen(rng, (whole, whole), field_px=size)
    corners = [((side - 1 - k // side) * step, k % side * step) for k in range(side * side)]
    hours = HOURS_PER_TILE * np.arange(len(corners))
    truths, raws = [], []
    for (y, x), hour in zip(corners, hours, strict=True):
        sample = specimen[y : y + size, x : x + size]
        beam = instrument.background(float(hour))
        reference = beam if dark else beam + instrument.dark
        truths.append(Truth(reference, sample, lit))
        raws.append(instrument.expose(sample, float(hour), rng))
    scan = Scan(
        tiles=np.stack(raws),
        kind="single" if side == 1 else "mosaic",
        source=Source(Path(f"session-{session}"), "simulated"),
        names=tuple(f"tile{k + 1:04d}" for k in range(len(raws))),
        grid=None if side == 1 else (side, side),
        positions_px=None if side == 1 else np.array(corners, np.float64),
        times=_times(hours),
        exposure_s=EXPOSURE_S,
        darks=instrument.dark[None] if dark else None,
    )
    return _with_references(scan, case, instrument, rng), tuple(truths)


def _with_references(
    scan: Scan, case: Case, instrument: SimulatedSession, rng: np.random.Generator
) -> Scan:
    if not case.ages_h:
        return scan
    empty = np.ones((instrument.size, instrument.size), np.float32)
    flats = np.stack([instrument.expose(empty, -age, rng) for age in case.ages_h])
    times, exposures = _times(-np.asarray(case.ages_h)), np.full(len(flats), EXPOSURE_S)
    return replace(scan, flats=flats, flat_times=times, flat_exposures_s=exposures)


def _times(hours: NDArray[np.floating]) -> NDArray[np.datetime64]:
    times: NDArray[np.datetime64] = START + np.rint(hours * 3600).astype("timedelta64[s]")
    return times
