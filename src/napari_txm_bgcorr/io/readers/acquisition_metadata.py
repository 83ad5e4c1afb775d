"""Facts of a scan that several readers derive in the same way."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import ReadError

from .filename_metadata import NameFacts
from .tile_layout import absent_cells, numbered_cells

__all__ = ["frame_names", "nanometres", "with_grid", "with_name_facts"]

FIELD_NM = 15_000.0  # TLS BL01B: 1024 px of the camera see 15 um at binning 1
CAMERA_PX = 1024

_UNITS_NM = {
    "pm": 1e-3,
    "picometer": 1e-3,
    "å": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "um": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "m": 1e9,
    "meter": 1e9,
    "inch": 2.54e7,
}


def nanometres(value: float, unit: str) -> float | None:
    """Length in nm, or None where the unit is no length (``pixel``) or the value no size.

    Parameters
    ----------
    value : float
        Length in `unit`.
    unit : str
        Name or symbol; British spelling and both micro signs are understood.
    """
    # ImageJ writes the micro sign as the six characters backslash u00B5
    plain = unit.strip().casefold().replace("\\u00b5", "u")
    plain = plain.replace("\u00b5", "u").replace("\u03bc", "u").replace("metre", "meter")
    factor = _UNITS_NM.get(plain)
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    return float(f"{value * factor:.12g}")  # drop the rounding of the change of unit


def frame_names(path: Path, count: int) -> tuple[str, ...]:
    """Names of the images of one file: its stem, numbered from 1 where there are several."""
    if count == 1:
        return (path.stem,)
    digits = max(4, len(str(count)))
    return tuple(f"{path.stem}_{k:0{digits}d}" for k in range(1, count + 1))


def with_grid(scan: Scan, grid: tuple[int, int] | None) -> Scan:
    """Take the tiles of a scan as a mosaic of `grid`, bottom left first, abutted.

    Tiles that are missing between numbered ones leave gaps.

    Parameters
    ----------
    scan : Scan
        In order of acquisition.
    grid : (rows, columns) or None
        None, or the grid it already has: unchanged.

    Raises
    ------
    ReadError
        If more tiles than cells are there, fewer than one row, or tiles are missing and the
        numbers of the others do not tell their cells.
    """
    if grid is None or scan.grid == grid:
        return scan
    where, count = scan.source.path, len(scan)
    if min(grid) < 1 or count > math.prod(grid):
        raise ReadError(
            f"{where}: {count} tiles are no grid of {grid[0]} x {grid[1]}; "
            "pass --grid ROWSxCOLUMNS that fits them"
        )
    notes = ["overlap unknown: tiles are laid side by side"]
    raster_index = None
    if count < math.prod(grid):
        if count < grid[1]:
            raise ReadError(
                f"{where}: {count} tiles do not fill one row of a grid of {grid[0]} x {grid[1]}; "
                "pass --grid ROWSxCOLUMNS that fits them"
            )
        raster = numbered_cells(scan.names, math.prod(grid), where)
        if raster[-1] >= count:
            notes.append(absent_cells(raster, grid))
            raster_index = raster
        else:
            notes.append(
                f"{count} of the {math.prod(grid)} tiles of a grid of {grid[0]} x {grid[1]}: "
                "taken as an interrupted mosaic"
            )
    placed = replace(
        scan,
        kind="mosaic",
        grid=grid,
        raster_index=raster_index,
        notes=(*scan.notes, *notes),
    )
    return replace(placed, positions_px=placed.abutted_positions())


def with_name_facts(scan: Scan, named: NameFacts) -> Scan:
    """Fill binning, exposure, energy and pixel size from the name where metadata have none.

    The pixel size follows from the binning only where the field is the whole camera of
    TLS BL01B (1024 px at binning 1 see 15 um).

    Parameters
    ----------
    scan : Scan
    named : NameFacts
        From the names of its file and folder.
    """
    notes = list(scan.notes)
    binning, exposure, pixel = scan.binning, scan.exposure_s, scan.pixel_nm
    energy = scan.energy_ev
    if binning is None and named.binning is not None:
        binning = named.binning
        notes.append(f"binning {binning} from the name")
    if exposure is None and named.exposure_s is not None:
        exposure = named.exposure_s
        notes.append(f"exposure {exposure:g} s from the name")
    if energy is None and named.energy_ev is not None:
        energy = named.energy_ev
        notes.append(f"photon energy {energy:g} eV from the name")
    width = scan.tiles.shape[2]
    if pixel is None and named.binning and width * named.binning == CAMERA_PX:
        pixel = round(FIELD_NM / width, 4)
        notes.append(f"pixel size {pixel:.4g} nm assumed from b{named.binning} of a 15 um field")
    return replace(
        scan, binning=binning, exposure_s=exposure, energy_ev=energy, pixel_nm=pixel,
        notes=tuple(notes),
    )  # fmt: skip
