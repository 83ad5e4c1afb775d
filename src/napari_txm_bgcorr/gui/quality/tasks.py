"""Tasks of the quality panel's worker: measure, redo tiles, export. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from napari_txm_bgcorr.backgrounds import StoredBackgrounds
from napari_txm_bgcorr.backgrounds.drift import DriftModel
from napari_txm_bgcorr.core import BackgroundMethod, Progress, Scan, TileResult, correct_tiles
from napari_txm_bgcorr.errors import StoppedError, TxmError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.messages import Advanced, Failed, Preparing, Tell
from napari_txm_bgcorr.gui.common.throttle import Pace, telling
from napari_txm_bgcorr.gui.correct.messages import Message
from napari_txm_bgcorr.gui.correct.tasks import reopen
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.layers.saved_result import open_result
from napari_txm_bgcorr.quality import Gauge, TileQuality
from napari_txm_bgcorr.workflows import CorrectionConfig, method_of, with_references
from napari_txm_bgcorr.workflows import redo_tiles as corrected_again

__all__ = [
    "Exported",
    "Measured",
    "Redo",
    "Redone",
    "export_quality",
    "measure_result",
    "open_outputs",
    "redo_tiles",
]


@dataclass(frozen=True, eq=False)
class Measured:
    """The figures of a result's tiles, and the gauge that has small pictures of them."""

    result: Result
    quality: TileQuality
    gauge: Gauge


@dataclass(frozen=True, eq=False)
class Redone:
    """Tiles of a result were corrected again."""

    result: Result
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Exported:
    """The figures were written."""

    path: Path


QualityMessage = Measured | Redone | Exported | Advanced | Preparing | Failed


@dataclass(frozen=True, eq=False)
class Redo:
    """Tiles to correct again, and how.

    Attributes
    ----------
    result : Result
        Complete.
    indices : tuple of int
        Tiles of it.
    method : str
        As in the method table.
    model, device : str
    references : tuple of Path
        Reference images for these tiles only.
    local : int or None
        Fit to the tiles within that many rows and columns of each tile, not to all.
    joint : bool
        Afterwards make one background of the whole scan again, over all tiles.
    """

    result: Result
    indices: tuple[int, ...]
    method: str
    model: str = "default"
    device: str = "auto"
    references: tuple[Path, ...] = ()
    local: int | None = None
    joint: bool = False


def measure_result(result: Result, stop: Event) -> Iterator[QualityMessage]:
    """Measure the tiles of a result that are there."""
    done = np.flatnonzero(result.done)
    try:
        with errors_in_words(result.name):
            gauge, novelty = Gauge(result.scan), _novelty(result)
            gauge.tell((result.provenance or {}).get("parameters") or {})
            pace = Pace(len(done))
            for i in done:
                if stop.is_set():
                    return
                tile = result.tile(int(i))
                gauge.add(tile, novelty(tile))
                if message := pace.step("Measuring"):
                    yield message
            if result.scan.kind == "mosaic" and len(done) > 1 and not result.registered:
                yield Preparing("Registering …")
                gauge.register()
            elif result.registered and result.scan.positions_px is not None:
                gauge.place(result.scan.positions_px)
            yield Measured(result, gauge.table(), gauge)
    except TxmError as error:
        yield Failed(error)


def _novelty(result: Result) -> Callable[[TileResult], float]:
    """Function that gives the novelty of a tile; NaN for tiles that no network made."""
    told = None
    if (result.provenance or {}).get("weights_sha256"):
        from napari_txm_bgcorr.models import novelty_of

        told = novelty_of(result.scan, result.provenance)
    return told or (lambda tile: float("nan"))


def open_outputs(paths: Sequence[Path], stop: Event) -> Iterator[QualityMessage | Message]:
    """Open finished outputs, so that their tiles can be judged."""
    for path in paths:
        yield Preparing(f"Opening {path.name} …")
        try:
            with errors_in_words(str(path)):
                result = open_result(path)
        except TxmError as error:
            yield Failed(error)
            continue
        yield from reopen(result, stop)


def redo_tiles(redo: Redo, stop: Event, tell: Tell) -> Iterator[QualityMessage]:
    """Correct tiles again with another method, and the joint stage after it where asked for.

    A tile is replaced when its new correction is there, never before.
    """
    result, name = redo.result, redo.method
    progress = telling(stop, tell)
    changed: list[int] = []
    try:
        yield Preparing(f"Loading {name} …")
        with errors_in_words(name):
            scan = with_references(result.scan, redo.references)
            method = method_of(
                CorrectionConfig(
                    method=redo.method, model=redo.model, device=redo.device, joint=False
                )
            )
        with errors_in_words(f"{result.name}: {name}"):
            yield from _put(
                result, _again(redo, scan, method, progress), len(redo.indices), changed
            )
            result.note_redone(changed, name, _described(redo, method))
            if redo.joint and not stop.is_set():
                whole = DriftModel(_stored(result)).fit(scan, progress)
                tiles = correct_tiles(scan, whole, should_stop=stop.is_set)
                yield from _put(result, tiles, len(result), changed)
                result.note_redone(range(len(result)), whole.name, whole.describe())
                if not stop.is_set():
                    result.uncertainty.take(whole)
    except StoppedError:
        pass
    except TxmError as error:
        yield Failed(error)
    if changed:
        yield Redone(result, tuple(sorted(set(changed))))


def _stored(result: Result) -> StoredBackgrounds:
    """Backgrounds of the result, under the name of what made them."""
    noted = str((result.provenance or {}).get("method", "stored"))
    return StoredBackgrounds(result.background, noted)


def _again(
    redo: Redo, scan: Scan, method: BackgroundMethod, progress: Progress
) -> Iterator[TileResult]:
    if redo.local:
        yield from corrected_again(
            scan, method, redo.indices, local=redo.local, should_stop=progress.should_stop
        )
        return
    fitted = method.fit(scan, progress)
    yield from correct_tiles(scan, fitted, indices=redo.indices, should_stop=progress.should_stop)


def _put(
    result: Result, tiles: Iterator[TileResult], total: int, changed: list[int]
) -> Iterator[QualityMessage]:
    pace = Pace(total)
    for tile in tiles:
        result.put(tile)
        changed.append(tile.index)
        if message := pace.step("Redoing"):
            yield message


def _described(redo: Redo, method: BackgroundMethod) -> dict[str, Any]:
    more: dict[str, Any] = {} if redo.local is None else {"nearby": redo.local}
    if redo.references:
        more["references"] = [str(path) for path in redo.references]
    return {**method.describe(), **more}


def export_quality(measured: Measured, path: Path) -> Iterator[QualityMessage]:
    """Write the figures: a table where the name ends in .csv, else a page for the logbook."""
    from napari_txm_bgcorr.gui.layers.convert import describe_scan
    from napari_txm_bgcorr.io import report

    result, quality, gauge = measured.result, measured.quality, measured.gauge
    try:
        with errors_in_words(str(path)):
            if path.suffix == ".csv":
                report.write_csv(path, quality)
            else:
                raw, corrected = gauge.pictures()
                page = report.Report(
                    title=result.name,
                    quality=quality,
                    raw=raw,
                    corrected=corrected,
                    thumbnails={i: gauge.thumbnail(i) for i in report.worst(quality)},
                    provenance=result.provenance or {},
                    facts={"scan": describe_scan(result.scan)},
                    notes=(*result.scan.notes, *result.notes, *result.doubts),
                )
                report.write_html(path, page)
    except TxmError as error:
        yield Failed(error)
        return
    yield Exported(path)
