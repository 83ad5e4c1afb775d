"""Gather the references of an archive into a library; see `io.library`."""

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

from napari_txm_bgcorr.core.errors import ReadError
from napari_txm_bgcorr.core.reference_checks import fault_of, sample_score, thumbnail
from napari_txm_bgcorr.io.dispatch import read
from napari_txm_bgcorr.io.guard import reading
from napari_txm_bgcorr.io.library import Library, Line

__all__ = ["PATTERN", "Harvest", "HarvestOptions", "harvest"]

PATTERN = "**/ref*.xrm"
SAMPLE = 0.04  # score from which an image is taken to carry a sample
NEIGHBOURS = 8  # references nearest in time that an image is compared with
NEAR_DAYS = 60.0  # apart at most
AHEAD = 3  # files read ahead by each thread
_DAY = re.compile(r"(?P<year>(?:19|20)\d\d)[/\\](?P<month>\d{1,2})[/\\](?P<day>\d{1,2})[/\\]")


@dataclass(frozen=True)
class HarvestOptions:
    """How files are found and judged.

    Attributes
    ----------
    pattern : str
        Glob below the root, any case; ``**`` is any number of folders.
    least_level : float
        Counts that the median of a reference must reach.
    sample : float
        Score (`core.reference_checks.sample_score`) from which an image carries a sample.
    workers : int
        Threads that read.
    """

    pattern: str = PATTERN
    least_level: float = 100.0
    sample: float = SAMPLE
    workers: int = 4


@dataclass
class Harvest:
    """What was found.

    Attributes
    ----------
    library : Library
    kept : int
    dropped : Counter
        Number of images (and unreadable files) by reason.
    unchecked : int
        Images kept without another one near in time to compare with.
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
        itself = scan.flats is None or (scan.source.format == "xradia" and scan.kind == "single")
        images = scan.tiles if itself or scan.flats is None else scan.flats
        times = scan.times if itself else scan.flat_times
        found: Found = []
        for k in range(images.shape[0]):
            with reading(path, f"image {k + 1}"):
                image = np.asarray(images[k])
            line: Line = {
                "name": name if images.shape[0] == 1 else f"{name}#{k + 1}",
                "date": _date(path, None if times is None else times[k]),
                "exposure_s": scan.exposure_s,
                "binning": scan.binning,
                "energy_ev": scan.energy_ev,
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
    """Drop images that others near in time show to carry a sample; return how many had none."""
    groups: dict[str, list[Line]] = {}
    for line in library.images():
        groups.setdefault(line["array"], []).append(line)
    unchecked, found = 0, []
    for lines in groups.values():
        lines.sort(key=lambda line: (line["date"] or "", line["name"]))
        for line in lines:
            if line["name"] not in thumbs:  # of an earlier run
                thumbs[line["name"]] = thumbnail(library.read(line))
        days = np.array([_days(line) for line in lines])
        for k, line in enumerate(lines):
            near = _nearest(days, k)
            if not near:
                unchecked += 1
                continue
            score = sample_score(thumbs[line["name"]], [thumbs[lines[n]["name"]] for n in near])
            if score > limit:
                found.append((line["name"], score))
    for name, score in found:
        why = f"sample: dimmed by {100 * score:.1f} % rms against references near in time"
        library.note({"drop": name, "why": why})
        tell(f"{name}: left out, {why}")
    return unchecked


def _days(line: Line) -> float:
    """Days since an epoch; all that are without a date count as of one day."""
    date = line["date"]
    return float(np.datetime64(date, "s").astype(np.int64)) / 86400 if date else 0.0


def _nearest(days: NDArray[np.float64], k: int) -> list[int]:
    """Up to `NEIGHBOURS` others nearest in time, of a sorted list, within `NEAR_DAYS`."""
    low, high = max(0, k - NEIGHBOURS), min(len(days), k + NEIGHBOURS + 1)
    others = [n for n in range(low, high) if n != k and abs(days[n] - days[k]) <= NEAR_DAYS]
    return sorted(others, key=lambda n: abs(days[n] - days[k]))[:NEIGHBOURS]
