"""How far registered tiles lie from the truth, against the places that were given.

Simulates mosaics of 3 to 20 % overlap and prints one row for each kind of given place, tile size
and overlap: pairs that show the same place, pairs that were measured, those of them wrong by more
than 0.6 % of the tile, the rms distance (px) of the given and of the registered places from the
true ones with the common shift removed, and the largest rise of a mosaic.

    OMP_NUM_THREADS=1 python benchmarks/registration.py                    # about 6 minutes
    OMP_NUM_THREADS=1 python benchmarks/registration.py --sizes 256 --seeds 2 --kinds nominal
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.scan import Scan, raster_positions
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.mosaic.registration import neighbours, nominal_positions, register
from napari_txm_bgcorr.simulation.acquisition import simulate_mosaic

KINDS = {
    "nominal": "regular, the true step",
    "wrong-step": "regular, a step of 80 % whatever was moved",
    "measured": "true places, each read 2 px of 512 off",
    "gaps": "regular, three tiles of twelve absent",
}
OVERLAPS = (0.03, 0.05, 0.07, 0.10, 0.20)
SPECIMENS = (None, "fossil", "cells", "particles")
GRID = (3, 4)
ABSENT = (2, 5, 7)
WRONG = 0.006  # of the tile


@dataclass(frozen=True)
class Row:
    """One mosaic, registered."""

    pairs: int
    used: int
    wrong: int
    given_rms: float
    found_rms: float


def rms_off(positions: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Rms distance of tiles from their true places, the common shift removed."""
    off = positions - true
    return float(np.sqrt(np.mean(np.sum((off - off.mean(axis=0)) ** 2, axis=1))))


def given(kind: str, true: NDArray[np.float64], scan: Scan, seed: int) -> NDArray[np.float64]:
    """Places that a table would state."""
    size = scan.tiles.shape[1]
    if kind == "wrong-step":
        return raster_positions(GRID, (round(0.8 * size),) * 2)
    if kind == "measured":
        noise = np.random.default_rng(seed).normal(0, 2 * size / 512, true.shape)
        return true + noise
    return nominal_positions(scan)


def chosen(scan: Scan, keep: NDArray[np.int64]) -> Scan:
    """Tiles `keep` of a scan, at their own places."""
    tiles = scan.tiles
    _, y, x = tiles.shape
    return replace(
        scan, tiles=LazyTiles((len(keep), y, x), tiles.dtype, lambda i: tiles[int(keep[i])]),
        names=tuple(scan.names[i] for i in keep), times=None, grid=None,
        positions_px=nominal_positions(scan)[keep],
    )  # fmt: skip


def mosaics(kind: str, size: int, overlap: float, seeds: int) -> Iterator[Row]:
    """Simulate and register one mosaic a specimen and seed."""
    for number, specimen in enumerate(SPECIMENS):
        for seed in range(seeds):
            made = simulate_mosaic(
                *GRID, size=size, overlap=overlap, jitter_px=(4.0, 8.0)[seed % 2],
                skew_px=(0.0, 6.0)[(seed + number) % 2], specimen=specimen,
                seed=97 * number + seed,
            )  # fmt: skip
            scan, true = made.scan, made.positions_px
            if true is None:
                raise RuntimeError("a mosaic without places")
            scan = replace(scan, positions_px=given(kind, true, scan, seed))
            if kind == "gaps":
                keep = np.setdiff1d(np.arange(len(scan)), ABSENT)
                scan, true = chosen(scan, keep), true[keep]
            scan = replace(scan, tiles=np.asarray(scan.tiles[:]))
            yield judge(scan, true)


def judge(scan: Scan, true: NDArray[np.float64]) -> Row:
    """Register by the raw tiles, each divided by its own median."""
    level = np.median(scan.tiles[:], axis=(1, 2), keepdims=True)
    found = register(scan, np.broadcast_to(level, scan.tiles.shape).astype(np.float32))
    size = scan.tiles.shape[1]
    used = [edge for edge in found.edges if edge.used]
    wrong = sum(
        bool(np.hypot(*(true[e.second] - true[e.first] - e.shift_px)) > WRONG * size) for e in used
    )
    pairs = len(neighbours(true, (size, size)))
    before = rms_off(nominal_positions(scan), true)
    return Row(pairs, len(used), wrong, before, rms_off(found.positions_px, true))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--overlaps", type=float, nargs="+", default=OVERLAPS)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    print("| given | px | overlap % | pairs | measured | wrong | given rms | registered | rise |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for kind in options.kinds:
        for size in options.sizes:
            for overlap in options.overlaps:
                rows = list(mosaics(kind, size, overlap, options.seeds))
                pairs, used, wrong = (sum(getattr(r, k) for r in rows) for k in COUNTS)
                before = float(np.mean([r.given_rms for r in rows]))
                after = float(np.mean([r.found_rms for r in rows]))
                rise = max(r.found_rms - r.given_rms for r in rows)
                print(
                    f"| {kind} | {size} | {100 * overlap:.0f} | {pairs} | {used} | {wrong} "
                    f"| {before:.2f} | {after:.2f} | {rise:+.2f} |",
                    flush=True,
                )


COUNTS = ("pairs", "used", "wrong")

if __name__ == "__main__":
    main()
