"""Stitch the tiles of a result into a pyramid on disk, in bounded memory, resumable."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import lit_in_tiles
from napari_txm_bgcorr.errors import WriteError
from napari_txm_bgcorr.io import writing
from napari_txm_bgcorr.io.output import (
    DOMAINS,
    DONE,
    PYRAMIDS,
    Places,
    PyramidJob,
    PyramidSink,
    TileParts,
    check_place,
    claim,
    holds_tiles,
    release,
    replace_output,
    resumed,
)
from napari_txm_bgcorr.mosaic import (
    Box,
    Layout,
    Status,
    common_unlit,
    either_unlit,
    feather,
    halve,
    lay_out,
    mix,
    share_out,
)

from .tile_cache import TileCache

__all__ = ["STITCHED", "StitchOptions", "check_options", "stitch_tiles"]

Image = NDArray[np.float32]
Loaded = tuple[Status, dict[str, NDArray[Any]]]

STITCHED = ("raw", "background", "corrected")
"""Parts that can be stitched."""

SAMPLES = 9  # tiles looked at for corners that none of them sees
HELD = 4e8  # bytes of tiles kept between two rows of units, about


@dataclass(frozen=True)
class StitchOptions:
    """Options of the stitching.

    Attributes
    ----------
    parts : tuple of {"raw", "background", "corrected"}
        One pyramid each, with the same weights.
    domain : {"transmission", "od"}
        Of the corrected part.
    format : {"omezarr", "ometiff"}
    chunk : int
        Side of a chunk (px), a multiple of 16.
    workers : int
        Threads; the results are the same bits.
    overwrite : bool
        Replace an earlier output of this program, at the end.
    """

    parts: tuple[str, ...] = ("corrected",)
    domain: str = "transmission"
    format: str = "omezarr"
    chunk: int = 1024
    workers: int = 2
    overwrite: bool = False


DEFAULT = StitchOptions()


def stitch_tiles(
    source: TileParts,
    places: Places,
    out: str | Path,
    options: StitchOptions = DEFAULT,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Blend tiles into one multiscale picture a part.

    It is built in ``OUT.part``; an interrupted run is taken up where it stopped and gives the
    same bits.

    Parameters
    ----------
    source : TileParts
    places : Places
    out : str or Path
        Store (OME-Zarr) or folder (OME-TIFF) to make.
    options : StitchOptions
    report : callable
        ``report(done, total)`` after each piece of work.
    should_stop : callable
        Asked before each piece; what is done stays for the next run.

    Returns
    -------
    dict
        JSON-ready: ``output, tiles, shape, levels, parts, positions, units, resumed, complete``.

    Raises
    ------
    WriteError
        If the place is taken, an option is unknown, or the disk is full.
    MethodError
        If positions are impossible.
    """
    place = Path(os.path.abspath(out))
    check_options(place, source, options)
    layout = lay_out(places.positions_px, source.size)
    job = _job(place, source, places, layout, options)
    done = claim(job, overwrite=options.overwrite)
    sink: PyramidSink | None = None
    complete = False
    try:
        job = resumed(job) if done else job  # type: ignore[assignment]
        sink = PYRAMIDS[options.format](job)
        with writing(job.part):
            if not done:
                sink.create()
            sink.open()
            complete = _StitchRun(source, layout, job, sink, options).go(done, report, should_stop)
    finally:
        if sink is not None:
            sink.close()
        if not complete:
            release(job.part)
    if complete:
        replace_output(job)
    return {
        "output": str(place),
        "tiles": len(source.corrected),
        "shape": list(job.shape),
        "levels": len(job.levels),
        "parts": list(job.save),
        "as": options.domain,
        "positions": places.source,
        "note": places.note,
        "units": job.units,
        "resumed": len(done),
        "complete": complete,
    }


