"""Correct what a microscope writes into a folder, file after file, as it arrives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_txm_bgcorr.core import SILENT, Progress
from napari_txm_bgcorr.errors import ConfigError, TxmError
from napari_txm_bgcorr.io import Arrival, State, Watcher

from .config import CorrectionConfig
from .correction import correct_scans
from .inputs import FILE_SUFFIX
from .prepare import method_of, open_scan
from .runners import LocalRunner

__all__ = ["LOG", "FolderCorrection", "check_folders"]

LOG = "watch.jsonl"
Line = dict[str, Any]


def _nobody(line: Line) -> None:
    """Tell nobody."""


def check_folders(folder: Path, out: Path) -> None:
    """Refuse folders that cannot be watched, or would watch their own results.

    Raises
    ------
    ConfigError
        If so.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the folder the microscope writes to")
    inside, place = folder.resolve(), out.resolve()
    if inside == place or place in inside.parents:
        raise ConfigError(f"{out}: is or holds the watched folder; give a folder of its own")


@dataclass
class FolderCorrection:
    """Correction of arriving files by one method that is kept; one log line per file.

    Attributes
    ----------
    folder, out : Path
    config : CorrectionConfig
        Of every file.
    tell : callable
        Takes the log's line of each file.
    progress : Progress
        Is told why a file waits.
    failed : int
        Files that could not be corrected.
    """

    folder: Path
    out: Path
    config: CorrectionConfig
    tell: Callable[[Line], Any] = _nobody
    progress: Progress = field(default=SILENT)
    failed: int = 0

    def __post_init__(self) -> None:
        self._runner: LocalRunner | None = None
        self._told: dict[Path, str] = {}
        self._targets: dict[str, str] = {}
        self._log = self.out / LOG

    def handled(self) -> dict[Path, State]:
        """Files that the log lists as corrected, if their outputs still exist."""
        done: dict[Path, State] = {}
        for line in _lines(self._log):
            target = self.out / line["output"]
            self._targets[line["output"]] = line["file"]
            if line["status"] == "corrected" and target.exists():
                done[self.folder / line["file"]] = State(*line["state"])
        return done

    def loop(self, watcher: Watcher, *, interval: float, once: bool) -> None:
        """Correct what arrives, for ever or until nothing more is to come of what is there."""
        self._runner = LocalRunner(method_of(self.config))  # a wrong name or device ends it here
        while True:
            try:
                for arrival in watcher.poll():
                    self._correct(arrival)
                self._tell_waiting(watcher, all_of_them=False)
                if once and watcher.settled:
                    self._tell_waiting(watcher, all_of_them=True)
                    self.failed += len(watcher.waiting)
                    return
            except TxmError as error:  # the share is away
                self._tell(self.folder, str(error))
                if once:
                    raise
            time.sleep(interval)

    def _correct(self, arrival: Arrival) -> None:
        """Correct one file; whatever is wrong with it is told and does not end the watch."""
        started = time.monotonic()
        name = str(arrival.path.relative_to(self.folder))
        target = self._target(arrival.path)
        line: dict[str, Any] = {
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "file": name,
            "state": [arrival.state.size, arrival.state.mtime_ns, arrival.state.count],
            "output": target,
        }
        try:
            result = self._correct_path(arrival.path, self.out / target)
        except (TxmError, OSError) as error:
            self.failed += 1
            line |= {"status": "failed", "error": " ".join(str(error).split())}
        else:
            line |= {"status": "corrected", "tiles": result["tiles"], "notes": result["notes"]}
        ended = time.monotonic()
        line |= {
            "latency_s": round(ended - arrival.since, 3),
            "seconds": round(ended - started, 3),
        }
        self._write(line)

    def _correct_path(self, path: Path, target: Path) -> dict[str, Any]:
        if self._runner is None:
            raise ConfigError("watch: not begun; call loop")
        scan = open_scan(path, self.config)  # references are read anew: there may be fresher ones
        target.parent.mkdir(parents=True, exist_ok=True)
        return correct_scans([scan], self._runner, target, self.config)

    def _target(self, path: Path) -> str:
        """Output of a file below OUT: its own name, with the suffix if two would share it."""
        inner = path.relative_to(self.folder)
        suffix = FILE_SUFFIX[self.config.format]
        for name in (inner.name if path.is_dir() else inner.stem, inner.name):
            target = str(inner.with_name(name + suffix))
            if self._targets.setdefault(target, str(inner)) == str(inner):
                return target
        return str(inner.with_name(f"{inner.name}.corrected{suffix}"))

    def _write(self, line: dict[str, Any]) -> None:
        """Note one file in the log."""
        text = json.dumps(line)
        self.out.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        self.tell(line)

    def _tell_waiting(self, watcher: Watcher, *, all_of_them: bool) -> None:
        """Say once why a file waits; what merely changes is not worth a line."""
        for path, why in watcher.waiting.items():
            if all_of_them or why != "still changing":
                self._tell(path, why)

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:
            self._told[path] = why
            where = "" if str(path) in why else f"{path}: "
            self.progress.say(f"waiting: {where}{why}")


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of an earlier log."""
    if not log.is_file():
        return
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            State(*line["state"])
        except (ValueError, LookupError, TypeError):
            continue  # cut off by a kill
        if {"file", "output", "status"} <= line.keys():
            yield line
