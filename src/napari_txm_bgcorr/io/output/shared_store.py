"""One OME-Zarr output that several processes fill, each with chunks of its own.

Either one process holds the output (`open_output`) and others write chunks for it
(`ChunkWriter`), or all are equal (`open_shard`) and the last to finish completes it.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from napari_txm_bgcorr.core import Scan, discard, rename
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.guard import writing
from napari_txm_bgcorr.io.json_file import write_json

from .fit_file import remove_fits
from .job import DONE, JOB, NEW, OutputJob, done_tiles, is_output
from .out_place import check_place
from .writer import OutputWriter, planes_of
from .zarr import ZarrSink

if TYPE_CHECKING:
    from napari_txm_bgcorr.core import TileResult

__all__ = ["ChunkWriter", "ShardWriter", "join_shards", "open_shard", "shard_tiles"]

GROUP = 8  # tiles that a method gets at once: shards keep these groups, and so their bits


class ChunkWriter:
    """Chunks of an output that another process opened, will list as done and complete.

    Parameters
    ----------
    out : Path
        Absolute; ``OUT.part`` exists.
    scan : Scan
    save : sequence of str
        As given to `open_output`.
    """

    def __init__(self, out: Path, scan: Scan, save: Sequence[str]) -> None:
        self._job = OutputJob(out, "omezarr", scan, {}, tuple(dict.fromkeys(save)))
        self._sink = ZarrSink(self._job, shared=True)

    def write(self, result: TileResult) -> None:
        """Write the chunks of one tile, each in one step.

        Raises
        ------
        WriteError
            If the output is gone, the disk is full, or the tile is of another size.
        """
        planes = planes_of(self._job, result)
        with writing(self._job.part):
            self._sink.write(int(result.index), planes)


def shard_tiles(count: int, shard: tuple[int, int]) -> list[int]:
    """Tiles of one shard: every n-th group of `GROUP` tiles, smaller groups if there are few.

    Parameters
    ----------
    count : int
        Tiles of the scan.
    shard : (i, n)
        ``1 <= i <= n``.
    """
    i, n = shard
    group = max(1, min(GROUP, count // n))
    return [k for k in range(count) if (k // group) % n == i - 1]


class ShardWriter(OutputWriter):
    """The share of one of several equal processes in one output; made by `open_shard`."""

    def __init__(
        self, job: OutputJob, sink: ZarrSink, done: frozenset[int], shard: tuple[int, int]
    ) -> None:
        super().__init__(job, sink, done)
        # a list of its own: appending to one file from several machines loses lines
        self._log = job.part / f"{DONE}-{uuid.uuid4().hex[:8]}"
        self._mine = frozenset(shard_tiles(len(job.scan), shard))

    @property
    def todo(self) -> list[int]:
        """Tiles of this shard that nobody has written yet, in order."""
        return [i for i in super().todo if i in self._mine]

    def close_complete(self) -> Path | None:  # type: ignore[override]
        """Complete the output if every shard is done; None: others are still to finish.

        Raises
        ------
        WriteError
            If it cannot be moved to its place.
        """
        self._open = False
        return self.out if _complete(self.out, len(self._job.scan)) == 0 else None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False  # there is no lock to give back


def open_shard(
    out: str | Path,
    scan: Scan,
    provenance: Mapping[str, Any],
    *,
    shard: tuple[int, int],
    save: Sequence[str] = ("raw", "background", "corrected"),
) -> ShardWriter:
    """Begin or join an OME-Zarr output that several equal processes fill.

    They may start at the same time, be killed and be started again, on any machine that sees
    `out`; no locks are used, only renames, which are one step on every file system.

    Parameters
    ----------
    out : str or Path
    scan : Scan
    provenance : mapping
        JSON-ready; the same but for ``date`` in every process.
    shard : (i, n)
        This process is the i-th of n, ``1 <= i <= n``.
    save : sequence of str

    Raises
    ------
    WriteError
        If the place is taken, another job is unfinished there, or it cannot be written.
    """
    place = Path(os.path.abspath(out))
    plain = json.loads(json.dumps(dict(provenance), default=str))
    job = OutputJob(place, "omezarr", scan, plain, tuple(dict.fromkeys(save)))
    check_place(place, scan, job.save, overwrite=False)
    with writing(job.part):
        if not (job.part / JOB).is_file():
            _lay_out(job)
        begun = _begun(job.part)
        if begun.get("key") != job.key:
            raise WriteError(
                f"{job.part}: another, unfinished job is there; finish it with its own settings, "
                "or remove it"
            )
        done = done_tiles(job.part, len(scan))
    job = replace(job, provenance=begun["provenance"])
    return ShardWriter(job, ZarrSink(job, shared=True), done, shard)


def join_shards(out: str | Path) -> Path:
    """Complete an output whose shards are all done but none of which could see that.

    Raises
    ------
    WriteError
        If there is no such output, or tiles are missing.
    """
    place = Path(os.path.abspath(out))
    part = place.with_name(place.name + ".part")
    if not (part / JOB).is_file():
        if is_output(place):
            remove_fits(place)
            return place
        if place.exists():
            raise WriteError(f"{place}: no output of this program; give the OUT of the shards")
        raise WriteError(f"{part}: no unfinished output; run the shards first")
    missing = _complete(place, int(_begun(part)["tiles"]))
    if missing:
        raise WriteError(
            f"{part}: {missing} tiles are missing; run again the shards that did not finish"
        )
    return place


def _begun(part: Path) -> dict[str, Any]:
    """Record of the output by the process that laid it out."""
    begun: dict[str, Any] = json.loads((part / JOB).read_text(encoding="utf-8"))
    if not begun.get("shards"):
        raise WriteError(f"{part}: begun without --shard; finish it without, or remove it")
    return begun


def _lay_out(job: OutputJob) -> None:
    """Make ``OUT.part`` elsewhere and rename it; of several processes one succeeds."""
    ours = replace(job, out=job.out.with_name(f"{job.out.name}.shard-{uuid.uuid4().hex[:8]}"))
    ours.part.parent.mkdir(parents=True, exist_ok=True)
    try:
        ZarrSink(ours).create()
        record = {"key": job.key, "provenance": dict(job.provenance)}
        write_json(ours.part / JOB, record | {"shards": True, "tiles": len(job.scan)})
        rename(ours.part, job.part)
    except OSError:
        if not (job.part / JOB).is_file():  # not another process: the disk, or what lies there
            raise
    finally:
        shutil.rmtree(ours.part, ignore_errors=True)


def _complete(out: Path, count: int) -> int:
    """Rename ``OUT.part`` if all tiles are done; the number of missing tiles."""
    part = out.with_name(out.name + ".part")
    with writing(part):
        done = done_tiles(part, count)
        if len(done) < count:
            if not out.exists() or part.exists():
                return count - len(done)
            remove_fits(out)
            return 0
        with suppress(OSError):
            out.rmdir()  # an empty folder that the user made
        with suppress(FileNotFoundError):  # another process was faster
            rename(part, out)
        _clear(out)
    return 0


def _clear(out: Path) -> None:
    """Remove the notes of the processes, and what killed ones left behind."""
    for note in (*out.glob(f"{DONE}*"), out / JOB):
        discard(note)  # of a process that has just written its last tile
    for folder in (out / NEW, *out.parent.glob(f"{glob.escape(out.name)}.shard-????????.part")):
        shutil.rmtree(folder, ignore_errors=True)
    remove_fits(out)
