"""Captured references: the beam photographed without the sample."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.errors import MethodError
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.shapes import log_beam, spread_indices, to_counts

__all__ = ["Captured", "combine_logs", "flats_of", "visits"]

Image = NDArray[np.float32]
Combine = Literal["median", "mean"]
InTime = Literal["linear", "nearest", "none"]
MAX_FLATS = 32  # of one visit to the reference position
VISIT_GAP = 0.25  # a pause above this share of the longest one begins a new visit


def flats_of(scan: Scan, least: int, method: str) -> int:
    """Number of references; `MethodError` where there are fewer than `least`."""
    count = 0 if scan.flats is None else int(scan.flats.shape[0])
    if count < least:
        raise MethodError(
            f"{scan.source.path}: {count} references, {method} needs {least} or more; "
            "add some with --reference, or choose another method"
        )
    return count


def combine_logs(logs: Image, combine: Combine) -> Image:
    """One log background from several `(N, Y, X)`, each first brought to the common level."""
    level = np.median(logs[:, ::4, ::4], axis=(1, 2), keepdims=True)
    aligned = logs - (level - np.median(level))
    if combine == "median":
        out: Image = np.median(aligned, axis=0)
        return out
    mean: Image = np.log(np.exp(aligned - aligned[:1]).mean(axis=0)) + aligned[0]
    return mean


class Captured:
    """References as they were taken, interpolated in time where times are known.

    References of one visit to the reference position are combined, each brought to their
    common level first. Between two visits the LOGARITHM is interpolated linearly: an
    exponential decay of the beam is then followed exactly. Before the first and after the
    last visit that one holds.

    Parameters
    ----------
    combine : {"median", "mean"}
        Within a visit. The median ignores cosmic rays and specks that moved; the mean of many
        has a fifth less noise.
    in_time : {"linear", "nearest", "none"}
        Between visits. ``none`` combines all references.

    Raises
    ------
    MethodError
        If a parameter has no such value.
    """

    name = "captured"
    knows_drift = True  # from the references: the joint stage asks about every tile

    def __init__(self, combine: Combine = "median", in_time: InTime = "linear") -> None:
        if combine not in get_args(Combine) or in_time not in get_args(InTime):
            raise MethodError(
                f"combine {combine!r}, in_time {in_time!r}: give combine median or mean, "
                "in_time linear, nearest or none"
            )
        self.combine, self.in_time = combine, in_time
        self._dark: Image | None = None
        self._visits: list[Image] = []
        self._hours: NDArray[np.float64] | None = None
        self._tile_hours: NDArray[np.float64] | None = None

    def fit(self, scan: Scan) -> Self:
        """Read and combine the references.

        Raises
        ------
        MethodError
            If the scan has none.
        """
        count = flats_of(scan, 1, self.name)
        self._dark = scan.dark()
        groups = visits(scan) if self.in_time != "none" else []
        self._hours = self._tile_hours = None
        if not groups:
            groups = [np.arange(count)]
        else:
            start = np.min(np.asarray(scan.flat_times))
            seen = [_hours(np.asarray(scan.flat_times)[g], start).mean() for g in groups]
            self._hours = np.asarray(seen)
            self._tile_hours = _hours(np.asarray(scan.times), start)
        self._visits = [self._visit(scan, group) for group in groups]
        return self

    def _visit(self, scan: Scan, group: NDArray[np.intp]) -> Image:
        flats: Any = scan.flats
        chosen = [int(group[k]) for k in spread_indices(len(group), MAX_FLATS)]
        return combine_logs(np.stack([log_beam(flats[i], self._dark) for i in chosen]),
                            self.combine)  # fmt: skip

    def background(
        self, tiles: NDArray[Any], index: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """References for tiles `(N, Y, X)` in counts; see `BackgroundMethod`.

        Tiles that the scan does not hold, or holds without a time, get the mean of all visits.
        """
        if not self._visits:
            raise MethodError("captured: not fitted; call fit(scan) first")
        places = [None] * len(tiles) if index is None else [int(i) for i in index]
        out = np.empty(tiles.shape, np.float32)
        for k, place in enumerate(places):
            out[k] = to_counts(self._log_at(place), self._dark)
        return out

    def _log_at(self, place: int | None) -> Image:
        hour = np.nan
        if place is not None and self._tile_hours is not None:
            hour = self._tile_hours[place]
        weights = _weights(self._hours, float(hour), len(self._visits), self.in_time)
        out = np.zeros_like(self._visits[0])
        for weight, visit in zip(weights, self._visits, strict=True):
            if weight:
                out += np.float32(weight) * visit
        return out

    def describe(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"combine": self.combine, "in_time": self.in_time, "visits": len(self._visits)}


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
    return _visits(np.asarray(scan.flat_times)) if scan.flats is not None and _timed(scan) else []


def _hours(times: NDArray[np.datetime64], start: np.datetime64) -> NDArray[np.float64]:
    """Hours since `start`; NaN where the time is unknown."""
    seconds = (times - start) / np.timedelta64(1, "s")
    out: NDArray[np.float64] = np.asarray(seconds, np.float64) / 3600
    return out


def _visits(times: NDArray[np.datetime64]) -> list[NDArray[np.intp]]:
    """Group references into visits: pauses between visits are long against those within."""
    order = np.argsort(times, kind="stable")
    if order.size == 1:
        return [order]
    pauses = np.diff(times[order]) / np.timedelta64(1, "s")
    longest = float(pauses.max())
    if longest == 0:
        return [order]
    return np.split(order, np.flatnonzero(pauses > VISIT_GAP * longest) + 1)


def _weights(
    hours: NDArray[np.float64] | None, hour: float, count: int, in_time: InTime
) -> NDArray[np.float64]:
    """Weight of each visit at a time; they sum to 1."""
    if hours is None or not np.isfinite(hour):
        return np.full(count, 1 / count)
    if in_time == "nearest":
        nearest: NDArray[np.float64] = np.eye(count)[int(np.argmin(np.abs(hours - hour)))]
        return nearest
    return np.array([np.interp(hour, hours, row) for row in np.eye(count)])
