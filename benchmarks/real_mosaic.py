"""The real 2 x 2 mosaic, raw and corrected, put together, with its seams.

Run ``python benchmarks/real_mosaic.py FOLDER --out picture.png`` for the picture and the table of
``docs/explanation/mosaic.md``. FOLDER: the tiles with their TileConfiguration.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from napari_txm_bgcorr import io
from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core import pixels
from napari_txm_bgcorr.core.correction import correct_tiles
from napari_txm_bgcorr.mosaic.assembly import blend
from napari_txm_bgcorr.quality import metrics as quality

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = (0.3, 1.2)  # transmission, black to white


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    scan = io.read(given.folder)
    raw = np.asarray(scan.tiles[:], np.float32)
    joined = make_method("auto").fit(scan)
    places = joined.positions.positions_px  # the same for all rows
    shown = {
        "raw": None,
        "generator": make_method("generator").fit(scan),
        "tile-median": make_method("tile-median").fit(scan),
        "tile-median, joint": make_method("tile-median", joint=True).fit(scan),
        "auto, not joint": make_method("auto", joint=False).fit(scan),
        "auto": joined,
    }
    _, axes = plt.subplots(2, 3, figsize=(11, 8.2), layout="constrained")
    print("| | seam % | shared residue |\n|---|---:|---:|")
    for (label, method), ax in zip(shown.items(), axes.flat, strict=True):
        if method is None:
            tiles = list(raw / np.median(raw, axis=(1, 2), keepdims=True))
            valid = [pixels.lit_field(tile) for tile in raw]
        else:
            found = list(correct_tiles(scan, method))
            tiles, valid = [f.transmission for f in found], [f.valid for f in found]
        seam = 100 * quality.seam(tiles, places, valid)
        residue = quality.shared_residue(tiles, valid)
        print(f"| {label} | {seam:.1f} | {residue:.2f} |")
        picture = blend(np.stack(tiles), places, np.stack(valid))
        ax.imshow(picture, cmap="gray", vmin=SHOWN[0], vmax=SHOWN[1], interpolation="antialiased")
        ax.set_title(label)
        ax.set_axis_off()
    if given.out is not None:
        plt.savefig(given.out, dpi=75)


if __name__ == "__main__":
    main()
