"""Results to stitch, cut from one known scene; also run as a script whose children are killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.core.scan import Scan, Source
from napari_txm_bgcorr.io import open_output
from napari_txm_bgcorr.io.output.result import open_parts
from napari_txm_bgcorr.io.output.tile_positions import find_places
from napari_txm_bgcorr.workflows.stitching.blocks import StitchOptions, stitch_tiles

PROVENANCE = {
    "source_path": "somewhere/scan",
    "method": "captured",
    "parameters": {"joint": {"pairs_registered": 9, "registration": "9 of 9 pairs"}},
    "date": "2026-01-01T00:00:00+00:00",
}
TILE = 64
STEP = 50
LIT = np.add.outer(np.arange(TILE), np.arange(TILE)[::-1]) >= 16  # top right corner is cut off


def scene(rows: int, columns: int) -> np.ndarray:
    """Transmission of everything that the tiles see."""
    shape = ((rows - 1) * STEP + TILE, (columns - 1) * STEP + TILE)
    y, x = np.indices(shape)
    waves = 0.2 * np.sin(y / 9) * np.cos(x / 7) + 0.1 * np.sin((x + y) / 3)
    return (0.7 + waves).astype(np.float32)


def background() -> np.ndarray:
    y, x = np.indices((TILE, TILE)) / TILE - 0.5
    return np.where(LIT, 9000 * (1 - 0.5 * y * y - x * y), 900).astype(np.float32)


def make_result(
    out: Path,
    rows: int = 3,
    columns: int = 4,
    *,
    form: str = "omezarr",
    save: tuple[str, ...] = ("raw", "background", "corrected", "mask"),
    provenance: dict[str, object] = PROVENANCE,
) -> Path:
    """Write a corrected mosaic: a dead pixel in each tile, wrong values wherever masked."""
    whole, rng = scene(rows, columns), np.random.default_rng(0)
    cells = np.array([(rows - 1 - k // columns, k % columns) for k in range(rows * columns)])
    cuts = [whole[y : y + TILE, x : x + TILE] for y, x in (cells * STEP).tolist()]
    beam = background()
    raw = np.stack([np.rint(cut * beam) for cut in cuts]).astype(np.uint16)
    dead = [tuple(rng.integers(20, 44, 2)) for _ in cuts]
    for k, (y, x) in enumerate(dead):
        raw[k, y, x] = 0
    scan = Scan(
        tiles=raw,
        kind="mosaic",
        source=Source(Path("scan"), "test", ()),
        names=tuple(f"tile_{k:03}" for k in range(len(cuts))),
        grid=(rows, columns),
        positions_px=cells.astype(float) * STEP + 0.25,
        pixel_nm=20.0,
    )
    with open_output(out, form, scan, provenance, save=save) as writer:
        for k, cut in enumerate(cuts):
            valid = LIT.copy()
            valid[dead[k]] = False
            value = np.where(LIT, cut, np.float32(1))
            value[dead[k]] = 0.123 + cut[dead[k]]  # a stand-in, wrong on purpose
            writer.write(TileResult(k, raw[k], beam, value.astype(np.float32), valid))
        writer.close_complete()
    return out


def run(source: Path, out: Path, chunk: int = 16, form: str = "omezarr") -> dict[str, object]:
    parts = open_parts(source)
    options = StitchOptions(("raw", "corrected"), format=form, chunk=chunk)
    return stitch_tiles(parts, find_places(parts), out, options)


def main() -> None:
    """For each delay read from standard input, stitch in a child that is killed after it."""
    source, out, form = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(source, out, form=form)
            os._exit(0)
        time.sleep(float(line))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        sys.stdout.write("killed\n" if os.WIFSIGNALED(status) else "ended\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
