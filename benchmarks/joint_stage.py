"""Background errors of mosaics with and without the joint stage, on simulated sessions.

Run ``python benchmarks/joint_stage.py``; it prints the table of ``docs/explanation/mosaic.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_txm_bgcorr.core import mosaic, pixels, quality
from napari_txm_bgcorr.core.correction import divide
from napari_txm_bgcorr.core.scan import LazyTiles, Scan
from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic
from napari_txm_bgcorr.engine.methods import make_method

HOURS_PER_TILE = 85 / 3600
METHODS = ("captured", "tile-median", "smooth", "generator")
SEED = 7_200_000


def draw(k: int, size: int) -> SimulatedScan:
    """Draw mosaic `k`: 3 x 3, 4 x 4 or 5 x 5, every second one with a dark image."""
    side = 3 + k % 3
    return simulate_mosaic(
        side, side, size=size, overlap=(0.2, 0.16, 0.24)[k // 3 % 3], jitter_px=20, skew_px=4,
        hours_per_tile=HOURS_PER_TILE, references=1, reference_hours=8.0, darks=k % 2,
        seed=SEED + k,
    )  # fmt: skip


def figures(scan: Scan, drawn: SimulatedScan, backgrounds: np.ndarray) -> dict[str, float]:
    """Errors in per cent, over the tiles of one mosaic, and the seam."""
    dark = scan.dark()
    session = drawn.session
    beams, truths, masks, tiles = [], [], [], []
    lit = ndimage.binary_erosion(session.aperture, iterations=2, border_value=1)
    for i, background in enumerate(backgrounds):
        truth = drawn.backgrounds[i] + (session.dark if dark is None else 0)
        beam = background if dark is None else background - dark
        ratio = np.asarray(beam / truth, np.float32)
        beams.append(beam)
        truths.append(truth)
        masks.append(lit & ~pixels.outliers(ratio, lit, 6.0, 0.05))
        tiles.append(divide(scan.tiles[i], background, dark).transmission)
    errors = quality.mosaic_errors(beams, truths, masks)
    seam = quality.seam(tiles, drawn.positions_px, [lit] * len(tiles))
    whole = float(np.sqrt(np.mean(errors["mosaic"] ** 2)))
    return {
        "sf": 100 * float(errors["sf"].mean()), "mosaic": 100 * whole,
        "abs": 100 * float(errors["abs"].mean()), "seam": 100 * seam,
    }  # fmt: skip


def judge(drawn: SimulatedScan, name: str, tiles: np.ndarray, cache: Path | None) -> dict:
    """One method on one mosaic, with and without the stage."""
    scan = replace(drawn.scan, tiles=tiles)
    if name != "captured":
        scan = replace(scan, flats=None, flat_times=None)
    backgrounds = cached(cache, lambda: predict(scan, name))
    began = time.perf_counter()
    overview = mosaic.survey(scan, backgrounds)
    places = mosaic.register(scan, overview=overview)
    joined = mosaic.joint(scan, backgrounds, places, overview=overview)
    row = {
        "method": name, "seconds": time.perf_counter() - began, "reason": joined.reason,
        "registered": f"{places.used}/{len(places.edges)}",
        "kept": overview.pattern_kept.round(2).tolist(),
        "before": figures(scan, drawn, backgrounds),
        "after": figures(scan, drawn, joined.backgrounds),
    }  # fmt: skip
    return row


def predict(scan: Scan, name: str) -> np.ndarray:
    """Backgrounds `(T, Y, X)` of a method without the stage."""
    method = make_method(name).fit(scan)
    return method.background(scan.tiles, np.arange(len(scan)))


def cached(file: Path | None, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Array of a file, made where there is none; without a file simply made."""
    if file is None:
        return make()
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    return np.load(file)


def main() -> None:
    """Print the rows as they are made, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosaics", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--cache", type=Path, help="folder for tiles and predictions")
    parser.add_argument("--json", type=Path, help="file for all rows")
    given = parser.parse_args()
    rows = []
    for k in range(given.mosaics):
        drawn = draw(k, given.size)
        at = None if given.cache is None else given.cache / f"{given.size}-{k}"
        tiles = cached(at and at / "raw.npy", lambda d=drawn: np.asarray(d.scan.tiles[:]))
        true = cached(at and at / "true.npy", lambda d=drawn: np.asarray(d.backgrounds[:]))
        drawn = replace(drawn, backgrounds=LazyTiles(true.shape, np.float32, true.__getitem__))
        for name in given.methods:
            row = judge(drawn, name, tiles, at and at / f"{name}.npy") | {"mosaic": k}
            rows.append(row)
            b, a = row["before"], row["after"]
            print(
                f"{k:3d} {drawn.scan.grid} {drawn.session.family:8s} {name:12s} "
                + " ".join(f"{m} {b[m]:6.2f}>{a[m]:6.2f}" for m in b)
                + f"  {row['registered']} {row['kept']} {row['seconds']:.1f}s {row['reason']}",
                flush=True,
            )
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def table(rows: list[dict]) -> str:
    """Markdown: means over mosaics, intervals by bootstrap, mosaics made worse."""
    head = "| method | stage | sf % | one scale % | 95 % interval | abs % | seam % | worse |"
    out = [head, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for name in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == name]
        for stage in ("before", "after"):
            values = {m: np.array([r[stage][m] for r in mine]) for m in mine[0][stage]}
            low, high = quality.bootstrap_interval(values["mosaic"])
            worse = "" if stage == "before" else sum(
                r["after"]["mosaic"] > r["before"]["mosaic"] + 0.01 for r in mine
            )  # fmt: skip
            out.append(
                f"| {name} | {'none' if stage == 'before' else 'joint'} "
                f"| {values['sf'].mean():.2f} | {values['mosaic'].mean():.2f} "
                f"| {low:.2f} to {high:.2f} | {values['abs'].mean():.2f} "
                f"| {values['seam'].mean():.2f} | {worse} |"
            )
    return "\n".join(out)


if __name__ == "__main__":
    main()
