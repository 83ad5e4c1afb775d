"""Header fields of an Xradia file, read so that one missing or odd field costs only itself."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import raster_cells
from napari_txm_bgcorr.errors import ReadError

from .ole_container import Container

__all__ = ["Fields", "stage_positions"]

_DATE = re.compile(rb"(\d\d)/(\d\d)/(\d{4}|\d\d) (\d\d):(\d\d):(\d\d)")
_DATE_BYTES = 40  # one record of the stream `Date`; what follows the text is garbage
_TEXT_BYTES = 260
_LAYOUT_STEP = (0.3, 1.05)  # believable distance of neighbouring tiles, in tile sizes
_LAYOUT_STRAY = 0.25  # believable deviation from a regular grid, in tile sizes


class Fields:
    """Typed access to the header streams; collects notes on what was assumed.

    Parameters
    ----------
    ole : Container
        Open file.
    path : Path
        For messages.
    """

    def __init__(self, ole: Container, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._ole = ole

    def note(self, sentence: str) -> None:
        """Keep a sentence for the user, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def raw(self, name: str, most: int) -> bytes:
        """First bytes of a stream; none where it is missing or damaged."""
        try:
            return self._ole.field(name, most)
        except ReadError as error:
            self.note(f"{name} cannot be read: {str(error).removeprefix(f'{self.path}: ')}")
            return b""

    def integer(self, *names: str) -> int | None:
        """First int32 of the first of these streams that is there, else None."""
        for name in names:
            data = self.raw(name, 4)
            if len(data) == 4:
                return int.from_bytes(data, "little", signed=True)
        return None

    def floats(self, name: str, count: int) -> NDArray[np.float64]:
        """The first `count` float32 of a stream as float64; NaN where there are fewer."""
        values = np.full(count, np.nan)
        data = self.raw(name, 4 * count)
        stored = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
        with np.errstate(invalid="ignore"):  # signalling NaNs of a damaged file
            values[: stored.size] = stored
        return values

    def first_positive(self, name: str) -> float | None:
        """First positive, finite float32 of a stream (the others may be padding)."""
        values = self.floats(name, 4096)
        usable = values[np.isfinite(values) & (values > 0)]
        return float(usable[0]) if usable.size else None

    def length(self, name: str) -> int:
        """A required positive int32.

        Raises
        ------
        ReadError
            If it is missing or not positive.
        """
        value = self.integer(name)
        if value is None:
            raise ReadError(
                f"{self.path}: {name} is missing; export the file again at the instrument"
            )
        if value < 1:
            raise ReadError(
                f"{self.path}: {name} is {value}; copy the file again from the instrument"
            )
        return value

    def version(self) -> float:
        """Format version: 3.0 or 5.0; 3.0 where the file does not tell."""
        return self.first_positive("Version") or 3.0

    def pixel_nm(self) -> float | None:
        """Pixel size (nm), stored in micrometres."""
        pixel_um = self.first_positive("ImageInfo/PixelSize")
        if pixel_um is None:
            self.note("ImageInfo/PixelSize is missing or not positive; pass --pixel-nm")
            return None
        return pixel_um * 1000

    def exposures_s(self, count: int) -> NDArray[np.float64]:
        """Exposure of each image (s); NaN where unknown."""
        values = self._positive("ImageInfo/ExpTimes", count)
        if not np.isfinite(values).any():
            values = self._positive("ImageInfo/ExpTime", count)
        usable = values[np.isfinite(values)]
        if usable.size and usable.max() > 1.01 * usable.min():
            self.note(f"exposures vary from {usable.min():g} to {usable.max():g} s")
        return values

    def energies_ev(self, count: int) -> NDArray[np.float64]:
        """Photon energy of each image (eV); NaN where unknown, as zeros pad the stream."""
        return self._positive("ImageInfo/Energy", count)

    def monitor(self, count: int) -> NDArray[np.float64] | None:
        """Beam monitor at each image: ion chamber, else ring current; 0 is not connected."""
        for name in ("ImageInfo/IonChamberCurrent", "ImageInfo/Current"):
            values = self._positive(name, count)
            if np.isfinite(values).any():
                return values
        return None

    def reference_exposure_s(self) -> float | None:
        """Exposure of the reference inside the file (s)."""
        return self.first_positive("ReferenceData/ExpTime") or self.first_positive(
            "ReferenceData/ImageInfo/ExpTimes"
        )

    def _positive(self, name: str, count: int) -> NDArray[np.float64]:
        values = self.floats(name, count)
        with np.errstate(invalid="ignore"):
            values[~(np.isfinite(values) & (values > 0))] = np.nan
        return values

    def binning(self) -> int | None:
        """Camera binning; horizontal where the two differ."""
        across = self.integer("ImageInfo/HorizontalBin", "ImageInfo/CameraBinning")
        down = self.integer("ImageInfo/VerticalalBin", "ImageInfo/VerticalBin")
        value = across or down
        if across and down and across != down:
            self.note(f"binning is {across} across and {down} down")
        return value if value and value > 0 else None

    def angles_deg(self, count: int) -> NDArray[np.float64] | None:
        """Rotation of each image (degrees), None unless all are there."""
        angles = self.floats("ImageInfo/Angles", count)
        return angles if np.isfinite(angles).all() else None

    def times(self, folder: str, count: int, *, quiet: bool) -> NDArray[np.datetime64] | None:
        """Acquisition time of each image; None unless all dates are there.

        Parameters
        ----------
        folder : str
            Storage that holds `Date`.
        count : int
            Number of images.
        quiet : bool
            Leave no note where dates are missing.
        """
        data = self.raw(f"{folder}/Date", _DATE_BYTES * count)
        whole = [_moment(match) for match in _DATE.finditer(data)]
        records = (data[i * _DATE_BYTES : (i + 1) * _DATE_BYTES] for i in range(count))
        moments = [_moment(_DATE.search(record)) for record in records]
        if None in moments and len(whole) >= count:
            moments = whole[:count]  # records of another length
        if None in moments:
            if not quiet:
                self.note(f"{folder}/Date: {moments.count(None)} of {count} dates are missing")
            return None
        return np.array(moments, "datetime64[s]")

    def note_reference_file(self) -> None:
        """Name the reference that the instrument was told to use."""
        name = self.raw("ImageInfo/ReferenceFile", _TEXT_BYTES).split(b"\0")[0]
        text = "".join(c for c in name.decode("latin-1") if c.isprintable()).strip()
        if text:
            self.note(f"no reference inside; at the instrument it was {text}")

    def note_divided(self) -> None:
        """Warn where the instrument says that it has divided the images itself."""
        if self.integer("ImageInfo/OriginalDataRefCorrected"):
            self.note("ImageInfo/OriginalDataRefCorrected is set: already divided, it seems")


