"""`txm-bgcorr correct --scheduler`: workers of dask.distributed read, predict and write.

The client opens the output and lists what is done; a worker fits the method once, and every
worker takes that fit, keeps its model, and writes its own chunks of the OME-Zarr store.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_txm_bgcorr.core import SILENT, BackgroundMethod, Progress, Scan
from napari_txm_bgcorr.workflows.config import CorrectionConfig
from napari_txm_bgcorr.workflows.inputs import side_by_side
from napari_txm_bgcorr.workflows.prepare import Shared, method_of, open_scan
from napari_txm_bgcorr.workflows.runners import LocalRunner, Told, results_of

from .schedulers import cluster_client, lost_contact

if TYPE_CHECKING:
    from distributed import Client

    from napari_txm_bgcorr.io import OutputWriter

__all__ = ["Distributed", "Fitted", "Work", "connect", "correct_tiles_of", "fit_work"]

GROUP = 8  # tiles of one task: what a method gets at once without a scheduler, too


@dataclass(frozen=True)
class Work:
    """Job description for a worker; small, and the same for all tasks of one output.

    Attributes
    ----------
    paths : tuple of Path
        Absolute, at the same place on every machine.
    config : CorrectionConfig
    out : Path
        Absolute.
    """

    paths: tuple[Path, ...]
    config: CorrectionConfig
    out: Path

    @property
    def key(self) -> str:
        """Name of this work within a worker."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass(frozen=True)
class Fitted:
    """Result of a fit: description, provenance, and the fitted method as bytes.

    Attributes
    ----------
    state : bytes or None
        None where there are several scans, or the method cannot travel: each worker fits.
    """

    described: dict[str, Any]
    provenance: dict[str, Any]
    state: bytes | None


@dataclass(frozen=True)
class Held:
    """State that a worker process keeps between tasks."""

    key: str
    scans: tuple[Scan, ...]
    fit: Callable[[Scan], BackgroundMethod]


_held: list[Held] = []  # of the last work; at most one
_lock = threading.Lock()


def fit_work(work: Work) -> Fitted:
    """Fit the method where the work is done; runs in a worker.

    Raises
    ------
    TxmError
        As `correct` without a scheduler would.
    """
    import cloudpickle

    scans = _scans(work)
    method = method_of(work.config)
    described, provenance = LocalRunner(method).fit(scans, _whole(scans))
    state = None
    if len(scans) == 1:
        try:
            state = cloudpickle.dumps(method)
        except (TypeError, pickle.PicklingError):
            state = None  # open files, a foreign library's handle
    return Fitted(described, provenance, state)


def correct_tiles_of(work: Work, fitted: Fitted, tiles: Sequence[int]) -> list[tuple[int, bool]]:
    """Read, predict, divide and write tiles; runs in a worker.

    Parameters
    ----------
    work : Work
    fitted : Fitted
    tiles : sequence of int
        Places in the output.

    Returns
    -------
    list of (int, bool)
        Tile, and whether any of its pixels is valid.
    """
    from napari_txm_bgcorr.io.output import ChunkWriter

    held = _hold(work, fitted)
    writer = ChunkWriter(work.out, _whole(held.scans), work.config.parts)
    done = []
    # one thread a task: dask runs as many tasks at once as the worker has threads
    with_sd = "uncertainty" in work.config.parts
    for result in results_of(held.scans, held.fit, tiles, workers=1, uncertainty=with_sd):
        writer.write(result)
        done.append((result.index, bool(result.valid.any())))
    return done


def _hold(work: Work, fitted: Fitted) -> Held:
    """Scans and method of a work, made by the first task of it in this process."""
    with _lock:
        if not _held or _held[0].key != work.key:
            import cloudpickle

            _held.clear()
            scans = _scans(work)
            if fitted.state is not None:
                ready: BackgroundMethod = cloudpickle.loads(fitted.state)
                _held.append(Held(work.key, scans, lambda scan: ready))
            else:
                _held.append(Held(work.key, scans, _once(method_of(work.config), scans)))
        return _held[0]


def _once(method: BackgroundMethod, scans: Sequence[Scan]) -> Callable[[Scan], BackgroundMethod]:
    """Function that returns the method fitted to a scan: a single one is fitted now, only once."""
    if len(scans) > 1:
        return lambda scan: copy(method).fit(scan)  # threads of this process fit at once
    fitted = method.fit(scans[0])
    return lambda scan: fitted


def _scans(work: Work) -> tuple[Scan, ...]:
    shared: Shared = {}
    return tuple(open_scan(path, work.config, shared) for path in work.paths)


def _whole(scans: Sequence[Scan]) -> Scan:
    return scans[0] if len(scans) == 1 else side_by_side(scans)


class Distributed:
    """Runs the work of `correct` on the workers of a scheduler.

    Parameters
    ----------
    client : distributed.Client
    config : CorrectionConfig
    """

    def __init__(self, client: Client, config: CorrectionConfig) -> None:
        self._client = client
        self._config = config.replaced(
            references=_full(config.references),
            darks=_full(config.darks),
            model=_absolute(config.model),
        )
        self._fit: Any = None
        self.notes: list[str] = []

    def fit(self, scans: Sequence[Scan], whole: Scan) -> Told:
        """Fit on a worker, where the device and the model are; see `TileRunner`."""
        work = self._work(scans, Path())
        with lost_contact(self._config.scheduler):
            self._fit = self._client.submit(fit_work, work, pure=False)
            fitted: Fitted = self._fit.result()
        return fitted.described, fitted.provenance

    def run(self, scans: Sequence[Scan], writer: OutputWriter) -> Iterator[tuple[int, bool]]:
        """Have the tiles done, in any order; tasks of lost workers are done by others."""
        from distributed import as_completed

        work = self._work(scans, writer.out)
        todo = writer.todo
        groups = [todo[first : first + GROUP] for first in range(0, len(todo), GROUP)]
        with lost_contact(self._config.scheduler):
            left = {
                self._client.submit(correct_tiles_of, work, self._fit, group, pure=False)
                for group in groups
            }
            try:
                for task in as_completed(tuple(left)):
                    done = task.result()
                    left.remove(task)  # if a worker is lost, finished tasks are not run again
                    for index, seen in done:
                        writer.note(index)
                        yield index, seen
            finally:
                with suppress(OSError):  # the scheduler itself may be gone
                    self._client.cancel(list(left), force=True)

    def _work(self, scans: Sequence[Scan], out: Path) -> Work:
        paths = tuple(scan.source.path.absolute() for scan in scans)
        return Work(paths, self._config, out)


def _full(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Full paths; what is no path, such as ``aperture``, as it is."""
    return tuple(path.absolute() if path.exists() else path for path in paths)


def _absolute(model: str) -> str:
    """A model's file or folder by its full path; a name as it is."""
    return str(Path(model).absolute()) if Path(model).exists() else model


@contextmanager
def connect(config: CorrectionConfig, progress: Progress = SILENT) -> Iterator[Distributed]:
    """Connect to, or start, the scheduler of the options; what was started is ended.

    Raises
    ------
    ConfigError
        If dask.distributed is missing, or the scheduler is not there.
    """
    with cluster_client(str(config.scheduler), progress) as client:
        yield Distributed(client, config)
