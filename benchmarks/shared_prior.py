"""How good the shared prior is, and what its error is estimated from; `engine/shared_prior.py`.

``python benchmarks/shared_prior.py`` draws mosaics of 2 x 2 to 6 x 4 tiles and prints, for each,
the error of the shape by itself beside what was expected, and for all of them the ratio of the
true error to the difference of the two quantiles, by the number of tiles.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import ndimage

from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic
from napari_txm_bgcorr.engine.predict import Generator
from napari_txm_bgcorr.engine.prior_error import rms_change
from napari_txm_bgcorr.engine.priors import TILE_DRIFT_RMS, Prior
from napari_txm_bgcorr.engine.shared_prior import OF_FEW, SPREAD

SEED = 5_100_000
GRIDS = ((2, 2), (3, 3), (2, 2), (4, 4), (2, 3), (5, 5), (3, 3), (2, 2), (3, 6), (6, 4))


def draw(k: int, size: int, seed: int = SEED) -> SimulatedScan:
    """Mosaic `k`; every fourth is covered by specimen, every second has a dark image."""
    rows, columns = GRIDS[k % len(GRIDS)]
    return simulate_mosaic(
        rows, columns, size=size, overlap=(0.2, 0.16, 0.24)[k // 3 % 3], jitter_px=20, skew_px=4,
        hours_per_tile=85 / 3600, drift=(1.0, 2.0, 0.5)[k % 3], darks=k % 2, seed=seed + k,
        specimen="slab" if k % 4 == 3 else None,
    )  # fmt: skip


def true_error(drawn: SimulatedScan, prior: Prior) -> float:
    """Scale-free error of a shape against the mean log background of the tiles."""
    lit = ndimage.binary_erosion(drawn.session.aperture, iterations=2, border_value=1)
    kept = drawn.session.dark if drawn.scan.dark() is None else 0
    logs = [np.log(drawn.backgrounds[i] + kept) for i in range(len(drawn.scan))]
    off = np.asarray(prior.of(None) - np.mean(logs, axis=0), np.float32)
    return rms_change(off[lit][None], step=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosaics", type=int, default=40)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument(
        "--seed", type=int, default=SEED, help="default: what the constants are from"
    )
    given = parser.parse_args()
    counts, errors, spreads = [], [], []
    print("mosaic  family    tiles  off %  expected %  tile median off %")
    for k in range(given.mosaics):
        drawn = draw(k, given.size, given.seed)
        prior = Generator(prior="shared").fit(drawn.scan).prior
        median = None
        if len(drawn.scan) > 2:
            median = Generator(prior="tile-median").fit(drawn.scan).prior
        if prior is None or median is None:
            continue
        error, expected = true_error(drawn, prior), prior.rms(None)
        count = len(drawn.scan)
        spread = np.sqrt(max(expected**2 - TILE_DRIFT_RMS**2, 1e-8)) / (SPREAD + OF_FEW / count)
        print(
            f"{k:6d}  {drawn.session.family:8s}  {count:5d}  {100 * error:5.2f}  "
            f"{100 * expected:10.2f}  {100 * true_error(drawn, median):5.2f}",
            flush=True,
        )
        counts.append(count)
        errors.append(error)
        spreads.append(spread)
    ratio = np.log(np.array(errors) / np.array(spreads))
    for count in sorted(set(counts)):
        here = ratio[np.array(counts) == count]
        print(
            f"{count:3d} tiles: error over difference {np.exp(here.mean()):.2f} "
            f"(log sd {here.std():.2f}, {len(here)} mosaics); "
            f"taken: {SPREAD + OF_FEW / count:.2f}"
        )


if __name__ == "__main__":
    main()
