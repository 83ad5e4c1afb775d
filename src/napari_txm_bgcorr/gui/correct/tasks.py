"""Tasks of the correction panel's worker, as generators of messages. No Qt, no layers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from napari_txm_bgcorr.core import (
    BackgroundMethod,
    Scan,
    correct_tiles,
    method_notes,
    refuse_if_corrected,
)
from napari_txm_bgcorr.errors import StoppedError, TxmError, WriteError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.common.messages import Failed, Preparing, Saved, Shown, Tell
from napari_txm_bgcorr.gui.common.throttle import Pace, telling
from napari_txm_bgcorr.gui.layers.outputs import parts, saved_path
from napari_txm_bgcorr.gui.layers.overview import draw_overview
from napari_txm_bgcorr.gui.layers.result import Result
from napari_txm_bgcorr.gui.layers.saved_result import OpenedResult, saved_result
from napari_txm_bgcorr.gui.layers.stitched import read_stitched
from napari_txm_bgcorr.gui.session import CorrectionJob, JobInput
from napari_txm_bgcorr.workflows import attach, method_of, record_of, save_tiles

from .messages import Choices, Doubted, Finished, Message, Opened, Reopened, Started
from .model_warning import doubts, references, refuse_no_counts
from .refine import refine

__all__ = [
    "correct_job",
    "device_label",
    "find_choices",
    "read_paths",
    "reopen",
    "save_results",
    "write_result",
]

SHOW_WAIT_S = 5.0


def read_paths(paths: Sequence[Path], stop: Event) -> Iterator[Message]:
    """Open files and folders one after the other; a large mosaic's overview fills meanwhile."""
    for path in paths:
        if stop.is_set():
            return
        yield Preparing(f"Reading {path.name} …")
        try:
            with errors_in_words(str(path)):
                result = saved_result(path)
        except TxmError as error:
            yield Failed(error)
            continue
        yield from (_read_parts(path, stop) if result is None else reopen(result, stop))


def reopen(result: OpenedResult, stop: Event) -> Iterator[Message]:
    """Show a finished output; a large mosaic's overview fills meanwhile."""
    yield Reopened(result, tuple(result.layers()))
    yield from draw_overview(str(result.path), len(result), result.fill(), stop)


def _read_parts(given: Path, stop: Event) -> Iterator[Message]:
    from napari_txm_bgcorr import io
    from napari_txm_bgcorr.gui.layers.convert import scan_layer

    for path, role, name in parts(given):
        if stop.is_set():
            return
        try:
            with errors_in_words(str(path)):
                if pictures := read_stitched(path):
                    yield Shown(tuple(pictures))
                    continue
                scan = io.read(path)
                layer, pyramid = scan_layer(scan, role, name)
        except TxmError as error:
            yield Failed(error)
            continue
        yield Opened(scan, layer)
        if pyramid is not None:
            yield from draw_overview(str(scan.source.path), len(scan), pyramid.fill(), stop)


def correct_job(
    job: CorrectionJob,
    stop: Event,
    tell: Tell = lambda message: None,
    shown: Event | None = None,
) -> Iterator[Message]:
    """Correct every input of a job, tile by tile.

    Parameters
    ----------
    job : CorrectionJob
    stop : Event
        Set to cancel; heeded at the next tile.
    tell : callable
        Takes the messages of steps that cannot yield: a method being fitted.
    shown : Event or None
        Set by the panel when the layers of a `Started` are there. Computing waits for it, or
        the two would fight for Python's lock while napari makes its widgets.
    """
    run = _JobRun(job, stop, tell, shown, Pace(sum(len(item.scan) for item in job.inputs)))
    try:
        yield Preparing(f"Loading {job.config.method} …")
        method = _make_method(job)
    except TxmError as error:
        yield Failed(error)
        return
    for item in job.inputs:
        if stop.is_set():
            return
        try:
            yield from _correct_one(run, item, method)
        except StoppedError:
            return
        except TxmError as error:
            yield Failed(error)


@dataclass(frozen=True)
class _JobRun:
    """A job on its way: what `correct_job` was given, and its pace."""

    job: CorrectionJob
    stop: Event
    tell: Tell
    shown: Event | None
    pace: Pace

    def until_shown(self) -> None:
        """Wait, but not for ever, until the panel has made its layers."""
        patience = time.monotonic() + SHOW_WAIT_S
        while self.shown is not None and not self.stop.is_set():
            if self.shown.wait(0.05) or time.monotonic() > patience:
                self.shown.clear()
                return