def check_options(place: Path, source: TileParts, options: StitchOptions) -> None:
    """Refuse what cannot be done, before anything is.

    Raises
    ------
    WriteError
        If the place is taken, an option is unknown, or the result does not hold a part.
    """
    if not options.parts:
        raise WriteError(f"{place}: nothing to stitch; name parts, for example corrected")
    named: list[tuple[str, tuple[str, ...]]] = [(part, STITCHED) for part in options.parts]
    named += [(options.domain, DOMAINS), (options.format, tuple(PYRAMIDS))]
    for value, allowed in named:
        if value not in allowed:
            raise WriteError(f"{place}: stitch {value!r}; choose from {', '.join(allowed)}")
    for part in options.parts:
        if part not in source.scans:
            raise WriteError(
                f"{source.path}: no {part} tiles in it; correct again with --save {part},..., "
                "or leave this part out"
            )
    if options.chunk < 16 or options.chunk % 16 or options.workers < 1:
        raise WriteError(f"{place}: chunks of {options.chunk} px; give a multiple of 16")
    check_place(place, source.corrected, options.parts, overwrite=options.overwrite)
    if place.exists() and holds_tiles(place):
        raise WriteError(
            f"{place}: corrected tiles, which no picture replaces; choose another place"
        )


def _job(
    place: Path, source: TileParts, places: Places, layout: Layout, options: StitchOptions
) -> PyramidJob:
    scan = replace(source.corrected, positions_px=np.asarray(places.positions_px, np.float64))
    raw = source.scans.get("raw")
    provenance = json.loads(json.dumps(dict(source.provenance), default=str))
    stitched = {
        "name": Path(str(provenance.get("source_path", source.path))).stem,
        "tiles": len(scan),
        "tile_px": list(layout.tile),
        "corners_px": layout.corners.tolist(),
        "positions": places.source,
        "note": places.note,
        "as": options.domain,
        "masked_by": "mask" if "mask" in source.scans else "raw and background",
        "raw_dtype": "float32" if raw is None else np.dtype(raw.tiles.dtype).name,
    }
    job = PyramidJob(
        out=place,
        format=options.format,
        scan=scan,
        provenance=provenance,
        save=tuple(dict.fromkeys(options.parts)),
        shape=layout.shape,
        chunk=options.chunk,
        stitched=stitched,
    )
    return replace(job, units=len(_units(job)))


@dataclass(frozen=True)
class _Unit:
    """One piece of work: at level 0, 2 x 2 chunks and the one above; else a coarser chunk."""

    number: int
    level: int
    row: int
    column: int


