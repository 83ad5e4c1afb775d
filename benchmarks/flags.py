"""How well each flag of `core.flags` finds bad tiles, on simulated mosaics.

``python benchmarks/flags.py --mosaics 24 --seed 1`` chooses thresholds on one set of mosaics,
judges the flags on two others (illumination and specimens as in training; both unseen), and
prints the tables of ``docs/explanation/flags.md``. ``--write`` puts them into that page and
into ``core/flag_worth.json``, which the program reads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.core import pixels, quality
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.flags import FLAGS
from napari_txm_bgcorr.core.scan import LazyTiles, Scan
from napari_txm_bgcorr.core.simulate import FAMILIES, SimulatedScan, simulate_mosaic
from napari_txm_bgcorr.core.tile_quality import Gauge
from napari_txm_bgcorr.engine.methods import make_method

ROOT = Path(__file__).resolve().parents[1]
SETS = {"choose": 0, "seen": 1, "unseen": 2}
BAD = 0.03  # background error, one scale removed
TIMES = 2.0  # or this many times the scan's median
HOURS_PER_TILE = 85 / 3600
DRAWS = 500
Floats = NDArray[np.float64]


def draw(part: str, k: int, size: int, seed: int) -> SimulatedScan:
    """Draw mosaic `k` of a set: 3 x 3 to 5 x 5, half without a dark, half with an old reference."""
    side = 3 + k % 3
    number = int(np.random.SeedSequence([seed, SETS[part], k]).generate_state(1)[0])
    unseen = [name for name, family in FAMILIES.items() if family.held_out]
    drawn = simulate_mosaic(
        side, side, size=size, overlap=(0.2, 0.16, 0.24)[k // 3 % 3], jitter_px=20, skew_px=4,
        hours_per_tile=HOURS_PER_TILE, references=k // 2 % 2, reference_hours=8.0,
        darks=k % 2, seed=number, family=unseen[k % len(unseen)] if part == "unseen" else None,
        specimen="empty" if part == "unseen" else None,
    )  # fmt: skip
    return with_circuit(drawn, size, number) if part == "unseen" else drawn


def with_circuit(drawn: SimulatedScan, size: int, seed: int) -> SimulatedScan:
    """The same mosaic of a specimen that no training shows: layers of conductors and a wedge."""
    at = np.rint(drawn.positions_px).astype(int)
    shape = tuple(int(n) + size for n in at.max(axis=0))
    rng = np.random.default_rng([seed, 9])
    canvas = circuit(rng, shape, size)

    def cut(i: int) -> NDArray[np.float32]:
        y, x = at[i]
        return canvas[y : y + size, x : x + size]

    def raw(i: int) -> NDArray[np.uint16]:
        tag = np.random.default_rng([seed, 3, i])
        return drawn.session.expose(cut(i), drawn.hours[i], tag, drift=1.0)

    count = len(drawn.scan)
    return replace(
        drawn,
        scan=replace(drawn.scan, tiles=LazyTiles((count, size, size), np.uint16, raw)),
        transmissions=LazyTiles((count, size, size), np.float32, cut),
    )


def circuit(
    rng: np.random.Generator, shape: tuple[int, int], size: int
) -> NDArray[np.float32]:
    """Transmission of straight conductors in two layers, contacts, and a wedge of substrate."""
    thickness = np.zeros(shape, np.float32)
    for axis in (0, 1):
        place = 0.0
        while place < shape[axis]:
            width = size * rng.uniform(0.01, 0.12)
            line = [slice(None), slice(None)]
            line[axis] = slice(int(place), int(place + width))
            start = int(rng.uniform(-0.5, 0.5) * shape[1 - axis])
            line[1 - axis] = slice(max(0, start), max(0, start) + int(shape[1 - axis] * 0.8))
            thickness[tuple(line)] += rng.uniform(0.1, 0.5)
            place += width + size * rng.uniform(0.02, 0.4)
    y, x = np.mgrid[: shape[0], : shape[1]] / size
    angle = rng.uniform(0, 2 * np.pi)
    wedge = 0.08 * (np.cos(angle) * x + np.sin(angle) * y)
    thickness = ndimage.gaussian_filter(thickness, size / 400) + wedge - wedge.min()
    return np.exp(-thickness).astype(np.float32)


def judge(
    drawn: SimulatedScan, method: BackgroundMethod, novelty: Callable[[TileResult], float] | None
) -> tuple[Floats, dict[str, Floats]]:
    """True error of each tile's background `(T,)`, and the suspicion of each flag."""
    scan = drawn.scan
    dark = scan.dark()
    pedestal = drawn.session.dark if dark is None else 0
    lit = ndimage.binary_erosion(drawn.session.aperture, iterations=2, border_value=1)
    gauge, errors = Gauge(scan), np.full(len(scan), np.nan)
    for tile in correct_tiles(scan, method):
        truth = drawn.backgrounds[tile.index] + pedestal
        beam = tile.background if dark is None else tile.background - dark
        ratio = np.asarray(beam / truth, np.float32)
        known = lit & ~pixels.outliers(ratio, lit, 6.0, 0.05)
        errors[tile.index] = quality.background_error(beam, truth, known)["sf"]
        gauge.add(tile, float("nan") if novelty is None else novelty(tile))
    gauge.register()
    table = gauge.table()
    return errors, {key: flag.score(table) for key, flag in FLAGS.items() if not flag.fact}


def is_bad(errors: Floats) -> NDArray[np.bool_]:
    """Tiles of one mosaic whose background is off by 3 %, or by twice the mosaic's median."""
    return (errors > BAD) | (errors > TIMES * np.median(errors))
