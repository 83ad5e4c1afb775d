"""Draw a large simulated mosaic corrected by `auto` and by a reference, beside the truth.

Run ``python benchmarks/mosaic_picture.py --out picture.png`` for the picture of
``docs/explanation/mosaic.md``: 31 x 31 tiles with errors of the stage, 16 hours of drift and
three rows that a slab covers. It prints the error of each method with one scale for the mosaic.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core.correction import BackgroundMethod, divide
from napari_txm_bgcorr.core.references import References
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.mosaic.assembly import blend
from napari_txm_bgcorr.mosaic.overview import bin_mean
from napari_txm_bgcorr.quality import metrics as quality
from napari_txm_bgcorr.simulation.acquisition import SimulatedScan, simulate_mosaic

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = 0.05  # of the truth: ends of the scale of errors


def transmissions(scan: Scan, method: BackgroundMethod) -> tuple[np.ndarray, np.ndarray]:
    """Corrected tiles and their valid pixels."""
    dark, tiles, valid = scan.dark(), [], []
    for i in range(len(scan)):
        raw = scan.tiles[i]
        found = divide(raw, method.background(raw[None], np.array([i]))[0], dark)
        tiles.append(found.transmission)
        valid.append(found.valid)
    return np.stack(tiles), np.stack(valid)


def error(drawn: SimulatedScan, scan: Scan, method: BackgroundMethod, valid: np.ndarray) -> float:
    """Background error in per cent with one scale for the mosaic, of every seventh tile.

    Of pixels that are valid, and lit in truth.
    """
    some = range(0, len(scan), 7)
    dark = scan.dark()
    beams = [method.background(scan.tiles[i][None], np.array([i]))[0] for i in some]
    beams = [b if dark is None else b - dark for b in beams]
    truths = [drawn.backgrounds[i] for i in some]
    found = quality.mosaic_errors(beams, truths, [drawn.session.aperture & valid[i] for i in some])
    found = found["mosaic"]
    return 100 * float(np.sqrt(np.mean(found**2)))


def picture(
    tiles: np.ndarray, valid: np.ndarray | None, places: np.ndarray, by: int
) -> np.ndarray:
    """Tiles put together at 1/`by` of their size; NaN where nothing is."""
    small = np.stack([bin_mean(np.nan_to_num(t), by) for t in tiles])
    if valid is None:
        return blend(small, places / by)
    seen = np.stack([bin_mean(v.astype(np.float32), by) for v in valid])
    return blend(small / np.maximum(seen, 1e-6), places / by, seen > 0.5)


def main() -> None:
    """Draw, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=31, help="rows and columns")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--covered", type=int, default=3, help="rows that a slab covers")
    parser.add_argument("--specimen", help="default: mixed")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("mosaic-covered.png"))
    given = parser.parse_args()
    drawn = simulate_mosaic(
        given.tiles, given.tiles, size=given.size, covered_rows=given.covered, references=2,
        darks=4, family="bl01b", specimen=given.specimen, seed=given.seed,
    )  # fmt: skip
    scan = replace(drawn.scan, tiles=np.asarray(drawn.scan.tiles[:]))
    given_before = References.of(scan)
    if given_before is None:
        raise ValueError("the simulated scan has no references")
    before = given_before.chosen(np.arange(1)).attach(scan)
    alone = replace(scan, flats=None, flat_times=None)
    joined: Any = make_method("auto").fit(alone)
    places = scan.positions_px
    if isinstance(joined, DriftModel) and joined.positions is not None:
        places = joined.positions.positions_px
        print(joined.positions.note)
    ways = {
        "one reference, taken before": (before, make_method("captured").fit(before)),
        "auto, no reference": (alone, joined),
    }
    by = max(1, given.tiles * given.size // 1000)
    truth = picture(drawn.transmissions[:], None, drawn.positions_px, by)
    figure, axes = plt.subplots(2, 3, figsize=(15, 9.2), layout="constrained")
    raw = picture(scan.tiles, None, places, by)
    show(figure, axes[0, 0], raw, "raw counts", (np.nanmin(raw), np.nanmax(raw)))
    show(figure, axes[1, 0], truth, "true transmission", (0, 1.2))
    lit = np.broadcast_to(drawn.session.aperture, scan.tiles.shape)
    for column, (name, (seen, method)) in enumerate(ways.items(), start=1):
        tiles, valid = transmissions(seen, method)
        at = scan.positions_px if column == 1 else places
        found = picture(tiles, valid, at, by)
        off = error(drawn, seen, method, valid)
        print(f"{name}: background off by {off:.2f} % (one scale)")
        show(figure, axes[0, column], found, f"corrected by {name}", (0, 1.2))
        same = tiles / drawn.transmissions[:]
        ratio = picture(same / np.median(same[valid]), valid & lit, at, by)
        title = f"corrected / true - 1 (background off by {off:.1f} %)"
        show(figure, axes[1, column], 100 * (ratio - 1), title, (-100 * SHOWN, 100 * SHOWN), "%")
    figure.savefig(given.out, dpi=64)
    print(given.out)


def show(
    figure: Any, axes: Any, image: np.ndarray, title: str, limits: tuple[float, float],
    unit: str = "",
) -> None:  # fmt: skip
    """One panel with its scale; errors in two colours."""
    colours = "RdBu_r" if unit else "gray"
    drawn = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=unit)


if __name__ == "__main__":
    main()
