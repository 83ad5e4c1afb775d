"""Tasks of the training panel's workers: start a run, watch its folder, find what to offer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from napari_txm_bgcorr.errors import TxmError, WriteError
from napari_txm_bgcorr.gui.common.errors import errors_in_words
from napari_txm_bgcorr.gui.correct.tasks import device_label
from napari_txm_bgcorr.training.run import ACTIVE, RunFolder, read_status

from .messages import Complaint, Launched, Offers, RunNews
from .process import RunProcess
from .session import PRESETS, TrainJob, job_arguments

__all__ = ["find_offers", "is_run", "launch", "live_run", "runs_folder", "start_run", "watch_run"]

LOOK_S = 0.25
MOST_LINES = 400
NEWEST_RUNS = 20


def runs_folder() -> Path:
    """Folder of the panel's runs: ``TXM_BGCORR_RUNS``, or beside the user's models."""
    if given := os.environ.get("TXM_BGCORR_RUNS"):
        return Path(given)
    base = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    home = Path(base) if base else Path.home() / ".local" / "share"
    return home / "napari-txm-bgcorr" / "runs"


def is_run(path: Path) -> bool:
    """Return True if a folder is that of a run."""
    return (path / "config.yaml").is_file() and any(
        (path / name).exists() for name in ("status.json", "metrics.jsonl", "checkpoints")
    )


def live_run(runs: Path) -> Path | None:
    """Newest run in a folder that is going on; None if there is none."""
    try:
        folders = sorted((p for p in runs.iterdir() if p.is_dir()), key=lambda p: p.name)
    except OSError:
        return None
    for folder in reversed(folders[-NEWEST_RUNS:]):
        status = read_status(folder)
        if status is not None and status.alive():
            return folder
    return None


def start_run(job: TrainJob, stop: Event) -> Iterator[Any]:
    """Write the layers among the data, start the process, then watch the run."""
    try:
        with errors_in_words(str(job.run)):
            if (job.run / "config.yaml").exists():
                raise WriteError(
                    f"{job.run}: holds a run already; attach to it, or choose another run folder"
                )
            arguments = job_arguments(job)
            _write_layers(job)
    except TxmError as error:
        yield Complaint(error)
        return
    yield from launch(job.run, arguments, stop)


def launch(run: Path, arguments: Sequence[str], stop: Event) -> Iterator[Any]:
    """Start a training's process, then watch its run."""
    try:
        process = RunProcess(run, arguments)
    except TxmError as error:
        yield Complaint(error)
        return
    yield Launched(run, process)
    yield from watch_run(run, stop, process)


def _write_layers(job: TrainJob) -> None:
    """Write layers that no file holds into the run's folder; it then has all it needs."""
    for item in job.items:
        if item.array is not None:
            item.path.parent.mkdir(parents=True, exist_ok=True)
            np.save(item.path, np.asarray(item.array[:]))


class _Tail:
    """News in a run's folder since the last look."""

    def __init__(self, run: Path) -> None:
        self.folder = RunFolder(run)
        self.waiting: list[dict[str, Any]] = []
        self._offset, self._inode = 0, 0
        self._preview: tuple[int, int] = (0, 0)

    def look(self) -> tuple[tuple[dict[str, Any], ...], bool]:
        """At most `MOST_LINES` new lines, and whether the file was begun anew."""
        anew = self._begun_anew()
        if anew:
            self._offset, self.waiting = 0, []
        if len(self.waiting) < MOST_LINES:
            lines, self._offset = self.folder.read_metrics(self._offset)
            self.waiting += lines
        now, self.waiting = self.waiting[:MOST_LINES], self.waiting[MOST_LINES:]
        return tuple(now), anew

    def _begun_anew(self) -> bool:
        """A resumed run replaces the file: another inode, or fewer bytes."""
        try:
            facts = self.folder.metrics.stat()
        except OSError:
            return False
        before, self._inode = self._inode, facts.st_ino
        return facts.st_size < self._offset or (before not in (0, facts.st_ino))

    def preview(self) -> dict[str, Any]:
        """The validation tile, if it was redrawn."""
        place = self.folder.previews / "latest.npz"
        try:
            facts = place.stat()
        except OSError:
            return {}
        stamp = (facts.st_mtime_ns, facts.st_ino)
        if stamp == self._preview:
            return {}
        held = self.folder.read_preview()
        if held:
            self._preview = stamp
        return held


def watch_run(run: Path, stop: Event, process: RunProcess | None = None) -> Iterator[RunNews]:
    """Tell what is new in a run's folder, at most four times a second, until it has ended.

    Parameters
    ----------
    run : Path
    stop : Event
    process : RunProcess or None
        The run's process, if it was started here.
    """
    tail = _Tail(run)
    told: tuple[Any, ...] = ()
    while not stop.is_set():
        code = (
            None if process is None else process.poll()
        )  # before the status: it writes, then ends
        status = tail.folder.status()
        ours = process is None or process.wrote(status)
        state = "none" if status is None else status.seen_state()
        if not ours:  # of an earlier process; ours has not spoken yet
            state = "starting" if code is None else "failed"
        lines, anew = tail.look()
        preview = tail.preview()
        seen = (state, status if ours else None, tail.folder.model.exists())
        if lines or anew or preview or seen != told:
            told = seen
            over = code is not None and not (ours and state in ("finished", "stopped"))
            yield RunNews(
                run, state, seen[1], lines, anew, preview, seen[2],
                process.last_words() if process is not None and over else "",
            )  # fmt: skip
        if (
            state not in (*ACTIVE, "none")
            and not tail.waiting
            and (process is None or code is not None)
        ):
            return
        if process is None and state == "none":
            return
        if not tail.waiting:
            stop.wait(LOOK_S)
        else:
            stop.wait(0.05)


def find_offers(stop: Event, runs: Path) -> Iterator[Any]:
    """Look for a live run, presets, models, networks and devices; loads PyTorch."""
    yield Offers(live=live_run(runs))
    try:
        with errors_in_words("devices"):
            from napari_txm_bgcorr.models import NETWORKS, list_devices, list_models
            from napari_txm_bgcorr.training import load_config

            yield Offers(
                devices=tuple((d.name, device_label(d)) for d in list_devices()),
                models=tuple((name, name) for name in list_models()),
                networks=tuple(NETWORKS),
                presets={name: load_config(name).model_dump(mode="json") for name in PRESETS},
            )
    except TxmError as error:
        yield Complaint(error)
