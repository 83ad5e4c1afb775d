"""Match references to images by photon energy, exposure, beam monitor and time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .references import References, one_or_each
from .scan import Scan
from .tile_array import LazyTiles

__all__ = [
    "ENERGY_TOLERANCE",
    "ReferenceMatch",
    "match_references",
    "same_energy",
    "with_matching_references",
]

ENERGY_TOLERANCE = 1.3e-4  # of the photon energy
"""Relative difference of photon energies that counts as none.

The bandwidth of a Si(111) monochromator, which all these instruments have: within it both
images were taken with the same beam. It is 1.04 to 1.43 eV at TLS BL01B (8 to 11 keV), 1.09 eV
at APS 8-BM (8353 eV) and 1.08 eV at an SSRL-type instrument (8324 eV). Stored energies stray
from the nominal ones by less (0.03 to 0.06 eV at APS 8-BM), and 103 eV there change the shape of
the beam by 26 to 30 %, so that what is tolerated amounts to 0.3 %.
"""

SAME_EV = 1.0  # apart: references of another energy that stand for a tile together
SAID_EXPOSURE = 0.02  # relative difference from which it is said
SAID_MONITOR = 0.005
MONITOR_RANGE = 3.0  # a greater ratio compares two different monitors

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReferenceMatch:
    """Fit of each reference to each tile of a scan.

    Attributes
    ----------
    shape_usable : (T, N) bool
        Equal photon energy, or unknown on either side: the reference has the tile's beam.
    log_factor : (T, N) float64
        What to add to the logarithm of a reference, dark removed, to bring it to the tile's
        exposure and beam monitor; 0 where they are unknown.
    level_known : (T, N) bool
        Usable, and both exposures known: the level of the reference is the tile's, too.
    hours : (T, N) float64
        Age of the reference: time of the tile less that of the reference; NaN where unknown.
    energy_gap_ev : (T, N) float64
        Absolute difference of photon energies; NaN where unknown.
    notes : tuple of str
        Sentences for the user.
    divided_notes : tuple of str
        The same for methods that divide by `nearest`.
    """

    shape_usable: Mask
    log_factor: Floats
    level_known: Mask
    hours: Floats
    energy_gap_ev: Floats
    notes: tuple[str, ...] = ()
    divided_notes: tuple[str, ...] = ()

    @property
    def missed(self) -> bool:
        """True if some reference fits no tile, or some tile has none."""
        apart = ~self.shape_usable
        return bool(apart.size) and bool(apart.all(axis=0).any() or apart.all(axis=1).any())

    @property
    def nearest(self) -> Mask:
        """Usable references `(T, N)` of each tile, else those of the nearest energy.

        For methods that divide by references because they were told to.
        """
        gap = np.where(self.shape_usable, 0.0, self.energy_gap_ev)
        if not gap.size:
            return self.shape_usable
        near: Mask = gap <= gap.min(axis=1, keepdims=True) + SAME_EV
        return np.where(self.shape_usable.any(axis=1, keepdims=True), self.shape_usable, near)


def same_energy(one: Floats, other: Floats) -> Mask:
    """Tell where photon energies (eV) agree within `ENERGY_TOLERANCE`, or one is unknown.

    Parameters
    ----------
    one, other : array-like of float64, eV
        NaN where unknown; they broadcast.
    """
    with np.errstate(invalid="ignore"):
        apart: Mask = np.abs(one - other) > ENERGY_TOLERANCE * np.maximum(one, other)
    return ~apart


def match_references(scan: Scan, *, levels: bool = True) -> ReferenceMatch:
    """Match the references of a scan to each of its tiles.

    Size and binning agree already: `Scan` refuses others.

    Parameters
    ----------
    scan : Scan
        With references or without.
    levels : bool
        False: exposure and beam monitor are not looked at; for methods that find levels
        themselves.

    Returns
    -------
    ReferenceMatch
    """
    tiles, flats = _Taken.tiles(scan), _Taken.flats(scan)
    usable = same_energy(tiles.energy_ev[:, None], flats.energy_ev[None])
    exposure = _log_ratio(tiles.exposure_s, flats.exposure_s)
    monitor = _log_ratio(tiles.monitor, flats.monitor)
    with np.errstate(invalid="ignore"):
        monitor[np.abs(monitor) > np.log(MONITOR_RANGE)] = np.nan
    if not levels:
        exposure, monitor = (np.full_like(logs, np.nan) for logs in (exposure, monitor))
    found = ReferenceMatch(
        shape_usable=usable,
        log_factor=np.nan_to_num(exposure) + np.nan_to_num(monitor),
        level_known=usable & np.isfinite(exposure),
        hours=tiles.hours[:, None] - flats.hours[None],
        energy_gap_ev=np.abs(tiles.energy_ev[:, None] - flats.energy_ev[None]),
    )
    no_dark = scan.darks is None

    def scaled(used: Mask) -> list[str]:
        return [
            *_exposure_notes(np.where(used, exposure, np.nan), tiles, flats, no_dark),
            *_monitor_notes(np.where(used, monitor, np.nan)),
        ]

    energy, apart = _energy_notes(usable, tiles, flats), _divided_notes(found, tiles, flats)
    return replace(
        found,
        notes=(*energy, *scaled(usable)),
        divided_notes=(*(apart or energy), *scaled(found.nearest)),
    )


def with_matching_references(scan: Scan) -> Scan:
    """Leave to a scan the references that some tile can use, at the exposure of its tiles.

    For methods that take references as they are. Tiles of several exposures: references come
    to the median.

    Parameters
    ----------
    scan : Scan

    Returns
    -------
    Scan
        The same one where nothing is to be done.
    """
    given = References.of(scan)
    if given is None:
        return scan
    match = match_references(scan)
    index = np.flatnonzero(match.shape_usable.any(axis=0))
    if not len(index):
        return replace(
            scan, flats=None, flat_times=None, flat_energies_ev=None, flat_exposures_s=None,
            flat_monitor=None,
        )  # fmt: skip
    factors = np.exp(np.median(match.log_factor[:, index], axis=0))
    if len(index) == len(given) and (factors == 1).all():
        return scan
    return _scaled(scan, given.chosen(index), factors).attach(scan)


def _scaled(scan: Scan, references: References, factors: Floats) -> References:
    """References whose counts above the dark are multiplied by factors `(N,)`."""
    if (factors == 1).all():
        return references
    images, dark = references.images, scan.dark()

    def read(i: int) -> NDArray[np.float32]:
        counts = np.asarray(images[i], np.float64)
        base = 0.0 if dark is None else dark
        out: NDArray[np.float32] = (base + factors[i] * (counts - base)).astype(np.float32)
        return out

    def at_tiles(of_tiles: Floats | None, own: Floats | None) -> Floats | None:
        if of_tiles is None or own is None:
            return own
        known = of_tiles[np.isfinite(of_tiles)]
        return np.where(np.isfinite(own), np.median(known), own) if known.size else own

    count, y, x = images.shape
    exposures = one_or_each(scan.exposures_s, scan.exposure_s, len(scan))
    return replace(
        references,
        images=LazyTiles((count, y, x), np.float32, read),
        exposures_s=at_tiles(exposures, references.exposures_s),
        monitor=at_tiles(scan.monitor, references.monitor),
    )


@dataclass(frozen=True, eq=False)
class _Taken:
    """Acquisition of images: `(K,)` float64 each, NaN where unknown."""

    energy_ev: Floats
    exposure_s: Floats
    monitor: Floats
    hours: Floats

    @classmethod
    def tiles(cls, scan: Scan) -> _Taken:
        count = len(scan)
        return cls(
            _known(one_or_each(scan.energies_ev, scan.energy_ev, count), count),
            _known(one_or_each(scan.exposures_s, scan.exposure_s, count), count),
            _known(scan.monitor, count),
            _hours(scan.times, count),
        )

    @classmethod
    def flats(cls, scan: Scan) -> _Taken:
        count = 0 if scan.flats is None else int(scan.flats.shape[0])
        return cls(
            _known(scan.flat_energies_ev, count),
            _known(scan.flat_exposures_s, count),
            _known(scan.flat_monitor, count),
            _hours(scan.flat_times, count),
        )


def _known(values: Floats | None, count: int) -> Floats:
    """Positive values; NaN in place of others."""
    if values is None or len(values) != count:
        return np.full(count, np.nan)
    with np.errstate(invalid="ignore"):
        out: Floats = np.where(values > 0, values, np.nan)
    return out


def _hours(times: NDArray[np.datetime64] | None, count: int) -> Floats:
    """Hours since 1970; NaN where unknown."""
    if times is None or len(times) != count:
        return np.full(count, np.nan)
    start = np.datetime64(0, "s")
    out: Floats = (times - start) / np.timedelta64(3600, "s")
    return out


def _log_ratio(tiles: Floats, flats: Floats) -> Floats:
    out: Floats = np.log(tiles)[:, None] - np.log(flats)[None]
    return out


def _energy_notes(usable: Mask, tiles: _Taken, flats: _Taken) -> list[str]:
    """Tell which references no tile can use, and of which tiles no reference has the energy."""
    count, images = usable.shape[1], usable.shape[0]
    if not count or usable.all():
        return []
    unused, alone = ~usable.any(axis=0), ~usable.any(axis=1)
    notes = []
    if number := int(unused.sum()):
        which = _some(number, count, "reference")
        whose = "its shape is" if number == 1 else "their shape is"
        at, theirs = _span(flats.energy_ev[unused], "eV"), _span(tiles.energy_ev, "eV")
        what = "the image" if images == 1 else "the images"
        notes.append(f"{which} taken at {at}, {what} at {theirs}: {whose} not used")
    if 0 < (number := int(alone.sum())) < images:
        at = _span(tiles.energy_ev[alone], "eV")
        notes.append(f"{_some(number, images, 'image')} taken at {at}, where no reference was")
    energies = np.unique(np.round(flats.energy_ev[~unused & np.isfinite(flats.energy_ev)]))
    if energies.size > 1:
        notes.append(f"references of {energies.size} energies are shared out to their images")
    return notes


def _divided_notes(match: ReferenceMatch, tiles: _Taken, flats: _Taken) -> list[str]:
    """Tell which tiles are divided by references of another energy."""
    alone: Mask = np.logical_not(match.shape_usable.any(axis=1))
    if not alone.any() or not match.shape_usable.size:
        return []
    ours = _span(tiles.energy_ev[alone], "eV")
    theirs = _span(flats.energy_ev[match.nearest[alone].any(axis=0)], "eV")
    which = _some(int(alone.sum()), len(alone), "image")
    return [
        f"{which} taken at {ours} and divided by references of {theirs}, where the beam has "
        f"another shape: take references at {ours}"
    ]


def _exposure_notes(logs: Floats, tiles: _Taken, flats: _Taken, no_dark: bool) -> list[str]:
    """Tell which references are scaled to another exposure."""
    with np.errstate(invalid="ignore"):
        differ = np.abs(logs) > np.log1p(SAID_EXPOSURE)
    if not differ.any():
        return []
    theirs = _span(flats.exposure_s[differ.any(axis=0)], "s")
    ours = _span(tiles.exposure_s[differ.any(axis=1)], "s")
    word = "image's" if len(tiles.exposure_s) == 1 else "images'"
    note = f"references of {theirs} scaled to the {word} {ours}"
    if " to " in ours:
        note = f"references of {theirs} scaled to the exposure of each image, {ours}"
    return [note + ("; give darks if the camera adds an offset" * no_dark)]


def _monitor_notes(logs: Floats) -> list[str]:
    """Tell how far the beam monitor moved the references."""
    known = logs[np.isfinite(logs)]
    if not known.size or np.abs(known).max() < SAID_MONITOR:
        return []
    low, high = (100 * np.expm1(value) for value in (known.min(), known.max()))
    span = f"{low:+.1f} %" if round(low, 1) == round(high, 1) else f"{low:+.1f} to {high:+.1f} %"
    return [f"references scaled by {span}, as the beam monitor tells"]


def _some(number: int, count: int, noun: str) -> str:
    """``the reference was``, ``all 3 references were``, ``1 of 3 references was``."""
    if count == 1:
        return f"the {noun} was"
    verb = "was" if number == 1 else "were"
    if number == count:
        return f"{'both' if count == 2 else f'all {count}'} {noun}s were"
    return f"{number} of {count} {noun}s {verb}"


def _span(values: Floats, unit: str) -> str:
    """``8353 eV`` or ``8250 to 8353.1 eV``; ``35 s``."""
    known = values[np.isfinite(values)].round(1 if unit == "eV" else 4)
    low, high = (f"{value:.6g}" for value in (known.min(), known.max()))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
