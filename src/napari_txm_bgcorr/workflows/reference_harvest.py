"""Gather the references of an archive into a library; see `io.reference_library`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import References, same_energy
from napari_txm_bgcorr.errors import ReadError
from napari_txm_bgcorr.io import Library, Line, reading
from napari_txm_bgcorr.io.readers import read
from napari_txm_bgcorr.quality import fault_of, sample_score, thumbnail

__all__ = ["PATTERN", "Harvest", "HarvestOptions", "harvest"]

PATTERN = "**/ref*.xrm"
SAMPLE = 0.04  # score from which an image is taken to carry a sample
NEIGHBOURS = 8  # references nearest in time that an image is compared with
NEAR_DAYS = 60.0  # apart at most
AHEAD = 3  # files read ahead by each thread
_DAY = re.compile(r"(?P<year>(?:19|20)\d\d)[/\\](?P<month>\d{1,2})[/\\](?P<day>\d{1,2})[/\\]")


@dataclass(frozen=True)
class HarvestOptions:
    """Options to find and judge files.

    Attributes
    ----------
    pattern : str
        Glob below the root, any case; ``**`` is any number of folders.
    least_level : float
        Counts that the median of a reference must reach.
    sample : float
        Score (`quality.reference_checks.sample_score`) from which an image carries a sample.
    workers : int
        Threads that read.
    """

    pattern: str = PATTERN
    least_level: float = 100.0
    sample: float = SAMPLE
    workers: int = 4


@dataclass
class Harvest:
    """Result of a search for references.

    Attributes
    ----------
    library : Library
    kept : int
    dropped : Counter
        Number of images (and unreadable files) by reason.
    unchecked : int
        Images kept without another one of their energy, near in time, to compare with.
    """

    library: Library
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    unchecked: int = 0


def harvest(
    root: Path,
    out: Path,
    options: HarvestOptions,
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Harvest:
    """Read every reference of an archive; keep the good ones in a library.

    Files that the library has seen already are passed over, so an interrupted harvest goes on
    and a later one adds what is new. One image a thread is in memory, and a thumbnail of each.

    Parameters
    ----------
    root : Path
        Of the archive.
    out : Path
        The library's folder.
    options : HarvestOptions
    overwrite : bool
        Replace a library that is there.
    tell : callable
        Called with a sentence for each file or image left out.
    progress : callable
        Called with files looked at and their total.

    Raises
    ------
    ReadError
        If the root is no folder or holds no such file.
    WriteError
        If the library cannot be written.
    """
    files = _find(root, options.pattern)
    settings = {"least_level": options.least_level, "sample": options.sample}
    library = Library.begin(out, settings, overwrite=overwrite)
    seen = set(library.done())
    todo = [stamp for stamp in map(_stamp, files) if stamp not in seen]
    known = {line["sha256"]: line["name"] for line in library.lines if "sha256" in line}
    thumbs: dict[str, NDArray[np.float32]] = {}
    passed = len(files) - len(todo)
    for number, (stamp, found) in enumerate(_read_all(root, todo, options), passed + 1):
        for line, image in found:
            _sort(library, line, image, known, thumbs, tell)
        library.note(dict(zip(("file", "bytes", "changed_ns"), stamp, strict=True)))
        progress(number, len(files))
    result = Harvest(library)
    result.unchecked = _drop_samples(library, thumbs, options.sample, tell)
    library.finish()
    result.kept = len(library.images())
    reasons = (line["why"].split(":")[0] for line in library.lines if "why" in line)
    result.dropped = Counter(reasons)
    return result


def _find(root: Path, pattern: str) -> list[Path]:
    """Files below the root that match, in order of their names."""
    if not root.is_dir():
        raise ReadError(f"{root}: no such folder; give the root of the archive")
    try:
        files = sorted(path for path in root.glob(_any_case(pattern)) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise ReadError(f"--pattern {pattern}: {error}; give one like {PATTERN}") from error
    if not files:
        raise ReadError(f"{root}: no file matches {pattern}; pass another --pattern")
    return files


def _any_case(pattern: str) -> str:
    """Glob that matches letters of either case; what stands in brackets is left alone."""
    parts = re.split(r"(\[[^\]]*\])", pattern)
    return "".join(
        part if part.startswith("[") else re.sub(r"[A-Za-z]", _both_cases, part) for part in parts
    )


def _both_cases(letter: re.Match[str]) -> str:
    return f"[{letter[0].lower()}{letter[0].upper()}]"


def _stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change, by which a file is known again."""
    try:
        status = path.stat()
    except OSError:
        return str(path), -1, 0
    return str(path), status.st_size, status.st_mtime_ns


Found = list[tuple[Line, NDArray[Any] | None]]
Stamp = tuple[str, int, int]


def _read_all(
    root: Path, todo: Iterable[Stamp], options: HarvestOptions
) -> Iterator[tuple[Stamp, Found]]:
    """Images of each file in order, read ahead by threads."""
    waiting: deque[tuple[Stamp, Any]] = deque()
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for stamp in todo:
                waiting.append((stamp, pool.submit(_examine, Path(stamp[0]), root, options)))
                if len(waiting) >= AHEAD * options.workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _examine(path: Path, root: Path, options: HarvestOptions) -> Found:
    """Lines of a file's images; with the image where nothing is wrong with it."""
    name = path.relative_to(root).as_posix()  # a library may be read on another system
    try:
        scan = read(path)
        itself = scan.source.format == "xradia" and scan.kind == "single"
        own = None if itself else References.of(scan)
        taken = References.of_tiles(scan) if own is None else own
        found: Found = []
        for k in range(len(taken)):
            with reading(path, f"image {k + 1}"):
                image = np.asarray(taken.images[k])
            line: Line = {
                "name": name if len(taken) == 1 else f"{name}#{k + 1}",
                "date": _date(path, None if taken.times is None else taken.times[k]),
                "exposure_s": _known(taken.exposures_s, k),
                "binning": scan.binning,
                "energy_ev": _known(taken.energies_ev, k),
                "pixel_nm": scan.pixel_nm,
            }
            fault = fault_of(image, options.least_level)
            if fault is not None:
                found.append((line | {"why": fault}, None))
                continue
            digest = hashlib.sha256(np.ascontiguousarray(image).data)
            digest.update(f"{image.shape}{image.dtype}".encode())
            found.append((line | {"sha256": digest.hexdigest()}, image))
    except ReadError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return [({"name": name, "why": f"unreadable: {reason}"}, None)]
    return found


