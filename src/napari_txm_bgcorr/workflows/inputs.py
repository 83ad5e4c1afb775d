"""Assignment of the inputs of `txm-bgcorr correct` to outputs, and checks of the outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    LazyTiles,
    Scan,
    Source,
    TileArray,
    concatenated,
    joined_facts,
    one_or_each,
)
from napari_txm_bgcorr.errors import WriteError

__all__ = ["check_place", "refuse_file_name", "side_by_side", "split_jobs"]

IMAGE_SUFFIXES = (".tif", ".tiff", ".xrm", ".txrm", ".txm", ".h5", ".nxs")
FILE_SUFFIX = {"omezarr": ".ome.zarr", "ometiff": "", "tiff": ""}


def side_by_side(scans: Sequence[Scan]) -> Scan:
    """Show single images of equal size as one stack, so that they share one output."""
    first = scans[0]

    def common(fact: str) -> Any:
        values = {getattr(scan, fact) for scan in scans}
        return values.pop() if len(values) == 1 else None

    def once(stacks: list[TileArray | None]) -> list[TileArray]:
        """Every one of them once, for the provenance."""
        return list({id(stack): stack for stack in stacks if stack is not None}.values())

    def each(name: str, one: str) -> NDArray[np.float64] | None:
        values = [one_or_each(getattr(scan, name), getattr(scan, one), 1) for scan in scans]
        return None if common(one) is not None else joined_facts(values, [1] * len(scans))

    flats, darks = (once([getattr(scan, name) for scan in scans]) for name in ("flats", "darks"))
    _, height, width = first.tiles.shape
    times = [scan.times for scan in scans if scan.times is not None]
    return Scan(
        tiles=LazyTiles(
            (len(scans), height, width), first.tiles.dtype, lambda i: scans[i].tiles[0]
        ),
        kind="series",
        source=Source(
            Path(os.path.commonpath([scan.source.path.absolute().parent for scan in scans])),
            first.source.format,
            tuple(file for scan in scans for file in scan.source.files),
        ),
        names=tuple(scan.names[0] for scan in scans),
        times=np.concatenate(times) if len(times) == len(scans) else None,
        flats=concatenated(flats) if flats else None,
        darks=concatenated(darks) if darks else None,
        energies_ev=each("energies_ev", "energy_ev"),
        exposures_s=each("exposures_s", "exposure_s"),
        monitor=joined_facts([scan.monitor for scan in scans], [1] * len(scans)),
        **{fact: common(fact) for fact in ("pixel_nm", "energy_ev", "exposure_s", "binning")},
    )


def split_jobs(scans: Sequence[Scan], out: Path, format: str) -> list[tuple[Sequence[Scan], Path]]:
    """Assign scans to outputs: single tiles of one size together, others apart."""
    if len(scans) == 1:
        return [(scans, out)]
    alike = {
        (scan.kind, tuple(scan.tiles.shape), scan.tiles.dtype, scan.pixel_nm) for scan in scans
    }
    if len(alike) == 1 and scans[0].kind == "single":
        _refuse_repeated([scan.names[0] for scan in scans], out)
        return [(scans, out)]
    names = [_stem(scan.source.path) for scan in scans]
    _refuse_repeated(names, out)
    return [
        ([scan], out / f"{name}{FILE_SUFFIX[format]}")
        for scan, name in zip(scans, names, strict=True)
    ]


def check_place(scans: Sequence[Scan], out: Path, save: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a place that cannot take the output; one of several may have been made already."""
    from napari_txm_bgcorr import io

    for scan in scans:
        io.check_place(out, scan, save, overwrite=overwrite)


def refuse_file_name(out: Path) -> None:
    """Refuse an output with the suffix of an image file: it is a folder."""
    if out.suffix.lower() in IMAGE_SUFFIXES:
        raise WriteError(f"{out}: the output is a folder; give a name without {out.suffix}")


def _refuse_repeated(names: Sequence[str], out: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise WriteError(
            f"{out}: several inputs are called {repeated[0]}; correct them one by one"
        )


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
