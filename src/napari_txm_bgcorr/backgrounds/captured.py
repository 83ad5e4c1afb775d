"""Captured references: the beam photographed without the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core import (
    SILENT,
    Progress,
    ReferenceMatch,
    Scan,
    log_beam,
    match_references,
    spread_indices,
    to_counts,
)
from napari_txm_bgcorr.errors import MethodError

__all__ = ["COMBINE", "Captured", "Combine", "combine_logs", "flats_of", "tiles_alike", "visits"]

Image = NDArray[np.float32]
Floats = NDArray[np.float64]
Combine = Literal["interpolated", "mean", "median", "levelled-mean", "levelled-median"]
COMBINE: tuple[str, ...] = get_args(Combine)
MAX_LEVELLED = 32  # references of one visit that are brought to one level
BAND_BYTES = 2**28  # of a median's stack
VISIT_GAP = 0.25  # a pause above this share of the longest one begins a new visit,
VISIT_H = 0.1  # if it is longer than this; the beam of TLS BL01B changes by 1.7 % meanwhile


def flats_of(scan: Scan, least: int, method: str) -> int:
    """Number of references; `MethodError` where there are fewer than `least`."""
    count = 0 if scan.flats is None else int(scan.flats.shape[0])
    if count < least:
        raise MethodError(
            f"{scan.source.path}: {count} references, {method} needs {least} or more; "
            "add some with --reference, or choose another method"
        )
    return count


def combine_logs(logs: Image, combine: Literal["median", "mean"]) -> Image:
    """One log background from several `(N, Y, X)`, each first brought to the common level."""
    level = np.median(logs[:, ::4, ::4], axis=(1, 2), keepdims=True)
    aligned = logs - (level - np.median(level))
    if combine == "median":
        out: Image = np.median(aligned, axis=0)
        return out
    mean: Image = np.log(np.exp(aligned - aligned[:1]).mean(axis=0)) + aligned[0]
    return mean


def tiles_alike(match: ReferenceMatch) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Tiles that the same references serve, each brought to their exposure by factors alike.

    Parameters
    ----------
    match : ReferenceMatch

    Returns
    -------
    list of ((K,) int, (M,) int)
        Places of tiles and of references; each tile once.
    """
    used = match.nearest
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    mean = np.where(used, match.log_factor, 0).sum(axis=1, keepdims=True) / count
    relative = np.where(used, match.log_factor - mean, np.inf).round(9)
    _, first, group = np.unique(relative, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    return [(np.flatnonzero(group == k), np.flatnonzero(used[i])) for k, i in enumerate(first)]


@dataclass(frozen=True, eq=False)
class _Beam:
    """References of some tiles, combined.

    Attributes
    ----------
    visits : tuple of (Y, X)
        One image of each visit to the reference position, above the dark: counts as float64
        where there is one, logarithms where there are several.
    hours : (V,) float64 or None
        When; None where time does not count.
    """

    visits: tuple[NDArray[Any], ...]
    hours: Floats | None = None

    def counts(self, hour: float, log_factor: float) -> NDArray[Any]:
        """Counts above the dark at a time, times a factor."""
        if len(self.visits) == 1:
            one: Floats = self.visits[0] * np.exp(log_factor)
            return one
        out = np.full_like(self.visits[0], log_factor)
        for weight, visit in zip(self._weights(hour), self.visits, strict=True):
            if weight:
                out += np.float32(weight) * visit
        return to_counts(out, None)

    def _weights(self, hour: float) -> Floats:
        """Weight of each visit at a time; they sum to 1."""
        count = len(self.visits)
        if self.hours is None or not np.isfinite(hour):
            return np.full(count, 1 / count)
        return np.array([np.interp(hour, self.hours, row) for row in np.eye(count)])


class Captured:
    """References as they were taken.

    Each tile is divided by the references of its photon energy, brought to its exposure (and
    beam monitor, where that was read); without any of its energy by those of the nearest one,
    which is said in a note.

    Parameters
    ----------
    combine : str
        How several references become one. ``mean`` and ``median``: pixel by pixel in counts,
        without regard to time or level, so that the result is
        ``(raw - dark) / (flat - dark)`` as in other programs of the field. ``interpolated``:
        the mean of each visit to the reference position, and between two visits their
        LOGARITHM linearly in time, which follows an exponential decay of the beam exactly;
        before the first and after the last visit that one holds. With one visit, or without
        times, it is the mean. ``levelled-mean`` and ``levelled-median``: the same, but the
        references of a visit come to their common level before, for a source that pulses.

    Raises
    ------
    MethodError
        If `combine` has no such value.
    """

    name, workers = "captured", 1
    knows_drift, follows_shape = True, False  # the joint stage asks about every tile

    def __init__(self, combine: Combine = "interpolated") -> None:
        if combine not in COMBINE:
            raise MethodError(f"combine {combine!r}: choose one of {', '.join(COMBINE)}")
        self.combine = combine
        self._dark: Image | None = None
        self._beams: list[_Beam] = []
        self._beam_of: NDArray[np.intp] = np.empty(0, np.intp)
        self._factors: Floats = np.empty(0)
        self._tile_hours: Floats | None = None
        self._notes: tuple[str, ...] = ()

    def fit(self, scan: Scan, progress: Progress = SILENT) -> Self:
        """Read and combine the references.

        Raises
        ------
        MethodError
            If the scan has none.
        """
        progress.check()
        flats_of(scan, 1, self.name)
        self._dark = scan.dark()
        match = match_references(scan)
        self._notes = match.divided_notes
        timed = _timed(scan) and self.combine not in ("mean", "median")
        self._tile_hours = _hours(np.asarray(scan.times), _start(scan)) if timed else None
        self._beams = []
        self._beam_of = np.zeros(len(scan), np.intp)
        self._factors = np.zeros(len(scan))
        for tiles, flats in tiles_alike(match):
            # Factors are a tile's over a reference's: those of one tile do for all.
            factors = match.log_factor[np.ix_(tiles, flats)]
            own = factors.mean(axis=1)
            self._beam_of[tiles] = len(self._beams)
            self._factors[tiles] = own
            self._beams.append(self._beam(scan, flats, factors[0] - own[0], timed))
        return self

    def with_references(self, scan: Scan) -> Scan:
        """The scan itself: its references are those that are used."""
        return scan

    def _beam(self, scan: Scan, flats: NDArray[np.intp], logs: Floats, timed: bool) -> _Beam:
        """Combine references `flats`, each brought to one exposure by its `logs`."""
        if not timed:
            return _Beam((self._combined(scan, flats, logs),))
        times = np.asarray(scan.flat_times)[flats]
        groups = _visits(times, np.asarray(scan.times))
        hours = _hours(times, _start(scan))
        found = [self._combined(scan, flats[group], logs[group]) for group in groups]
        visits = found if len(found) == 1 else [log_beam(counts, None) for counts in found]
        return _Beam(tuple(visits), np.array([hours[group].mean() for group in groups]))

    def _combined(self, scan: Scan, flats: NDArray[np.intp], logs: Floats) -> Floats:
        """One image of counts above the dark, of one visit or of all."""
        images: Any = scan.flats
        dark = 0.0 if self._dark is None else self._dark.astype(np.float64)

        def above(i: int, rows: slice = slice(None)) -> Floats:
            base = dark if isinstance(dark, float) else dark[rows]
            counts: Floats = np.asarray(images[int(flats[i])])[rows].astype(np.float64) - base
            counts *= np.exp(logs[i])
            return counts

        if self.combine.startswith("levelled"):
            kind: Literal["median", "mean"] = "mean" if self.combine.endswith("mean") else "median"
            chosen = spread_indices(len(flats), MAX_LEVELLED)
            stack = np.stack([log_beam(above(i), None) for i in chosen])
            levelled: Floats = np.exp(combine_logs(stack, kind).astype(np.float64))
            return levelled
        if self.combine == "median":
            return _median(above, len(flats), images.shape[1:])
        total = above(0)
        for i in range(1, len(flats)):
            total += above(i)
        return total / len(flats)

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """References for tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold are taken as its first one without a time.
        """
        if not self._beams:
            raise MethodError("captured: not fitted; call fit(scan) first")
        places: Sequence[int | None] = [None] * len(tiles) if index is None else list(index)
        out = np.empty(tiles.shape, np.float32)
        for k, place in enumerate(places):
            out[k] = self._counts_at(place)
        return out

    def _counts_at(self, place: int | None) -> NDArray[Any]:
        tile = 0 if place is None else int(place)
        hour = np.nan
        if place is not None and self._tile_hours is not None:
            hour = float(self._tile_hours[tile])
        counts = self._beams[self._beam_of[tile]].counts(hour, float(self._factors[tile]))
        if self._dark is not None:
            counts = counts + self._dark
        positive: NDArray[Any] = np.maximum(np.nan_to_num(counts, posinf=0.0), 1e-6)
        return positive

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        count = max((len(beam.visits) for beam in self._beams), default=0)
        found: dict[str, Any] = {"combine": self.combine, "visits": count}
        return found | {"notes": list(self._notes)} if self._notes else found


def _median(read: Any, count: int, shape: tuple[int, int]) -> Floats:
    """Median of `count` images `read(i, rows) -> (rows, X)`, by bands that fit into memory."""
    rows = max(1, BAND_BYTES // (8 * count * shape[1]))
    bands = [slice(y, y + rows) for y in range(0, shape[0], rows)]
    return np.concatenate(
        [np.median(np.stack([read(i, band) for i in range(count)]), axis=0) for band in bands]
    )


def _start(scan: Scan) -> np.datetime64:
    first: np.datetime64 = np.min(np.asarray(scan.flat_times))
    return first


def _timed(scan: Scan) -> bool:
    if scan.times is None or scan.flat_times is None:
        return False
    return not (np.isnat(scan.flat_times).any() or np.isnat(scan.times).all())


def visits(scan: Scan) -> list[NDArray[np.intp]]:
    """References of each visit to the reference position, in order of time.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    list of (n,) int
        Places in the scan's flats; empty where there are none, or no times.
    """
    if scan.flats is None or not _timed(scan):
        return []
    return _visits(np.asarray(scan.flat_times), np.asarray(scan.times))


def _hours(times: NDArray[np.datetime64], start: np.datetime64) -> NDArray[np.float64]:
    """Hours since `start`; NaN where the time is unknown."""
    seconds = (times - start) / np.timedelta64(1, "s")
    out: NDArray[np.float64] = np.asarray(seconds, np.float64) / 3600
    return out


def _visits(
    times: NDArray[np.datetime64], tile_times: NDArray[np.datetime64]
) -> list[NDArray[np.intp]]:
    """Group references into visits: a tile was taken between two visits, or a long time passed."""
    order = np.argsort(times, kind="stable")
    if order.size == 1:
        return [order]
    pauses = np.diff(times[order]) / np.timedelta64(3600, "s")
    tiles = np.sort(tile_times[~np.isnat(tile_times)])
    earlier = np.searchsorted(tiles, times[order[:-1]], side="right")
    between = np.searchsorted(tiles, times[order[1:]]) > earlier
    apart = between | (pauses > max(VISIT_H, VISIT_GAP * pauses.max()))
    return np.split(order, np.flatnonzero(apart) + 1)