def _units(job: PyramidJob) -> list[_Unit]:
    """All pieces of work, numbered level by level, row by row."""
    units: list[_Unit] = []
    starts = [(0, 1), *((level, level) for level in range(2, len(job.levels)))]
    for level, over in starts:
        rows, columns = (-(-n // 2) for n in job.chunks(0)) if level == 0 else job.chunks(over)
        for row in range(rows):
            for column in range(columns):
                units.append(_Unit(len(units), level, row, column))
    return units


class _StitchRun:
    """One run over what is not done yet."""

    def __init__(
        self,
        source: TileParts,
        layout: Layout,
        job: PyramidJob,
        sink: PyramidSink,
        options: StitchOptions,
    ) -> None:
        self.source, self.layout, self.job, self.sink = source, layout, job, sink
        self.options = options
        self.weight = feather(layout.tile)

    def go(
        self,
        done: frozenset[int],
        report: Callable[[int, int], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Do all units; False where it was told to stop."""
        units = _units(self.job)
        count = len(done)
        report(count, len(units))
        todo = [unit for unit in units if unit.number not in done]
        if any(unit.level == 0 for unit in todo):
            self.weight = feather(self.layout.tile, self._unlit())
        with (self.job.part / DONE).open("a", encoding="ascii") as log:
            for level in range(len(self.job.levels)):
                wave = [unit for unit in todo if unit.level == level]
                for unit in self._wave(level, wave, should_stop):
                    log.write(f"{unit.number}\n")
                    log.flush()
                    count += 1
                    report(count, len(units))
                if should_stop() and count < len(units):
                    return False
        return count == len(units)

    def _unlit(self) -> NDArray[np.bool_] | None:
        """Corners that no tile sees, from some tiles spread over the mosaic."""
        total = len(self.source.corrected)
        some = sorted(set(np.linspace(0, total - 1, min(SAMPLES, total)).astype(int).tolist()))
        dark = None
        if "raw" in self.source.scans:
            tiles = self.source.scans["raw"].tiles
            dark = ~lit_in_tiles(np.stack([np.asarray(tiles[i]) for i in some]))
        return either_unlit(common_unlit(self.source.load(i, ())[0] for i in some), dark)

    def _wave(
        self, level: int, units: Sequence[_Unit], should_stop: Callable[[], bool]
    ) -> Iterator[_Unit]:
        """Do the units of one level in threads; finer levels are complete."""
        if level == 0:
            units, work = self._blending(units)
        else:
            work = self._coarsen
        with ThreadPoolExecutor(self.options.workers, thread_name_prefix="stitch") as pool:
            waiting: deque[tuple[_Unit, Future[None]]] = deque()
            rest = iter(units)
            try:
                for unit in islice(rest, self.options.workers + 1):
                    waiting.append((unit, pool.submit(work, unit)))
                while waiting:
                    unit, future = waiting.popleft()
                    future.result()
                    yield unit
                    if should_stop():
                        return
                    for after in islice(rest, 1):
                        waiting.append((after, pool.submit(work, after)))
            finally:
                for _, future in waiting:
                    future.cancel()

    def _box(self, unit: _Unit) -> Box:
        side = 2 * self.job.chunk
        top, left = unit.row * side, unit.column * side
        height, width = self.job.shape
        return Box(top, left, min(top + side, height), min(left + side, width))

    def _blending(self, units: Sequence[_Unit]) -> tuple[list[_Unit], Callable[[_Unit], None]]:
        """Order of the finest units, and the work on one: each tile is read once in a strip.

        Strips of columns are as wide as the tiles between two rows of units may be kept.
        """
        touching = {unit.number: self.layout.touching(self._box(unit)) for unit in units}
        width = self._strip()
        ordered = sorted(units, key=lambda u: (u.column // width, u.row, u.column))
        uses: Counter[tuple[int, int]] = Counter(
            (unit.column // width, i) for unit in ordered for i in touching[unit.number]
        )
        cache: TileCache[tuple[int, int], Loaded] = TileCache(
            lambda key: self.source.load(key[1], self.job.save, self.options.domain), uses
        )

        def work(unit: _Unit) -> None:
            keys = {i: (unit.column // width, i) for i in touching[unit.number]}
            try:
                self._blend(unit, {i: cache.get(key) for i, key in keys.items()})
            finally:
                for key in keys.values():
                    cache.done(key)

        return ordered, work

    def _strip(self) -> int:
        """Columns of units whose tiles fit into memory from one row of units to the next."""
        columns = -(-self.job.chunks(0)[1] // 2)
        (y, x), (height, width) = self.layout.tile, self.layout.shape
        each = y * x * (1 + 4 * len(self.job.save))  # status and pixels
        density = len(self.source.corrected) / (height * width)
        per_column = each * density * (y + self.job.chunk) * 2 * self.job.chunk
        return max(1, min(columns, int(HELD // per_column)))

    def _blend(self, unit: _Unit, tiles: dict[int, Loaded]) -> None:
        """Blend and write 2 x 2 chunks, and the chunk of the next level above them."""
        box, side = self._box(unit), self.job.chunk
        pieces, known = share_out(self.layout, box, self.weight, lambda i: tiles[i][0])
        for role in self.job.save:
            image = mix(pieces, known, lambda i, role=role: tiles[i][1][role])  # type: ignore[misc]
            if self.job.dtype(role).kind == "u":
                image[image < 0.5] = np.nan  # stored as 0: unknown
            for row in range(-(-image.shape[0] // side)):
                for column in range(-(-image.shape[1] // side)):
                    part = image[
                        row * side : (row + 1) * side, column * side : (column + 1) * side
                    ]
                    at = (2 * unit.row + row, 2 * unit.column + column)
                    self.sink.write(role, 0, at, part)
            if len(self.job.levels) > 1:
                self.sink.write(role, 1, (unit.row, unit.column), halve(image))

    def _coarsen(self, unit: _Unit) -> None:
        """Write one chunk of a coarse level from the up to four below it."""
        rows, columns = self.job.chunks(unit.level - 1)
        for role in self.job.save:
            below = [
                [
                    self.sink.read(role, unit.level - 1, (row, column))
                    for column in range(2 * unit.column, min(2 * unit.column + 2, columns))
                ]
                for row in range(2 * unit.row, min(2 * unit.row + 2, rows))
            ]
            image = np.block(below)
            self.sink.write(role, unit.level, (unit.row, unit.column), halve(image))
