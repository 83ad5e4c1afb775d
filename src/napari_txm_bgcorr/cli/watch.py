"""`txm-bgcorr watch`: correct new files as the microscope writes them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_txm_bgcorr.errors import ConfigError, TxmError
from napari_txm_bgcorr.io.folder_watcher import Arrival, State, Watcher
from napari_txm_bgcorr.workflows.config import CorrectOptions
from napari_txm_bgcorr.workflows.correct import Here, correct_scans, method_of, prepare
from napari_txm_bgcorr.workflows.inputs import FILE_SUFFIX

from .correct import DARK_HELP, METHOD_HELP, REFERENCE_HELP, SAVE_HELP
from .options import Device, Grid, PixelNm, parse_grid

__all__ = ["LOG", "Watch", "watch"]

LOG = "watch.jsonl"
INTERRUPTED = 130
SOME_FAILED = 1


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the microscope writes; and below.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the results.")
    ],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help=METHOD_HELP)] = "auto",
    model: Annotated[str, typer.Option("--model", help="As in correct.")] = "default",
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", metavar="PATH", help=REFERENCE_HELP)
    ] = None,
    dark: Annotated[
        list[Path] | None, typer.Option("--dark", metavar="PATH", help=DARK_HELP)
    ] = None,
    device: Device = "auto",
    save: Annotated[
        str, typer.Option("--save", metavar="PARTS", help=SAVE_HELP)
    ] = "raw,background,corrected",
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="omezarr, ometiff or tiff.")
    ] = "omezarr",
    grid: Grid = None,
    pixel_nm: PixelNm = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="File names, e.g. '*.txrm'; default: images that are no references."),
    ] = None,
    folders: Annotated[
        bool, typer.Option("--folders", help="Sub-folders of tiles are one scan each.")
    ] = False,
    settle: Annotated[
        float, typer.Option(min=0.0, help="A file is whole when it stood still so long (s).")
    ] = 5.0,
    patience: Annotated[
        float, typer.Option(min=0.0, help="So long (s) a scan that lacks images is waited for.")
    ] = 600.0,
    once: Annotated[
        bool, typer.Option("--once", help="End when everything that is there is done.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file, a line each.")
    ] = False,
) -> None:
    """Correct new images in FOLDER as they are written, until Ctrl-C.

    The model stays loaded. Files that are still being written wait; one that fails is tried
    again when it changes. Started again, it skips what is done.
    """
    options = CorrectOptions(
        method=method,
        model=model,
        device=device,
        references=tuple(reference or ()),
        darks=tuple(dark or ()),
        grid=parse_grid(grid),
        pixel_nm=pixel_nm,
        save=tuple(part for part in save.replace(" ", "").split(",") if part),
        format=format,
        overwrite=True,  # a file that changed takes the place of its earlier result
        quiet=True,
    )
    _check_folders(folder, out)
    work = Watch(folder, out, options, as_json=as_json)
    watcher = Watcher(
        folder,
        pattern=pattern,
        settle_s=settle,
        patience_s=patience,
        ignore=[out, *options.references, *options.darks],
        whole_folders=folders,
        handled=work.handled(),
    )
    interval = min(1.0, max(0.05, settle / 2))
    try:
        work.loop(watcher, interval=interval, once=once)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if work.failed:
        raise typer.Exit(SOME_FAILED)


def _check_folders(folder: Path, out: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the folder the microscope writes to")
    inside, place = folder.resolve(), out.resolve()
    if inside == place or place in inside.parents:
        raise ConfigError(f"{out}: is or holds the watched folder; give a folder of its own")


@dataclass
class Watch:
    """The work on what arrives: one method, kept; a log line a file.

    Attributes
    ----------
    folder, out : Path
    options : CorrectOptions
    as_json : bool
    failed : int
        Files that could not be corrected.
    """

    folder: Path
    out: Path
    options: CorrectOptions
    as_json: bool = False
    failed: int = 0

    def __post_init__(self) -> None:
        self._runner: Here | None = None
        self._told: dict[Path, str] = {}
        self._targets: dict[str, str] = {}
        self._log = self.out / LOG

    def handled(self) -> dict[Path, State]:
        """What the log says was corrected before, where its output still is."""
        done: dict[Path, State] = {}
        for line in _lines(self._log):
            target = self.out / line["output"]
            self._targets[line["output"]] = line["file"]
            if line["status"] == "corrected" and target.exists():
                done[self.folder / line["file"]] = State(*line["state"])
        return done

    def loop(self, watcher: Watcher, *, interval: float, once: bool) -> None:
        """Correct what arrives, for ever or until nothing more is to come of what is there."""
        self._runner = Here(method_of(self.options))  # a wrong name or device ends it here
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
        scan = prepare(path, self.options)  # references are read anew: there may be fresher ones
        target.parent.mkdir(parents=True, exist_ok=True)
        return correct_scans([scan], self._runner, target, self.options)

    def _target(self, path: Path) -> str:
        """Output of a file below OUT: its own name, with the suffix if two would share it."""
        inner = path.relative_to(self.folder)
        suffix = FILE_SUFFIX[self.options.format]
        for name in (inner.name if path.is_dir() else inner.stem, inner.name):
            target = str(inner.with_name(name + suffix))
            if self._targets.setdefault(target, str(inner)) == str(inner):
                return target
        return str(inner.with_name(f"{inner.name}.corrected{suffix}"))

    def _write(self, line: dict[str, Any]) -> None:
        """Note one file in the log and on the screen."""
        text = json.dumps(line)
        self.out.mkdir(parents=True, exist_ok=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        if self.as_json:
            typer.echo(text)
        elif line["status"] == "failed":
            typer.echo(f"{line['time'][11:19]} {line['error']}", err=True)
        else:
            tiles = "1 tile" if line["tiles"] == 1 else f"{line['tiles']} tiles"
            typer.echo(
                f"{line['time'][11:19]} {line['file']}: {tiles}, {line['latency_s']:.1f} s after "
                f"it was complete ({line['seconds']:.1f} s of work): {self.out / line['output']}"
            )

    def _tell_waiting(self, watcher: Watcher, *, all_of_them: bool) -> None:
        """Say once why a file waits; what merely changes is not worth a line."""
        for path, why in watcher.waiting.items():
            if all_of_them or why != "still changing":
                self._tell(path, why)

    def _tell(self, path: Path, why: str) -> None:
        if self._told.get(path) != why:
            self._told[path] = why
            where = "" if str(path) in why else f"{path}: "
            typer.echo(f"waiting: {where}{why}", err=True)


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
