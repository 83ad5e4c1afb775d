"""Outputs: raw, background and corrected tiles as OME-Zarr, OME-TIFF or one TIFF a tile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import Scan
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.guard import writing

from .job import DONE, OutputJob, claim, release, replace_output, resumed
from .out_place import check_place

if TYPE_CHECKING:
    from napari_txm_bgcorr.core import TileResult

__all__ = ["WRITERS", "OutputWriter", "Sink", "open_output", "planes_of"]


class Sink(Protocol):
    """One format: lays out an output in ``job.part`` and fills it tile by tile, in any order."""

    def create(self) -> None:
        """Lay out an empty output."""

    def write(self, index: int, planes: Mapping[str, NDArray[Any]]) -> None:
        """Write tile `index`; `planes` maps role to `(Y, X)` of the type of the role."""

    def finish(self) -> None:
        """Write what can be written only when every tile is there."""


def _omezarr(job: OutputJob) -> Sink:
    from .zarr import ZarrSink

    return ZarrSink(job)


def _ometiff(job: OutputJob) -> Sink:
    from .tiff import OmeTiffSink

    return OmeTiffSink(job)


def _tiff(job: OutputJob) -> Sink:
    from .tiff import TiffSink

    return TiffSink(job)


WRITERS: dict[str, Callable[[OutputJob], Sink]] = {
    "omezarr": _omezarr,
    "ometiff": _ometiff,
    "tiff": _tiff,
}
"""Name of a format to its sink."""


class OutputWriter:
    """An output in the making; made by `open_output`, used as a context manager.

    Leaving the context before `close_complete` keeps ``OUT.part`` for the next run.

    Attributes
    ----------
    out : Path
        Where the output will be.
    done : frozenset of int
        Tiles already complete from an interrupted run of the same job.
    """

    def __init__(self, job: OutputJob, sink: Sink, done: frozenset[int]) -> None:
        self.out = job.out
        self.done = done
        self._job, self._sink = job, sink
        self._written = set(done)
        self._open = True
        self._log = job.part / DONE

    @property
    def save(self) -> tuple[str, ...]:
        """Roles that are written."""
        return self._job.save

    @property
    def todo(self) -> list[int]:
        """Tiles that this process is to write, in order."""
        return [i for i in range(len(self._job.scan)) if i not in self._written]

    def write(self, result: TileResult) -> None:
        """Write the tiles of one result and note it as complete.

        Parameters
        ----------
        result : TileResult

        Raises
        ------
        WriteError
            If the disk is full, the place is not writable, or the tile is not of this scan.
        """
        index = int(result.index)
        if not self._open or not 0 <= index < len(self._job.scan):
            raise WriteError(f"{self.out}: tile {index} cannot be written; the output is closed")
        planes = planes_of(self._job, result)
        with writing(self._job.part):
            self._sink.write(index, planes)
        self.note(index)

    def note(self, index: int) -> None:
        """Note a tile as complete; another process may have written it.

        Parameters
        ----------
        index : int
        """
        with writing(self._job.part), self._log.open("a", encoding="ascii") as log:
            log.write(f"{index}\n")
        self._written.add(index)

    def close_complete(self) -> Path:
        """Finish the output and move it to its place.

        Returns
        -------
        Path
            Where it is.

        Raises
        ------
        WriteError
            If tiles are missing or the output cannot be moved.
        """
        missing = len(self._job.scan) - len(self._written)
        if missing or not self._open:
            raise WriteError(f"{self.out}: {missing} tiles are not written; run again to finish")
        with writing(self._job.part):
            self._sink.finish()
        self._open = False
        replace_output(self._job)
        return self.out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open:
            self._open = False
            release(self._job.part)


def planes_of(job: OutputJob, result: TileResult) -> dict[str, NDArray[Any]]:
    """Pixels `(Y, X)` of each role that a job saves.

    Raises
    ------
    WriteError
        If the tile is of another size, or lacks an uncertainty to be saved.
    """
    if "uncertainty" in job.save and result.uncertainty is None:
        raise WriteError(
            f"{job.out}: tile {result.index} has no uncertainty; save without it, or correct with "
            "a method that states one"
        )
    shape = tuple(job.scan.tiles.shape[1:])
    planes = {role: _plane(job, result, role) for role in job.save}
    for role, plane in planes.items():
        if plane.shape != shape:
            raise WriteError(f"{job.out}: {role} tile of {plane.shape} px, expected {shape}")
    return planes


def _plane(job: OutputJob, result: TileResult, role: str) -> NDArray[Any]:
    """Pixels `(Y, X)` of one role in the type in which they are saved."""
    field = {"corrected": "transmission", "mask": "valid"}.get(role, role)
    return np.ascontiguousarray(getattr(result, field), dtype=job.dtype(role))


def open_output(
    out: str | Path,
    format: str,
    scan: Scan,
    provenance: Mapping[str, Any],
    *,
    save: Sequence[str] = ("raw", "background", "corrected"),
    overwrite: bool = False,
) -> OutputWriter:
    """Begin, or take up, an output; it is built in ``OUT.part`` and appears whole or not at all.

    Parameters
    ----------
    out : str or Path
        Folder (or Zarr store) to make.
    format : {"omezarr", "ometiff", "tiff"}
    scan : Scan
        What is corrected; its files are never touched.
    provenance : mapping
        JSON-ready; embedded in every file. The same but for ``date``: the same job.
    save : sequence of {"raw", "background", "corrected", "mask", "uncertainty"}
        ``mask`` is 1 where the correction is valid; ``uncertainty`` is that of the log background.
    overwrite : bool
        Replace an earlier output of this program, at the end and in one step.

    Returns
    -------
    OutputWriter

    Raises
    ------
    WriteError
        If the place is taken, is the input, or cannot be written.
    """
    place = Path(out)
    if format not in WRITERS:
        raise WriteError(f"{place}: format {format!r}; choose from {', '.join(WRITERS)}")
    place = Path(os.path.abspath(place))
    plain = json.loads(json.dumps(dict(provenance), default=str))
    job = OutputJob(place, format, scan, plain, tuple(dict.fromkeys(save)))
    check_place(place, scan, job.save, overwrite=overwrite)
    done = claim(job, overwrite=overwrite)
    try:
        job = resumed(job) if done else job
        sink = WRITERS[format](job)
        if not done:
            with writing(job.part):
                sink.create()
        return OutputWriter(job, sink, done)
    except BaseException:
        release(job.part)
        raise
