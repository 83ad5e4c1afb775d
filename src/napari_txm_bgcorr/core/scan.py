"""A scan of raw tiles: made by every reader, consumed by every background method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ReadError

from .tile_array import TileArray, as_tiles

__all__ = ["Kind", "Scan", "Source", "raster_cells", "raster_positions"]

Kind = Literal["single", "mosaic", "series"]


@dataclass(frozen=True)
class Source:
    """Origin of a scan.

    Attributes
    ----------
    path : Path
        File or folder the user named.
    format : str
        Reader's name, for example ``"xradia"``, ``"tiff"``, ``"simulated"``.
    files : tuple of Path
        Every file that holds pixels, in order.
    """

    path: Path
    format: str
    files: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: of the file, or over names and hashes of several files.

        Reads every byte, so it is computed once and only when asked for.
        """
        if len(self.files) == 1:
            return self.file_sha256s[0]
        total = hashlib.sha256()
        for file, one in zip(self.files, self.file_sha256s, strict=True):
            total.update(f"{file.name}\0{one}\n".encode())
        return total.hexdigest()

    @cached_property
    def file_sha256s(self) -> tuple[str, ...]:
        """Hash of each file's bytes, computed once and only when asked for."""
        return tuple(_file_sha256(file) for file in self.files)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Scan:
    """Raw tiles of one acquisition with everything known about them. Never altered.

    Attributes
    ----------
    tiles : (T, Y, X) array-like, counts
        Lazy raw tiles in order of acquisition.
    kind : {"single", "mosaic", "series"}
        One image, tiles on a grid, or projections of one field.
    source : Source
        File or folder the tiles came from.
    names : tuple of str
        One name a tile, without suffix: the input file's own where each tile is a file.
    grid : (rows, columns) or None
        Of a mosaic. Tile ``k`` sits in row ``k // columns`` counted from the BOTTOM and in
        column ``k % columns`` (the order of acquisition at TLS BL01B). The last tiles of an
        interrupted mosaic are absent.
    raster_index : (T,) int64 or None
        Cell ``k`` of each tile where tiles before the last are absent, ascending; None where
        tile ``k`` sits in cell ``k``.
    positions_px : (T, 2) float64 or None
        Top left corner of each tile as (y, x) in pixels, y downwards, least value 0.
    flats, darks : (N, Y, X) array-like or None, counts
        References without sample, and images without beam.
    flat_times : (N,) datetime64[s] or None
        When each flat was taken.
    flat_energies_ev, flat_exposures_s, flat_monitor : (N,) float64 or None
        Photon energy (eV), exposure (s) and beam monitor of each flat, NaN where unknown.
    times : (T,) datetime64[s] or None
        When each tile was taken.
    pixel_nm, energy_ev, exposure_s : float or None
        Pixel size on the sample (nm), photon energy (eV), exposure of one tile (s); of the
        first tile where they differ.
    energies_ev, exposures_s : (T,) float64 or None
        Of each tile where they differ, NaN where unknown; None: as the first.
    monitor : (T,) float64 or None
        Beam monitor at each tile in any unit: ion chamber, else ring current; NaN where not
        connected.
    binning : int or None
        Camera binning.
    darks_combined : {"median", "mean"}
        How several darks become one.
    angles_deg : (T,) float64 or None
        Rotation of each projection (degrees).
    provenance : mapping or None
        Set where the source is itself an output of this program: what was done to it.
    notes : tuple of str
        What the reader had to assume or repair, one sentence each, shown to the user.
    """

    tiles: TileArray
    kind: Kind
    source: Source
    names: tuple[str, ...]
    grid: tuple[int, int] | None = None
    raster_index: NDArray[np.int64] | None = None
    positions_px: NDArray[np.float64] | None = None
    flats: TileArray | None = None
    darks: TileArray | None = None
    flat_times: NDArray[np.datetime64] | None = None
    flat_energies_ev: NDArray[np.float64] | None = None
    flat_exposures_s: NDArray[np.float64] | None = None
    flat_monitor: NDArray[np.float64] | None = None
    times: NDArray[np.datetime64] | None = None
    pixel_nm: float | None = None
    energy_ev: float | None = None
    exposure_s: float | None = None
    energies_ev: NDArray[np.float64] | None = None
    exposures_s: NDArray[np.float64] | None = None
    monitor: NDArray[np.float64] | None = None
    binning: int | None = None
    darks_combined: Literal["median", "mean"] = "median"
    angles_deg: NDArray[np.float64] | None = None
    provenance: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def from_array(
        cls,
        tiles: Any,
        *,
        flats: Any = None,
        darks: Any = None,
        grid: tuple[int, int] | None = None,
        positions_px: Any = None,
        name: str = "array",
        **facts: Any,
    ) -> Self:
        """Make a scan of images in memory.

        Parameters
        ----------
        tiles : (Y, X) or (T, Y, X) array-like, counts
            NumPy, dask, or anything that is indexed like them; read tile by tile. Several
            images are a mosaic where `grid` or `positions_px` is given, else a series.
        flats, darks : (Y, X) or (N, Y, X) array-like, counts, optional
            Images without sample, and without beam.
        grid : (rows, columns), optional
        positions_px : (T, 2) array-like, optional
            Top left corners (y, x), y downwards.
        name : str
            Stands for the file in messages and in the record.
        **facts
            More attributes: ``pixel_nm``, ``energy_ev``, ``exposure_s``, ``times``, ...

        Raises
        ------
        ReadError
            If an argument is no image or stack of numbers, or they do not fit each other.
        """
        stack = as_tiles(tiles, "tiles")
        count = int(stack.shape[0])
        places = None if positions_px is None else _facts("positions_px", positions_px)
        if grid is not None and (min(grid) < 1 or not 0 <= grid[0] * grid[1] - count < grid[1]):
            raise ReadError(
                f"grid {tuple(grid)}: {count} tiles do not fill it; give (rows, columns) of theirs"
            )
        if places is not None and places.shape == (count, 2):
            places -= places.min(axis=0)
        mosaic = count > 1 and (grid is not None or places is not None)
        digits = len(str(count - 1))
        return cls(
            tiles=stack,
            kind="single" if count == 1 else "mosaic" if mosaic else "series",
            source=Source(Path(name), "array"),
            names=(name,) if count == 1 else tuple(f"{name}_{k:0{digits}d}" for k in range(count)),
            grid=None if grid is None else (int(grid[0]), int(grid[1])),
            positions_px=places,
            flats=None if flats is None else as_tiles(flats, "flats"),
            darks=None if darks is None else as_tiles(darks, "darks"),
            **{fact: _facts(fact, value) for fact, value in facts.items()},
        )

    def __post_init__(self) -> None:
        """Refuse facts that contradict each other.

        Raises
        ------
        ReadError
            If a shape, count or grid does not fit the tiles.
        """
        where = self.source.path
        if len(self.tiles.shape) != 3 or min(self.tiles.shape) < 1:
            raise ReadError(f"{where}: tiles have shape {self.tiles.shape}, expected (T, Y, X)")
        count, field_px = self.tiles.shape[0], tuple(self.tiles.shape[1:])
        if len(self.names) != count:
            raise ReadError(f"{where}: {len(self.names)} names for {count} tiles")
        if self.grid is not None and not 0 < count <= self.grid[0] * self.grid[1]:
            rows, columns = self.grid
            raise ReadError(f"{where}: {count} tiles do not fit a grid of {rows} x {columns}")
        self._check_raster()
        if self.positions_px is not None and self.positions_px.shape != (count, 2):
            raise ReadError(f"{where}: positions {self.positions_px.shape} for {count} tiles")
        for label, stack in (("flats", self.flats), ("darks", self.darks)):
            if stack is not None and tuple(stack.shape[1:]) != field_px:
                raise ReadError(
                    f"{where}: {label} of {stack.shape[1:]} px for tiles of {field_px} px; "
                    "give references taken with the same binning"
                )
        self._check_facts(count, "energies_ev", "exposures_s", "monitor")
        if self.flats is not None:
            flats = int(self.flats.shape[0])
            self._check_facts(flats, "flat_energies_ev", "flat_exposures_s", "flat_monitor")

    def _check_facts(self, count: int, *names: str) -> None:
        """Refuse facts of another number than the images that they are of."""
        for name in names:
            values = getattr(self, name)
            if values is not None and values.shape != (count,):
                raise ReadError(
                    f"{self.source.path}: {name} has shape {values.shape} for {count} images; "
                    "give one value each, NaN where unknown"
                )

    def _check_raster(self) -> None:
        """Refuse cells that are not one for each tile, ascending, within the grid."""
        raster = self.raster_index
        if raster is None:
            return
        last = -1 if self.grid is None else self.grid[0] * self.grid[1] - 1
        if (
            raster.shape != (len(self),)
            or raster[0] < 0
            or raster[-1] > last
            or (np.diff(raster) < 1).any()
        ):
            raise ReadError(
                f"{self.source.path}: cells {raster.tolist()} for {len(self)} tiles of a grid of "
                f"{self.grid}; give one for each tile, ascending"
            )

    def __len__(self) -> int:
        return int(self.tiles.shape[0])

    @property
    def cells(self) -> NDArray[np.int64] | None:
        """Grid cell `(T, 2)` of each tile as (row from the TOP, column), or None."""
        return None if self.grid is None else self._present(raster_cells(self.grid))

    def abutted_positions(self) -> NDArray[np.float64] | None:
        """Corners `(T, 2)` of the tiles laid side by side on the grid, or None without one."""
        if self.grid is None:
            return None
        size = (float(self.tiles.shape[1]), float(self.tiles.shape[2]))
        return self._present(raster_positions(self.grid, size))

    def _present(self, of_cells: NDArray[Any]) -> NDArray[Any]:
        """Values of the cells that hold a tile."""
        return of_cells[: len(self)] if self.raster_index is None else of_cells[self.raster_index]

    def dark(self) -> NDArray[np.float32] | None:
        """Median or mean of the darks `(Y, X)` float32 in counts; None where there are none."""
        if self.darks is None or self.darks.shape[0] == 0:
            return None
        stack: NDArray[Any] = np.asarray(self.darks[:])
        combine: Callable[..., Any] = np.mean if self.darks_combined == "mean" else np.median
        dark: NDArray[np.float32] = combine(stack, axis=0).astype(np.float32)
        return dark

    def facts(self) -> dict[str, Any]:
        """Everything but the pixels, as plain JSON-ready values."""

        def texts(times: NDArray[np.datetime64] | None) -> list[str] | None:
            return None if times is None else [str(t) for t in times]

        return {
            "kind": self.kind,
            "shape": [int(n) for n in self.tiles.shape],
            "dtype": str(self.tiles.dtype),
            "grid": None if self.grid is None else [int(n) for n in self.grid],
            "raster_index": None if self.raster_index is None else self.raster_index.tolist(),
            "pixel_nm": self.pixel_nm,
            "energy_ev": self.energy_ev,
            "exposure_s": self.exposure_s,
            "binning": self.binning,
            "flats": 0 if self.flats is None else int(self.flats.shape[0]),
            "darks": 0 if self.darks is None else int(self.darks.shape[0]),
            "times": texts(self.times),
            "source": {"path": str(self.source.path), "format": self.source.format},
            "notes": list(self.notes),
        }


