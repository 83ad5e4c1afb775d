"""References of a scan as one bundle: images of the beam and how each was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .scan import Scan
from .tile_array import LazyTiles, TileArray

__all__ = [
    "References",
    "concatenated",
    "first_and_each",
    "joined_facts",
    "joined_times",
    "one_or_each",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class References:
    """Images of the beam without sample, and how each was taken.

    Attributes
    ----------
    images : (N, Y, X) array-like, counts
    times : (N,) datetime64[s] or None
    energies_ev, exposures_s, monitor : (N,) float64 or None
        As `Scan.flat_energies_ev` and so on.
    """

    images: TileArray
    times: NDArray[np.datetime64] | None = None
    energies_ev: Floats | None = None
    exposures_s: Floats | None = None
    monitor: Floats | None = None

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @classmethod
    def of(cls, scan: Scan) -> Self | None:
        """References that a scan has, or None."""
        if scan.flats is None or scan.flats.shape[0] == 0:
            return None
        return cls(
            scan.flats,
            scan.flat_times,
            scan.flat_energies_ev,
            scan.flat_exposures_s,
            scan.flat_monitor,
        )

    @classmethod
    def of_tiles(cls, scan: Scan) -> Self:
        """Tiles of a scan, taken for references."""
        count = len(scan)
        return cls(
            scan.tiles,
            scan.times,
            one_or_each(scan.energies_ev, scan.energy_ev, count),
            one_or_each(scan.exposures_s, scan.exposure_s, count),
            scan.monitor,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several bundles of one image size, one after another.

        Parameters
        ----------
        parts : sequence of References
            At least one.
        """
        counts = [len(part) for part in parts]
        return cls(
            concatenated([part.images for part in parts]),
            joined_times([part.times for part in parts]),
            joined_facts([part.energies_ev for part in parts], counts),
            joined_facts([part.exposures_s for part in parts], counts),
            joined_facts([part.monitor for part in parts], counts),
        )

    def attach(self, scan: Scan) -> Scan:
        """Put these in place of the references that a scan has."""
        return replace(
            scan,
            flats=self.images,
            flat_times=self.times,
            flat_energies_ev=self.energies_ev,
            flat_exposures_s=self.exposures_s,
            flat_monitor=self.monitor,
        )

    def chosen(self, index: NDArray[np.intp]) -> Self:
        """References `index` `(K,)`, in that order."""
        images, (_, y, x) = self.images, self.images.shape

        def part(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else values[index]

        return replace(
            self,
            images=LazyTiles(
                (len(index), y, x), images.dtype, lambda i: np.asarray(images[int(index[i])])
            ),
            times=part(self.times),
            energies_ev=part(self.energies_ev),
            exposures_s=part(self.exposures_s),
            monitor=part(self.monitor),
        )


def concatenated(stacks: Sequence[TileArray]) -> TileArray:
    """Several stacks `(N, Y, X)` of one image size as one lazy stack, values unchanged.

    Parameters
    ----------
    stacks : sequence of (N, Y, X) array-like
        At least one.

    Returns
    -------
    (sum of N, Y, X) array-like
    """
    if len(stacks) == 1:
        return stacks[0]
    places = [(stack, k) for stack in stacks for k in range(stack.shape[0])]
    _, y, x = stacks[0].shape
    dtype = np.result_type(*(stack.dtype for stack in stacks))

    def read_one(i: int) -> NDArray[Any]:
        stack, k = places[i]
        return np.asarray(stack[k])

    return LazyTiles((len(places), y, x), dtype, read_one)


def joined_times(times: Sequence[NDArray[np.datetime64] | None]) -> NDArray[np.datetime64] | None:
    """Times of several stacks one after another, or None unless all are known."""
    known = [t for t in times if t is not None]
    return np.concatenate(known) if known and len(known) == len(times) else None


def joined_facts(values: Sequence[Floats | None], counts: Sequence[int]) -> Floats | None:
    """Facts of several stacks one after another, NaN where unknown; None where all are.

    Parameters
    ----------
    values : sequence of (N,) float64 or None
    counts : sequence of int
        Images of each stack.
    """
    parts = [
        np.full(count, np.nan) if one is None else np.asarray(one, np.float64)
        for one, count in zip(values, counts, strict=True)
    ]
    whole = np.concatenate(parts) if parts else np.empty(0)
    return whole if np.isfinite(whole).any() else None


def one_or_each(each: Floats | None, one: float | None, count: int) -> Floats | None:
    """Fact of every image `(count,)` from that of each, or of all; None where unknown."""
    if each is not None:
        return each
    return None if one is None else np.full(count, float(one))


def first_and_each(
    values: Sequence[float | None] | NDArray[np.float64],
) -> tuple[float | None, NDArray[np.float64] | None]:
    """Fact of the first image, and that of each where they differ.

    Parameters
    ----------
    values : sequence of float or None
        One an image; None, NaN, 0 and below are unknown.

    Returns
    -------
    first : float or None
        Of the first image that has one.
    each : (T,) float64 or None
        None where all that are known agree.
    """
    with np.errstate(invalid="ignore"):
        known = np.array([np.nan if v is None else v for v in values], np.float64)
        known[~(np.isfinite(known) & (known > 0))] = np.nan
    found = known[np.isfinite(known)]
    if not found.size:
        return None, None
    return float(found[0]), None if (found == found[0]).all() else known
