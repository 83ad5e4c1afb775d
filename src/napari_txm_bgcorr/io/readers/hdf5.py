"""HDF5: Data Exchange, NXtomo and plain stacks, read image by image."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import LazyTiles, References, Scan, Source, first_and_each, one_or_each
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io.guard import check_frame, one_line, reading, require_file

from .acquisition_metadata import frame_names, nanometres, with_grid

__all__ = ["can_read", "read"]

_NOTHING: NDArray[np.float64] = np.empty(0)
_MAGIC = b"\x89HDF\r\n\x1a\n"
_PLAIN = ("data", "entry/data/data", "entry1/data/data", "entry/data", "images", "raw")
_PIXEL = ("x_pixel_size", "pixel_size", "resolution", "actual_pixel_size")
_PROJECTION, _FLAT, _DARK = 0, 1, 2  # image_key of NXtomo; 3 is an invalid image
_MOST_OBJECTS = 20_000  # a file with more groups than this is searched no further


@dataclass(frozen=True)
class _Stack:
    """Images of one dataset `(T, Y, X)` of a file, all or those with the given indices."""

    file: Path
    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    index: NDArray[np.int64] | None = None

    def tiles(self) -> LazyTiles:
        count = self.shape[0] if self.index is None else len(self.index)
        return LazyTiles((count, *self.shape[1:]), self.dtype.newbyteorder("="), self._image)

    def _image(self, i: int) -> NDArray[Any]:
        at = i if self.index is None else int(self.index[i])
        with _opened(self.file) as h5, reading(self.file, f"{self.name}: image {at}"):
            data = _dataset(h5, self.name, self.file)
            return np.asarray(data[...] if data.ndim == 2 else data[at])


def can_read(path: Path) -> bool:
    """Return True if a file has the HDF5 signature, at its start or after a user block."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        for offset in (0, 512, 1024, 2048):
            stream.seek(offset)
            if stream.read(len(_MAGIC)) == _MAGIC:
                return True
    return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading, with the filters of hdf5plugin, and close it again."""
    with reading(path, "HDF5"):
        import hdf5plugin  # noqa: F401  # registers Blosc, LZ4, Bitshuffle, Zstandard

        with h5py.File(path, "r") as h5:
            yield h5


def read(path: Path, *, grid: tuple[int, int] | None = None) -> Scan:
    """Read an HDF5 file lazily: Data Exchange, NXtomo, or one plain stack of images.

    Parameters
    ----------
    path : Path
    grid : (rows, columns), optional
        Takes the projections as tiles of a mosaic, bottom left first, rightwards, then up.

    Returns
    -------
    Scan
        Projections as tiles; whites or image_key 1 as flats, image_key 2 as darks.

    Raises
    ------
    ReadError
        If no images are found, a linked file is missing, or the file is damaged.
    """
    require_file(path)
    with _opened(path) as h5:
        if "exchange" in h5:
            scan = _data_exchange(path, h5)
        elif detectors := _detectors(h5):
            scan = _nxtomo(path, h5, detectors)
        else:
            scan = _plain(path, h5)
    return with_grid(scan, grid)


def _dataset(h5: Any, name: str, path: Path) -> Any:
    """Dataset `name`; a broken link is told by the file it points to."""
    broken = _broken_link(h5, name, path)
    if broken:
        raise ReadError(f"{path}: {name}: {broken}")
    data = h5.get(name)
    if not isinstance(data, h5py.Dataset):
        raise ReadError(f"{path}: {name} missing; give a file with images in it")
    return data


def _broken_link(h5: Any, name: str, path: Path) -> str | None:
    """Fault of the external link at or above `name`, in words, or None."""
    parts = name.strip("/").split("/")
    for k in range(1, len(parts) + 1):
        here = "/".join(parts[:k])
        link = h5.get(here, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            try:
                if h5.get(here) is not None:
                    continue
            except (OSError, KeyError, RuntimeError):
                pass
            target = path.parent / link.filename
            if not target.is_file():
                return f"linked file {target} is missing; copy it beside the file"
            return f"{link.path} is not in the linked file {target}; copy that file again"
    return None


def _stack(h5: Any, name: str, path: Path) -> _Stack:
    """Check that dataset `name` is a stack of grey images and describe it."""
    data = _dataset(h5, name, path)
    if data.ndim not in (2, 3) or 0 in data.shape:
        raise ReadError(f"{path}: {name}: shape {data.shape}; give a stack (T, Y, X) of images")
    shape = (1, *data.shape) if data.ndim == 2 else data.shape
    with contextlib.suppress(TypeError):  # an HDF5 type that NumPy has no name for
        check_frame(path, shape[1:], data.dtype)
        return _Stack(path, name, tuple(int(n) for n in shape), data.dtype)  # type: ignore[arg-type]
    raise ReadError(f"{path}: {name}: unknown pixel type; save it as integers or floats")


def _scan(path: Path, h5: Any, stack: _Stack, parts: dict[str, Any], pixel: Sequence[str]) -> Scan:
    """Put together what the layouts have in common."""
    tiles = stack.tiles()
    flats: References | None = parts.pop("references", None)
    energies = _energies_ev(h5)
    if len(energies) != len(tiles):  # not one an image
        energies = energies if len(set(energies.tolist())) == 1 else energies[:0]
    energy_ev, energies_ev = first_and_each(energies)
    exposure_s, exposures_s = first_and_each(parts.pop("exposures_s", _NOTHING))
    angles = parts.pop("angles_deg", None)
    if angles is not None and len(angles) != len(tiles):
        parts["notes"] = (*parts.get("notes", ()), f"{len(angles)} angles for {len(tiles)} images")
        angles = None
    scan = Scan(
        tiles=tiles,
        kind="single" if len(tiles) == 1 else "series",
        source=Source(path, "hdf5", (path, *_linked_files(h5, stack.name, path))),
        names=frame_names(path, len(tiles)),
        pixel_nm=_length_nm(h5, pixel),
        energy_ev=energy_ev,
        energies_ev=energies_ev,
        exposure_s=exposure_s,
        exposures_s=exposures_s,
        angles_deg=angles,
        **parts,
    )
    if flats is None:
        return scan
    if energies_ev is None:  # of the same scan
        flats = replace(flats, energies_ev=one_or_each(None, energy_ev, len(flats)))
    return flats.attach(scan)


def _linked_files(h5: Any, name: str, path: Path) -> tuple[Path, ...]:
    file = Path(_dataset(h5, name, path).file.filename)
    return () if file.resolve() == path.resolve() else (file,)


def _data_exchange(path: Path, h5: Any) -> Scan:
    """Layout of De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224: ``/exchange``."""
    stack = _stack(h5, "exchange/data", path)
    parts: dict[str, Any] = {"angles_deg": _values(h5, "exchange/theta")}
    exposure_s = next(filter(None, (_number(h5, name) for name in _EXPOSURE)), None)
    if exposure_s is not None:
        parts["exposures_s"] = np.array([exposure_s])
    if h5.get("exchange/data_white", getlink=True) is not None:
        flats = _stack(h5, "exchange/data_white", path).tiles()
        exposures = one_or_each(None, exposure_s, len(flats))
        parts["references"] = References(flats, exposures_s=exposures)
    if h5.get("exchange/data_dark", getlink=True) is not None:
        parts["darks"] = _stack(h5, "exchange/data_dark", path).tiles()
    places = [f"{group}/{name}" for group in _EXCHANGE_DETECTOR for name in _PIXEL]
    return _scan(path, h5, stack, parts, places)


_EXPOSURE = (
    "measurement/instrument/detector/exposure_time",
    "measurement/instrument/detector/actual_exposure_time",
)
_EXCHANGE_DETECTOR = ("exchange", "measurement/instrument/detector", "measurement/instrument")


def _detectors(h5: Any) -> list[str]:
    """Groups with an ``image_key`` and a link or dataset ``data``, those called imaging last."""
    found: list[str] = []
    budget = _MOST_OBJECTS

    def visit(group: Any, name: str, depth: int) -> None:
        nonlocal budget
        for key in group:
            budget -= 1
            if budget < 0 or depth > 8:
                return
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            child = group.get(key)
            if key == "image_key" and group.get("data", getlink=True) is not None:
                found.append(name)
            elif isinstance(child, h5py.Group):
                visit(child, f"{name}/{key}" if name else key, depth + 1)

    visit(h5, "", 0)
    return found


def _nxtomo(path: Path, h5: Any, detectors: Sequence[str]) -> Scan:
    """NeXus application definition NXtomo: one stack, sorted by ``image_key``."""
    whole = [d for d in detectors if _broken_link(h5, f"{d}/data", path) is None]
    detector = (whole or list(detectors))[0]
    stack = _stack(h5, f"{detector}/data", path)
    key = _values(h5, f"{detector}/image_key")
    if key is None or len(key) != stack.shape[0]:
        count = "no" if key is None else len(key)
        raise ReadError(
            f"{path}: {detector}/image_key: {count} values for {stack.shape[0]} images; "
            "the scan was cut short, or give its data without NXtomo"
        )
    chosen = {k: np.flatnonzero(key == k) for k in (_PROJECTION, _FLAT, _DARK)}
    if not chosen[_PROJECTION].size:
        raise ReadError(
            f"{path}: {detector}/image_key: no projection (0) in it; give another scan"
        )
    parts: dict[str, Any] = {"angles_deg": _angles(h5, detector, chosen[_PROJECTION], len(key))}
    if chosen[_DARK].size:
        parts["darks"] = _subset(stack, chosen[_DARK]).tiles()
    parts |= _exposures(h5, detector, chosen, len(key))
    if chosen[_FLAT].size:
        parts["references"] = References(
            _subset(stack, chosen[_FLAT]).tiles(),
            exposures_s=parts.pop("flat_exposures_s", None),
            monitor=parts.pop("flat_monitor", None),
        )
    invalid = int(np.count_nonzero(~np.isin(key, list(chosen))))
    parts["notes"] = (f"{invalid} images marked invalid are left out",) if invalid else ()
    places = [f"{detector}/{name}" for name in _PIXEL]
    return _scan(path, h5, _subset(stack, chosen[_PROJECTION]), parts, places)


def _exposures(
    h5: Any, detector: str, chosen: Mapping[int, NDArray[np.int64]], count: int
) -> dict[str, NDArray[np.float64]]:
    """Exposure and beam monitor of projections and flats, where they are told.

    The monitor of NXtomo counts over the whole exposure, so that it is divided by it.
    """
    entry = detector.split("/")[0]
    parts: dict[str, NDArray[np.float64]] = {}
    exposures = _one_an_image(h5, f"{detector}/count_time", count)
    if exposures is None:
        exposures = _one_an_image(h5, f"{entry}/count_time", count)
    monitor = _one_an_image(h5, f"{entry}/control/data", count)
    for prefix, k in (("", _PROJECTION), ("flat_", _FLAT)):
        if exposures is not None and chosen[k].size:
            parts[f"{prefix}exposures_s"] = exposures[chosen[k]]
        if monitor is not None and chosen[k].size:
            rate = monitor if exposures is None else monitor / exposures
            parts[f"{prefix}monitor"] = rate[chosen[k]]
    return parts


def _one_an_image(h5: Any, name: str, count: int) -> NDArray[np.float64] | None:
    """Positive numbers `(count,)` of a dataset that holds one an image, or one for all."""
    values = _values(h5, name)
    if values is None or values.size not in (1, count) or not (values > 0).any():
        return None
    every: NDArray[np.float64] = np.where(values > 0, values, np.nan)
    return np.broadcast_to(every, count)


def _subset(stack: _Stack, index: NDArray[np.int64]) -> _Stack:
    return _Stack(stack.file, stack.name, stack.shape, stack.dtype, index)


def _angles(
    h5: Any, detector: str, index: NDArray[np.int64], count: int
) -> NDArray[np.float64] | None:
    """Rotation of the projections, from the sample or from the axis of the detector's NXdata."""
    parts = detector.split("/")
    entries = ["/".join(parts[:k]) for k in range(1, len(parts))]
    names = [f"{entry}/sample/rotation_angle" for entry in reversed(entries)]
    shown = f"{parts[0]}/{parts[-1]}"
    with contextlib.suppress(KeyError, OSError, TypeError, AttributeError):
        axis = np.ravel(h5[shown].attrs["axes"])[0]
        axis = axis.decode() if isinstance(axis, bytes) else str(axis)
        names += [f"{shown}/{axis}", f"{shown}/{axis.removesuffix('_set')}"]
    for name in names:
        angles = _values(h5, name)
        if angles is not None and len(angles) == count:
            return angles[index]
    return None