_EACH = {
    "positions_px": "f8", "energies_ev": "f8", "exposures_s": "f8", "monitor": "f8",
    "angles_deg": "f8", "flat_energies_ev": "f8", "flat_exposures_s": "f8", "flat_monitor": "f8",
    "times": "M8[s]", "flat_times": "M8[s]", "raster_index": "i8",
}  # fmt: skip


def _facts(name: str, value: Any) -> Any:
    """Turn a fact given by the user into the type that a scan has it in.

    Raises
    ------
    ReadError
        If a scan has no such fact, or the value is not of its type.
    """
    if name not in _EACH | Scan.__dataclass_fields__:
        raise ReadError(f"{name}: a scan has no such fact; see Scan")
    if name not in _EACH or value is None:
        return value
    try:
        return np.array(value, _EACH[name], ndmin=2 if name == "positions_px" else 1)
    except (TypeError, ValueError) as error:
        raise ReadError(f"{name}: {str(value)[:60]}: {error}; give one value an image") from error


def raster_cells(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Cells of a mosaic in order of acquisition: bottom left first, rightwards, then up.

    Parameters
    ----------
    grid : (rows, columns)

    Returns
    -------
    (rows * columns, 2) int64
        (row counted from the top, column).
    """
    rows, columns = grid
    tile = np.arange(rows * columns)
    return np.stack([rows - 1 - tile // columns, tile % columns], axis=1)


def raster_positions(grid: tuple[int, int], step_px: tuple[float, float]) -> NDArray[np.float64]:
    """Nominal top left corners of the tiles of a mosaic, in order of acquisition.

    Parameters
    ----------
    grid : (rows, columns)
    step_px : (y, x)
        Distance between neighbouring tiles in pixels; the tile size where tiles abut.

    Returns
    -------
    (rows * columns, 2) float64
        (y, x) in pixels, y downwards, least value 0.
    """
    corners: NDArray[np.float64] = raster_cells(grid).astype(np.float64) * np.asarray(step_px)
    return corners
