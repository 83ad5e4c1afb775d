"""Scans and results for the tests of writers; also run as a script that is killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_txm_bgcorr.core.correction import TileResult
from napari_txm_bgcorr.core.scan import Scan, Source, raster_positions
from napari_txm_bgcorr.io import open_output

PROVENANCE = {
    "source_path": "scan",
    "source_sha256": "00ff",
    "method": "smooth",
    "parameters": {"sigma_px": 25.0, "text": 'a "quoted" <tag> & \u00b5'},
    "device": "cpu",
    "date": "2026-01-01T00:00:00+00:00",
}


def make_scan(
    rows: int = 2, columns: int = 3, size: tuple[int, int] = (20, 26), dtype: str = "uint16"
) -> Scan:
    """Mosaic with every fact an output keeps."""
    count = rows * columns
    pixels = np.random.default_rng(1).integers(1, 100, (count, *size)).astype(dtype)
    return Scan(
        tiles=pixels,
        kind="mosaic",
        source=Source(Path("scan"), "test", ()),
        names=tuple(f"Sb-b2_{k:04}" for k in range(1, count + 1)),
        grid=(rows, columns),
        positions_px=raster_positions((rows, columns), (16.25, 20.5)),
        times=np.datetime64("2023-02-22T10:00:00", "s") + 60 * np.arange(count),
        pixel_nm=29.296875,
        energy_ev=9200.0,
        exposure_s=60.0,
        binning=2,
    )


def result(scan: Scan, i: int) -> TileResult:
    """What a correction gives for tile `i`, with values that need all bits of float32."""
    raw = np.asarray(scan.tiles[i])
    background = (raw * np.float32(1.1) + np.float32(0.123456)).astype(np.float32)
    return TileResult(
        index=i,
        raw=raw,
        background=background,
        transmission=(raw / background).astype(np.float32),
        valid=raw % 7 > 0,
    )


def write_all(out: Path, form: str, scan: Scan, **options: Any) -> Path:
    with open_output(out, form, scan, PROVENANCE, **options) as writer:
        for i in range(len(scan)):
            if i not in writer.done:
                writer.write(result(scan, i))
        return writer.close_complete()


def main() -> None:
    """Write slowly for ever after the third tile, so that the test can kill it in between."""
    scan = make_scan()
    with open_output(Path(sys.argv[1]), sys.argv[2], scan, PROVENANCE) as writer:
        for i in range(3):
            writer.write(result(scan, i))
        sys.stdout.write("three\n")
        sys.stdout.flush()
        time.sleep(60)


if __name__ == "__main__":
    main()