def _moment(match: re.Match[bytes] | None) -> np.datetime64 | None:
    """Moment of a date as month/day/year; years of two digits lie within 1970-2069."""
    if match is None:
        return None
    month, day, year, hour, minute, second = (int(part) for part in match.groups())
    if year < 100:
        year += 2000 if year < 70 else 1900
    try:
        return np.datetime64(datetime(year, month, day, hour, minute, second), "s")
    except ValueError:
        return None


def stage_positions(
    stage_um: NDArray[np.float64],
    grid: tuple[int, int],
    shape: tuple[int, int],
    pixel_nm: float,
) -> NDArray[np.float64] | None:
    """Nominal positions of a mosaic's tiles from the positions of the stage.

    Which way the stage moves the picture is not recorded, so the sign of each axis is taken
    from the order of acquisition: columns rightwards, rows upwards.

    Parameters
    ----------
    stage_um : (T, 2) float64, micrometres
        Stage (y, x) of each tile; NaN where unknown.
    grid : (rows, columns)
    shape : (Y, X)
        Size of a tile in pixels.
    pixel_nm : float
        Pixel size (nm).

    Returns
    -------
    (T, 2) float64 or None
        Top left corners (y, x) in pixels, y downwards, least value 0; None where the stage
        positions do not describe such a grid.
    """
    with np.errstate(all="ignore"):
        stage_px = stage_um * (1000 / pixel_nm)
    if not np.isfinite(stage_px).all() or np.abs(stage_px).max() > 1e9:
        return None
    cells = raster_cells(grid)[: len(stage_um)]
    positions = np.zeros((len(stage_um), 2))
    for axis in range(2):
        cell, stage = cells[:, axis] - cells[0, axis], stage_px[:, axis] - stage_px[0, axis]
        if not cell.any():
            continue  # one row or one column: nothing tells the sign
        centred = cell - cell.mean()
        step = float(centred @ stage / (centred @ centred))
        stray = np.abs(stage - stage.mean() - step * centred).max()
        least, most = (limit * shape[axis] for limit in _LAYOUT_STEP)
        if not least <= abs(step) <= most or stray > _LAYOUT_STRAY * shape[axis]:
            return None
        positions[:, axis] = np.copysign(1, step) * stage
    positions -= positions.min(axis=0)
    return positions