def _correct_one(run: _JobRun, item: JobInput, method: BackgroundMethod) -> Iterator[Message]:
    name = run.job.config.method
    yield Preparing(f"{item.name}: preparing {name} …")
    progress = telling(run.stop, run.tell, f"{item.name}: ")
    with errors_in_words(item.name):
        scan = _prepare(run.job, item)
        fitted = method.fit(scan, progress)
        result = Result(scan, item.name)
        result.made_by(fitted)
        result.doubts += doubts(run.job, scan)
        notes = method_notes(fitted.describe())  # less those that repeat a warning
        result.notes += [n for n in notes if not any(n[1:] in doubt for doubt in result.doubts)]
    if result.doubts:
        yield Doubted(tuple(result.doubts), references(run.job, scan))
    yield Started(item.key, result)
    run.until_shown()
    failure: TxmError | None = None
    try:
        with errors_in_words(f"{item.name}: {name}"):
            for tile in correct_tiles(scan, fitted, should_stop=run.stop.is_set):
                result.put(tile)
                if message := run.pace.step(item.name):
                    yield message
            if run.job.config.joint and result.complete:
                yield from refine(result, fitted, _joint_name(name), run.stop, progress)
    except StoppedError:
        pass
    except TxmError as error:
        failure = error
    # Whatever happened, the tiles that are there are real: say how they were made.
    result.finish(_provenance(run.job, scan, result.method or fitted))
    yield Finished(item.key, result, not result.complete)
    if failure is not None:
        yield Failed(failure)


def _joint_name(name: str) -> str | None:
    from napari_txm_bgcorr.backgrounds import JOINT_BY_DEFAULT

    return name if name in JOINT_BY_DEFAULT else None


def _prepare(job: CorrectionJob, item: JobInput) -> Scan:
    """Attach the user's references and darks; refuse what is already corrected."""
    scan = item.scan
    if scan.source.format == "napari layer" and scan.source.files and not job.config.force:
        _refuse_corrected_file(scan.source.files[0])
    refuse_if_corrected(scan, force=job.config.force)
    refuse_no_counts(scan, item.name)
    return attach(scan, job.config)


def _refuse_corrected_file(path: Path) -> None:
    """Look into the file behind a layer that napari has opened itself."""
    from napari_txm_bgcorr import io

    try:
        scan = io.read(path)
    except TxmError:
        return  # not one of our formats, so not one of our results
    refuse_if_corrected(scan)


def _make_method(job: CorrectionJob) -> BackgroundMethod:
    """Make the method itself; the whole scan is solved for once its tiles are on show."""
    with errors_in_words(job.config.method):
        return method_of(job.config.replaced(joint=False))


def _provenance(
    job: CorrectionJob, scan: Scan, method: BackgroundMethod
) -> Mapping[str, Any] | None:
    try:
        with errors_in_words(str(scan.source.path)):
            return record_of(scan, method, job.config)
    except TxmError:
        return None  # the source has gone away meanwhile


def save_results(
    results: Sequence[Result], folder: Path, save_format: str, overwrite: bool, stop: Event
) -> Iterator[Message]:
    """Write results, each under its own name in a folder.

    Raises
    ------
    WriteError
        As a `Failed` message: nothing complete to save, or the output is in the way.
    """
    pace = Pace(sum(len(result) for result in results))
    for result in results:
        target = saved_path(result.name, folder, save_format)
        try:
            with errors_in_words(str(target)):
                for _ in write_result(result, target, save_format, overwrite):
                    if stop.is_set():
                        return
                    if message := pace.step(f"Saving {target.name}"):
                        yield message
        except TxmError as error:
            yield Failed(error)
            continue
        yield Saved(target)


def write_result(
    result: Result, target: Path, save_format: str, overwrite: bool = False
) -> Iterator[int]:
    """Write one result tile by tile.

    Raises
    ------
    WriteError
        If the result is not complete, or the output cannot be written.
    """
    if not result.complete or result.provenance is None:
        raise WriteError(
            f"{result.name}: {int(result.done.sum())} of {len(result)} tiles are corrected; "
            "press Correct again and let it end before saving"
        )
    yield from save_tiles(
        target,
        result.scan,
        result.provenance,
        lambda todo: (result.tile(i) for i in todo),
        format=save_format,
        overwrite=overwrite,
    )


def device_label(device: Any) -> str:
    """Name a device shortly enough for a combo box: maker's name and memory."""
    if device.name == "cpu":
        cores = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
        return f"CPU, {cores} cores, {device.memory_gb:.0f} GB"
    return f"{device.label}, {device.memory_gb:.0f} GB"


def find_choices(stop: Event) -> Iterator[Message]:
    """Look for models and devices; loads PyTorch, which takes seconds."""
    try:
        with errors_in_words("devices"):
            from napari_txm_bgcorr.models import list_devices, list_models

            yield Choices(
                tuple((name, name) for name in list_models()),
                tuple((d.name, device_label(d)) for d in list_devices()),
            )
    except TxmError as error:
        yield Failed(error)