def _plain(path: Path, h5: Any) -> Scan:
    """Read one stack (T, Y, X) under a usual name, or the only one at the top."""
    names = [name for name in _PLAIN if isinstance(_try(h5, name), h5py.Dataset)]
    names += [k for k in h5 if getattr(_try(h5, k), "ndim", 0) in (2, 3)]
    if not names:
        raise ReadError(
            f"{path}: no /exchange/data, no image_key and no 'data' in it; "
            f"top level holds {one_line(', '.join(list(h5)[:8]) or 'nothing')}"
        )
    return _scan(path, h5, _stack(h5, names[0], path), {}, _PIXEL)


def _try(h5: Any, name: str) -> Any:
    """Object `name`, or None where it is missing or its link is broken."""
    try:
        return h5.get(name)
    except (OSError, KeyError, RuntimeError, ValueError):
        return None


def _values(h5: Any, name: str) -> NDArray[np.float64] | None:
    """Numbers of a small dataset as float64 in one row, or None where there is none."""
    data = _try(h5, name)
    if not isinstance(data, h5py.Dataset) or data.size is None or data.size > 10**7:
        return None
    if data.dtype.kind not in "uif":
        return None
    return np.ravel(data[()]).astype(np.float64)


def _number(h5: Any, name: str) -> float | None:
    """Return a positive number that is the same in the whole dataset."""
    values = _values(h5, name)
    if values is None or not values.size or not (values == values[0]).all():
        return None
    return float(values[0]) if math.isfinite(values[0]) and values[0] > 0 else None


def _unit(h5: Any, name: str, default: str) -> str:
    unit = h5[name].attrs.get("units", default)
    return unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)


def _length_nm(h5: Any, names: Sequence[str]) -> float | None:
    """First length found, in nm; without a unit NeXus means metres."""
    for name in names:
        value = _number(h5, name)
        if value is not None:
            return nanometres(value, _unit(h5, name, "m"))
    return None


_ENERGY = (
    "measurement/instrument/monochromator/energy",
    "entry/instrument/beam/incident_energy",
    "entry/beam/incident_energy",
    "entry/instrument/monochromator/energy",
    "exchange/energy",
)


def _energies_ev(h5: Any) -> NDArray[np.float64]:
    """Photon energies in eV where a usual place says them; empty where none does."""
    for name in _ENERGY:
        values = _values(h5, name)
        if values is not None and values.size and (values > 0).all():
            factor = {"ev": 1.0, "kev": 1e3, "mev": 1e6}.get(_unit(h5, name, "eV").casefold())
            return _NOTHING if factor is None else values * factor
    return _NOTHING