def _known(values: NDArray[np.float64] | None, k: int) -> float | None:
    return float(values[k]) if values is not None and np.isfinite(values[k]) else None


def _date(path: Path, time: np.datetime64 | None) -> str | None:
    """Time in the file, else the day that the folders ``year/month/day`` tell."""
    if time is not None:
        return str(time.astype("datetime64[s]"))
    day = _DAY.search(str(path))
    if day is None:
        return None
    try:
        text = f"{day['year']}-{int(day['month']):02d}-{int(day['day']):02d}"
        return str(np.datetime64(text, "s"))
    except ValueError:
        return None


def _sort(
    library: Library,
    line: Line,
    image: NDArray[Any] | None,
    known: dict[str, str],
    thumbs: dict[str, NDArray[np.float32]],
    tell: Callable[[str], None],
) -> None:
    """Keep an image, or say why not."""
    twin = known.get(line.get("sha256", ""))
    if twin is not None and image is not None and twin != line["name"]:
        line = {k: v for k, v in line.items() if k != "sha256"} | {"why": f"duplicate: of {twin}"}
        image = None
    if image is None:
        library.note(line)
        tell(f"{line['name']}: left out, {line['why']}")
        return
    if twin is not None:
        return  # the same image of a file that was cut off or touched in between
    known[line["sha256"]] = line["name"]
    thumbs[line["name"]] = thumbnail(image)
    library.add(image, line)


def _drop_samples(
    library: Library,
    thumbs: dict[str, NDArray[np.float32]],
    limit: float,
    tell: Callable[[str], None],
) -> int:
    """Drop images that others show to carry a sample; return how many had none to compare with."""
    groups: dict[str, list[Line]] = {}
    for line in library.images():
        groups.setdefault(line["array"], []).append(line)
    unchecked = 0
    for lines in groups.values():
        lines.sort(key=lambda line: (line["date"] or "", line["name"]))
        for line in lines:
            if line["name"] not in thumbs:  # of an earlier run
                thumbs[line["name"]] = thumbnail(library.read(line))
        group = _Group(lines, [thumbs[line["name"]] for line in lines])
        for line, score in group.samples(limit):
            why = f"sample: dimmed by {100 * score:.1f} % rms against references near in time"
            library.note({"drop": line["name"], "why": why})
            tell(f"{line['name']}: left out, {why}")
        unchecked += group.unchecked()
    return unchecked


class _Group:
    """Images of one size, in order of time, held against those of their energy and binning.

    Parameters
    ----------
    lines : list of mapping
    thumbs : list of (Y, X) float32
    """

    def __init__(self, lines: list[Line], thumbs: list[NDArray[np.float32]]) -> None:
        self.lines, self.thumbs = lines, thumbs
        self.days = np.array([_days(line) for line in lines])
        self.energy_ev = np.array([line["energy_ev"] or np.nan for line in lines], np.float64)
        self.binning = np.array([line["binning"] or 0 for line in lines])
        self.there = np.ones(len(lines), bool)

    def samples(self, limit: float) -> Iterator[tuple[Line, float]]:
        """Drop the image that scores most above `limit`, again and again, until none does.

        One by one, as images with a sample spoil the comparison for the good ones.
        """
        near = [self._nearest(k) for k in range(len(self.lines))]
        scores = np.array([self._score(k, near[k]) for k in range(len(self.lines))])
        while scores.max(initial=0.0) > limit:
            worst = int(np.argmax(scores))
            yield self.lines[worst], float(scores[worst])
            self.there[worst], scores[worst] = False, 0.0
            for k in np.flatnonzero(self.there):
                if worst in near[k]:
                    near[k] = self._nearest(int(k))
                    scores[k] = self._score(int(k), near[k])

    def unchecked(self) -> int:
        """Number of images without another one to compare with."""
        return sum(not len(self._nearest(int(k))) for k in np.flatnonzero(self.there))

    def _score(self, k: int, near: list[int]) -> float:
        return sample_score(self.thumbs[k], [self.thumbs[n] for n in near]) if near else 0.0

    def _nearest(self, k: int) -> list[int]:
        """Up to `NEIGHBOURS` others like image `k`, nearest in time, within `NEAR_DAYS`."""
        apart = np.abs(self.days - self.days[k])
        alike = same_energy(self.energy_ev, self.energy_ev[k]) & self.there
        alike &= (self.binning == self.binning[k]) | (self.binning == 0) | (self.binning[k] == 0)
        alike[k] = False
        others = np.flatnonzero(alike & (apart <= NEAR_DAYS))
        return [int(n) for n in others[np.argsort(apart[others], kind="stable")][:NEIGHBOURS]]


def _days(line: Line) -> float:
    """Days since an epoch; all that are without a date count as of one day."""
    date = line["date"]
    return float(np.datetime64(date, "s").astype(np.int64)) / 86400 if date else 0.0
