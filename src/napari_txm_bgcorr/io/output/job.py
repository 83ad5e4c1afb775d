"""One output in the making: a folder ``OUT.part`` that is filled and may be taken up again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_txm_bgcorr.core import Scan, discard, patiently, remove_file, remove_folder, rename
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io.guard import writing
from napari_txm_bgcorr.io.json_file import write_json
from napari_txm_bgcorr.io.record import KEY, UNITS, make_block, scan_record

__all__ = [
    "DONE",
    "JOB",
    "LOCK",
    "NEW",
    "ROLES",
    "OutputJob",
    "claim",
    "done_tiles",
    "drop_notes",
    "finished",
    "is_output",
    "release",
    "replace_output",
    "resumed",
]

ROLES: dict[str, str | None] = {
    "raw": None,
    "background": "float32",
    "corrected": "float32",
    "mask": "uint8",
    "uncertainty": "float32",
}
"""What can be saved, and the type of its pixels; None: that of the raw tiles."""

JOB, DONE, LOCK = ".txm-bgcorr-job.json", ".txm-bgcorr-done", ".txm-bgcorr-lock"
_RESERVED = re.compile(
    r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)"
)  # by Windows, whatever follows
NOT_OF_IT = frozenset({"date", "config", "command"})
"""What a provenance says of how it was made, not of what was made."""
NEW = ".txm-bgcorr-new"  # folder of chunks that one of several processes is about to put in place


@dataclass(frozen=True)
class OutputJob:
    """Content and place of an output; equal jobs have equal `key`, whenever they ran.

    Attributes
    ----------
    out : Path
        Final place.
    format : str
    scan : Scan
    provenance : mapping
        JSON-ready.
    save : tuple of str
        Roles, see `ROLES`.
    """

    out: Path
    format: str
    scan: Scan
    provenance: Mapping[str, Any]
    save: tuple[str, ...]

    @property
    def units(self) -> int:
        """Pieces of work, each noted in the list `DONE` when complete: the tiles."""
        return len(self.scan)

    @property
    def part(self) -> Path:
        """Folder that is filled and then renamed to `out`."""
        return self.out.with_name(self.out.name + ".part")

    @property
    def names(self) -> tuple[str, ...]:
        """One file name a tile, without suffix, unique and allowed on every system."""
        clean = [re.sub(r'[\x00-\x1f/\\:*?"<>|;]', "_", n).strip(" .") for n in self.scan.names]
        clean = [_RESERVED.sub(r"\g<0>_", name) for name in clean]
        folded = [name.casefold() for name in clean]
        if "" in folded or len(set(folded)) < len(folded):
            digits = max(4, len(str(len(clean))))
            return tuple(f"{name}_{k:0{digits}d}" for k, name in enumerate(clean, start=1))
        return tuple(clean)

    @cached_property
    def files(self) -> list[dict[str, str]] | None:
        """Path and hash of each tile's own file, or None where tiles are no files."""
        source = self.scan.source
        if len(source.files) != len(self.scan) or source.format in ("omezarr", "hdf5"):
            return None
        return [
            {"source_path": str(file.absolute()), "source_sha256": one}
            for file, one in zip(source.files, source.file_sha256s, strict=True)
        ]

    @property
    def record(self) -> dict[str, Any]:
        """Facts of the scan under the names that the tiles get."""
        return {**scan_record(self.scan), "names": list(self.names), "files": self.files}

    @property
    def key(self) -> str:
        """Hash of everything that decides the output's pixels and layout; no dates."""
        content = {
            "format": self.format,
            "save": sorted(self.save),
            "provenance": {k: v for k, v in self.provenance.items() if k not in NOT_OF_IT},
            "scan": self.record,
            "shape": [int(n) for n in self.scan.tiles.shape],
            "dtype": str(self.scan.tiles.dtype),
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def dtype(self, role: str) -> np.dtype[Any]:
        """Pixel type of a role, in the machine's byte order."""
        return np.dtype(ROLES[role] or self.scan.tiles.dtype).newbyteorder("=")

    def block(self, role: str, *, whole: bool) -> dict[str, Any]:
        """Record to embed in a file of `role`; `whole`: it holds all tiles, not one."""
        return make_block(role, self.provenance, self.record if whole else None)

    def output_block(self, *, whole: bool) -> dict[str, Any]:
        """Record of the output as one: its format, roles, and the units of some of them."""
        block = self.block("output", whole=whole) | {"format": self.format}
        block["save"] = list(self.save)
        units = {role: UNITS[role] for role in self.save if role in UNITS}
        return block | {"units": units} if units else block

    def tile_block(self, role: str, index: int) -> dict[str, Any]:
        """Record to embed in the file of one tile: its own source file where it has one."""
        own = {} if self.files is None else self.files[index]
        return make_block(role, {**self.provenance, **own})


def is_output(path: Path) -> bool:
    """Return True if a folder is an output of this program, so that one may replace it."""
    for name in ("provenance.json", "zarr.json"):
        if (path / name).is_file():
            try:
                content = json.loads((path / name).read_text(encoding="utf-8"))
                if KEY in content or KEY in content.get("attributes", {}):
                    return True
            except (OSError, ValueError, AttributeError, TypeError):
                continue
    return False


def claim(job: OutputJob, *, overwrite: bool) -> frozenset[int]:
    """Make or take up the folder ``OUT.part`` and lock it for this process.

    Parameters
    ----------
    job : OutputJob
    overwrite : bool
        Also takes the place of another job that was left unfinished.

    Returns
    -------
    frozenset of int
        Units that an interrupted run of the same job completed; none: the folder is new.

    Raises
    ------
    WriteError
        If another job is unfinished there, a live process writes it, or it cannot be made.
    """
    part = job.part
    with writing(part):
        if part.is_symlink() or (part.exists() and not part.is_dir()):
            raise WriteError(f"{part}: a file or link is in the way; remove it")
        if part.is_dir() and not _hardly_begun(part):
            old = _unfinished_key(part)
            _take_lock(part)
            done = done_tiles(part, job.units)
            if old == job.key and done:
                _drop_cut_line(part / DONE)
                return done
            if old != job.key and not overwrite:
                release(part)
                raise WriteError(
                    f"{part}: another, unfinished job is there; "
                    "finish it with its own settings, remove it, or pass --overwrite"
                )
            remove_folder(part)
        patiently(lambda: part.mkdir(parents=True, exist_ok=True))
        _take_lock(part)
        write_json(part / JOB, {"key": job.key, "provenance": dict(job.provenance)})
    return frozenset()


def resumed(job: OutputJob) -> OutputJob:
    """Return the job as it was begun: all tiles of one output carry the date of its beginning."""
    with writing(job.part):
        begun = json.loads((job.part / JOB).read_text(encoding="utf-8"))
    return replace(job, provenance=begun["provenance"])


def _hardly_begun(part: Path) -> bool:
    """Return True if `part` is empty, or holds only what a process killed at its start leaves."""
    notes = (LOCK, f"{LOCK}.part", f"{JOB}.part")
    return all(path.name in notes for path in part.iterdir())


def _unfinished_key(part: Path) -> str:
    """Key of the job that left `part` behind."""
    if not (part / JOB).is_file():
        raise WriteError(f"{part}: a folder that is no unfinished output is in the way; move it")
    try:
        begun = json.loads((part / JOB).read_text(encoding="utf-8"))
        key, shards = str(begun.get("key")), begun.get("shards", False)
    except (ValueError, AttributeError):
        return "damaged"
    if shards:
        raise WriteError(f"{part}: begun with --shard; finish it with --shard, or remove it")
    return key


def done_tiles(part: Path, count: int) -> frozenset[int]:
    """Indices in the lists of completed tiles; a line cut off by a kill does not count.

    Parameters
    ----------
    part : Path
    count : int
        Tiles of the scan.
    """
    done: set[int] = set()
    for path in part.glob(f"{DONE}*"):  # one list for each process that wrote
        lines = path.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        done |= {int(n) for n in lines if n.isdecimal() and int(n) < count}
    return frozenset(done)


def _drop_cut_line(log: Path) -> None:
    """End a list at its last whole line: what is appended must not join a line cut off."""
    if log.is_file():
        data = log.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(log, data.rfind(b"\n") + 1)


def _take_lock(part: Path) -> None:
    """Mark `part` as written by this process, unless a live one has it."""
    lock = part / LOCK
    if lock.is_file():
        try:
            owner = _read_owner(lock)
            alive = abs(psutil.Process(owner[0]).create_time() - owner[1]) < 2
        except (psutil.Error, ValueError, KeyError, TypeError):
            alive = False
        if alive:
            raise WriteError(f"{part}: process {owner[0]} is writing it; wait for it or end it")
    write_json(lock, {"pid": os.getpid(), "started": psutil.Process().create_time()})


def _read_owner(lock: Path) -> tuple[int, float]:
    """Process that holds a lock: its number and the time it started."""
    owner = json.loads(lock.read_text(encoding="utf-8"))
    return int(owner["pid"]), float(owner["started"])


def release(part: Path) -> None:
    """Give the lock back; the unfinished output stays."""
    remove_file(part / LOCK)


def replace_output(job: OutputJob) -> None:
    """Rename ``OUT.part`` to ``OUT``; an old output is set aside first and deleted last.

    Raises
    ------
    WriteError
        If a rename fails; the old output is then back in its place.
    """
    out, old = job.out, job.out.with_name(f"{job.out.name}.old-{os.getpid()}")
    with writing(out):
        shutil.rmtree(job.part / NEW, ignore_errors=True)
        try:
            if out.exists():
                rename(out, old)
            try:
                rename(job.part, out)
            except OSError:
                if old.exists():
                    rename(old, out)
                raise
        except OSError:
            release(job.part)  # the notes stay: the next run finds all done, and renames
            raise
        drop_notes(out)
        if old.exists():
            remove_folder(old)


def drop_notes(out: Path) -> None:
    """Remove what a complete output needs no more; its pixels do not depend on it."""
    for name in (DONE, LOCK, JOB):
        discard(out / name)


def finished(
    out: Path, provenance: Mapping[str, Any], *, format: str, save: Sequence[str]
) -> bool:
    """Return True if `out` is a complete output of the very same job, whenever that ran.

    Parameters
    ----------
    out : Path
    provenance : mapping
        JSON-ready.
    format : str
    save : sequence of str
    """
    for name in ("provenance.json", "zarr.json"):
        try:
            content = json.loads((out / name).read_text(encoding="utf-8"))
            block = content.get(KEY) or content["attributes"][KEY]
            made, parts = dict(block["provenance"]), (block["format"], sorted(block["save"]))
        except (OSError, ValueError, LookupError, AttributeError, TypeError):
            continue
        wanted = json.loads(json.dumps(dict(provenance), default=str))
        same = all(
            made.get(key) == wanted.get(key) for key in (made | wanted) if key not in NOT_OF_IT
        )
        return same and parts == (format, sorted(save))
    return False
