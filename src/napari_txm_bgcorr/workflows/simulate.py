"""Output of `txm-bgcorr simulate`: raw images, truth, references, settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_txm_bgcorr.core import remove_folder, rename
from napari_txm_bgcorr.errors import WriteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_txm_bgcorr.core import Scan
    from napari_txm_bgcorr.simulation import SimulatedScan

__all__ = ["SETTINGS", "part_of", "write_simulation"]

SETTINGS = "simulation.json"
PREFIX = {"references": "ref", "darks": "dark"}


def part_of(out: Path) -> Path:
    """Path of a simulation while it is written."""
    return out.with_name(out.name + ".part")


def write_simulation(
    simulated: SimulatedScan, out: Path, settings: dict[str, Any], format: str = "tiff"
) -> None:
    """Write a simulated scan as a folder.

    `OUT/<name>.tif` are the raw tiles, or `OUT/<kind>.xrm` (`.txrm` of a series) all of them;
    `OUT/truth/background` and `OUT/truth/transmission`
    hold float32 truth under the same names with a table of the true positions,
    `OUT/references` and `OUT/darks` the reference and dark images, and
    `OUT/simulation.json` the settings and the time of each tile and reference. The folder
    appears under its name when complete.

    Parameters
    ----------
    simulated : SimulatedScan
    out : Path
    settings : dict
        JSON-ready; ``kind`` is tile, series or mosaic.
    format : str
        ``tiff`` or ``xrm``: how raw, reference and dark images are written. A mosaic goes
        into one canvas, as the instrument at TLS BL01B writes it.

    Raises
    ------
    WriteError
        If the folder cannot be written.
    """
    part = part_of(out)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        times = {"times": simulated.scan.times, "flat_times": simulated.scan.flat_times}
        texts = {k: [str(t) for t in v] for k, v in times.items() if v is not None}
        text = json.dumps({**settings, **texts}, indent=1) + "\n"
        (part / SETTINGS).write_text(text, encoding="utf-8")
        _write_truth(simulated, part)
        if format == "xrm":
            _write_xradia(simulated.scan, part, settings["kind"])
        else:
            _write_tiff(simulated.scan, part)
        if out.exists():
            remove_folder(out)
        rename(part, out)
    except OSError as error:
        reason = error.strerror or f"{error} (is the disk full?)"
        raise WriteError(f"{out}: {reason}; choose another folder") from error


def _write_truth(simulated: SimulatedScan, part: Path) -> None:
    scan = simulated.scan
    truths = {"background": simulated.backgrounds, "transmission": simulated.transmissions}
    for folder, images in truths.items():
        place = part / "truth" / folder
        place.mkdir(parents=True)
        for i, name in enumerate(scan.names):
            _write(place / f"{name}.tif", images[i], scan)
        if simulated.positions_px is not None:
            _write_table(place, scan, simulated.positions_px)


def _write_tiff(scan: Scan, part: Path) -> None:
    for i, name in enumerate(scan.names):
        _write(part / f"{name}.tif", scan.tiles[i], scan)
    if scan.positions_px is not None:
        _write_table(part, scan, scan.positions_px)
    for path, image, _ in _extras(scan, part):
        _write(path.with_suffix(".tif"), image, scan)


def _write_xradia(scan: Scan, part: Path, kind: str) -> None:
    from napari_txm_bgcorr.io.output import write_xradia

    facts: dict[str, Any] = {
        "pixel_um": (scan.pixel_nm or 0) / 1000,
        "energy_ev": [scan.energy_ev or 0],
        "exposure_s": scan.exposure_s or 0,
        "binning": scan.binning or 1,
    }
    more: dict[str, Any] = {}
    if scan.grid is not None and scan.positions_px is not None:
        # the stage goes the other way than the picture's rows, and in micrometres
        stage = scan.positions_px * [-1, 1] * facts["pixel_um"]
        more = {"grid": scan.grid, "canvas": True, "stage_um": stage}
    if kind == "series":
        count = len(scan)
        more = {"angles_deg": [180 * i / max(count - 1, 1) for i in range(count)]}
    suffix = ".txrm" if kind == "series" else ".xrm"
    dates = None if scan.times is None else [_date(t) for t in scan.times]
    write_xradia(part / f"{kind}{suffix}", scan.tiles, dates=dates, **facts, **more)
    for path, image, time in _extras(scan, part):
        dates = None if time is None else [_date(time)]
        write_xradia(path.with_suffix(".xrm"), image[None], dates=dates, **facts)


def _extras(scan: Scan, part: Path) -> Iterator[tuple[Path, NDArray[Any], Any]]:
    """Reference and dark images: place without suffix, image, time."""
    for kind, stack, times in (
        ("references", scan.flats, scan.flat_times),
        ("darks", scan.darks, None),
    ):
        if stack is None:
            continue
        for i in range(stack.shape[0]):
            (part / kind).mkdir(exist_ok=True)
            time = None if times is None else times[i]
            yield part / kind / f"{PREFIX[kind]}_{i + 1:04d}", np.asarray(stack[i]), time


def _date(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]").item().strftime("%m/%d/%y %H:%M:%S"))


def _write(path: Path, image: Any, scan: Scan) -> None:
    import tifffile

    pixel_um = (scan.pixel_nm or 0) / 1000
    resolution = (1 / pixel_um, 1 / pixel_um) if pixel_um else None
    tifffile.imwrite(
        path,
        np.ascontiguousarray(image),
        imagej=True,
        resolution=resolution,
        metadata={"unit": "um", "axes": "YX"} if pixel_um else {"axes": "YX"},
    )


def _write_table(folder: Path, scan: Scan, positions_px: NDArray[np.float64]) -> None:
    from napari_txm_bgcorr.io.readers import tile_configuration_text

    names = [f"{name}.tif" for name in scan.names]
    text = tile_configuration_text(names, positions_px)
    (folder / "TileConfiguration.txt").write_text(text, encoding="utf-8")
