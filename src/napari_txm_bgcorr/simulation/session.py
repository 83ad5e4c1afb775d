"""One simulated instrument on one day: its fixed pattern, its drift, and exposures.

``raw = dark + gain * Poisson(background * transmission / gain) + read noise``, with a
background that keeps its fine pattern and drifts slowly in its smooth shape and level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import ConfigError

from .fine_pattern import fine_pattern
from .illumination import FAMILIES, Family, aperture_mask, smooth_shape
from .illumination_drift import Drift, draw_drift
from .illumination_steep import STEEP, moved
from .random_fields import Floats, coloured, power_law

__all__ = ["SimulatedSession", "draw_session"]

Rng = np.random.Generator
_SATURATION = 65535
_NOISE = (0.005, 0.12)  # limits of a pixel's noise at the session's level


@dataclass(frozen=True, eq=False)
class SimulatedSession:
    """One instrument on one day: everything that stays fixed while tiles are taken.

    Attributes
    ----------
    size : int
        Pixels along the square field.
    family : str
        Name in `FAMILIES`.
    dark : (Y, X) float32, counts
        Image without beam.
    aperture : (Y, X) bool
        True where the beam reaches the detector.
    level : float, counts
        Median of the beam alone at time 0; of a steep illumination its `LIT` percentile.
    gain : float
        Counts per quantum at this pixel size.
    read_noise : float, counts
        Standard deviation of one pixel.
    """

    size: int
    family: str
    dark: Floats
    aperture: NDArray[np.bool_]
    level: float
    gain: float
    read_noise: float
    _log_beam: Floats
    _moving: Floats | None
    _exchange: Floats
    _drift: Drift
    _bad: tuple[NDArray[np.int64], Floats, float]

    def background(self, time: float, *, drift: float = 1.0) -> Floats:
        """Beam alone, without specimen and without the dark pedestal.

        Parameters
        ----------
        time : float, hours
            Since the first image of the session; may be negative or months.
        drift : float
            Factor on all change since time 0; 0 freezes the background.

        Returns
        -------
        (Y, X) float32, counts
        """
        log = self._drift.log_shape(time, self.size) * np.float32(drift)
        log += self._log_beam + np.float32(drift * self._drift.log_level(time))
        if self._moving is not None:
            y, x = self._drift.movement(time)
            log += moved(self._moving, self.size, (drift * y, drift * x))
        swapped = min(drift * self._drift.exchanged(time), 1.0)
        if swapped > 1e-4:
            log += np.float32(swapped) * self._exchange
        return np.asarray(np.exp(log, out=log), np.float32)

    def expose(
        self,
        transmission: NDArray[np.floating],
        time: float,
        rng: Rng,
        *,
        drift: float = 1.0,
    ) -> NDArray[np.uint16]:
        """Raw image of a specimen.

        Parameters
        ----------
        transmission : (Y, X) float
            Of the specimen; ones for a reference image.
        time : float, hours
        rng : numpy.random.Generator
            Source of the noise.
        drift : float
            See `background`.

        Returns
        -------
        (Y, X) uint16, counts
        """
        quanta = self.background(time, drift=drift)
        quanta *= np.asarray(transmission, np.float32)
        quanta *= np.float32(1 / self.gain)
        counts = _poisson(quanta, rng)
        counts *= np.float32(self.gain)
        counts += self.dark
        counts += rng.standard_normal(counts.shape, np.float32) * np.float32(self.read_noise)
        self._spoil(counts, rng)
        np.clip(np.rint(counts, out=counts), 0, _SATURATION, out=counts)
        return counts.astype(np.uint16)

    def _spoil(self, counts: Floats, rng: Rng) -> None:
        """Hot and dead pixels, the same in every image, and some that strike once."""
        fixed, factor, rate = self._bad
        flat = counts.reshape(-1)
        flat[fixed] *= factor
        once = rng.integers(0, flat.size, rng.poisson(rate * flat.size))
        flat[once] *= 1 + rng.exponential(1.0, once.size).astype(np.float32)


def _poisson(mean: Floats, rng: Rng) -> Floats:
    """Poisson numbers: exact below 50, above it a normal number with the right skewness."""
    z = rng.standard_normal(mean.shape, np.float32)
    out = mean + np.sqrt(mean) * z + (z * z - 1) / np.float32(6)  # Cornish-Fisher, first order
    few = mean < 50
    if few.any():
        out[few] = rng.poisson(mean[few])
    return np.asarray(out, np.float32)


def draw_session(rng: Rng, *, size: int = 512, family: str | None = None) -> SimulatedSession:
    """Draw a session: fixed pattern, smooth shape, aperture, drift, camera.

    Parameters
    ----------
    rng : numpy.random.Generator
        Read once; the same state gives the same session, and the same field at every size.
    size : int
        Pixels along the square field.
    family : str or None
        Name in `FAMILIES`; None draws one by weight, never a held-out one.

    Returns
    -------
    Session

    Raises
    ------
    ConfigError
        If the family is unknown or the size is below 16.
    """
    if size < 16:
        raise ConfigError(f"simulate: size {size}: too small; give at least 16 pixels")
    own = np.random.default_rng(int(rng.integers(2**62)))
    name = _draw_family(own) if family is None else family
    if name not in FAMILIES:
        raise ConfigError(f"simulate: family {name!r}: unknown; choose {', '.join(FAMILIES)}")
    return _build(own, size, name, FAMILIES[name])


def _draw_family(rng: Rng) -> str:
    names = [name for name, family in FAMILIES.items() if not family.held_out]
    weights = np.array([FAMILIES[name].weight for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def _build(rng: Rng, size: int, name: str, family: Family) -> SimulatedSession:
    optics, pattern, camera = (np.random.default_rng(int(s)) for s in rng.integers(2**62, size=3))
    raw_level = np.exp(camera.uniform(*np.log(family.level)))
    pedestal = min(np.exp(camera.uniform(*np.log(family.dark))), 0.45 * raw_level)
    beam = raw_level - pedestal
    contrast = np.float32(raw_level / beam)  # domain figures are of raw counts
    smooth = smooth_shape(optics, size, family)
    moving = None
    if len(smooth) > size:  # steep: counted without pedestal, and apart, since it moves
        moving, smooth = smooth, moved(smooth, size, (0.0, 0.0))
        contrast = np.float32(1)
    fine, exchange = fine_pattern(pattern, size, family)
    mask = aperture_mask(optics, size, family)
    log_beam = contrast * fine + np.float32(np.log(beam)) + np.log(np.maximum(mask, 2e-3))
    if moving is None:
        log_beam += contrast * smooth
    gain = float(np.exp(camera.uniform(*np.log(family.gain))))
    gain = min(max(gain, _NOISE[0] ** 2 * beam), _NOISE[1] ** 2 * beam)
    return SimulatedSession(
        size=size,
        family=name,
        dark=_dark(camera, size, float(pedestal)),
        aperture=mask > 0.5,
        level=float(beam),
        gain=gain * (size / 512) ** 2,
        read_noise=min(camera.uniform(3, 20), 0.01 * beam) * size / 512,
        _log_beam=log_beam.astype(np.float32),
        _moving=moving,
        _exchange=(contrast * exchange).astype(np.float32),
        _drift=_draw_drift(optics, smooth * contrast, family),
        _bad=_bad_pixels(camera, size, family),
    )


def _draw_drift(rng: Rng, smooth: Floats, family: Family) -> Drift:
    if family.shape not in STEEP:
        return draw_drift(rng, smooth)
    travel, shake = np.exp(rng.uniform(*np.log(family.travel))), rng.uniform(*family.shake)
    return draw_drift(rng, 0 * smooth, float(travel), float(shake))


def _dark(rng: Rng, size: int, pedestal: float) -> Floats:
    shape = (size, size)
    slow = coloured(int(rng.integers(2**62)), shape, size, power_law(-3.0, 1.0, 20.0))
    return (pedestal * (1 + rng.uniform(0.001, 0.01) * slow)).astype(np.float32)


def _bad_pixels(rng: Rng, size: int, family: Family) -> tuple[NDArray[np.int64], Floats, float]:
    """Positions and factors of the fixed bad pixels, and the rate of single strikes."""
    share = np.exp(rng.uniform(*np.log(family.outliers)))
    coarser = (512 / size) ** 2  # camera pixels averaged into one
    count = int(rng.poisson(0.6 * share * 512**2))
    at = np.unique((rng.random((count, 2)) * size).astype(np.int64), axis=0)
    hot = rng.random(len(at)) < 0.7
    factor = np.where(hot, 1 + rng.exponential(1.0, len(at)), rng.uniform(0, 0.7, len(at)))
    factor = 1 + (factor - 1) / max(coarser, 1.0)
    index = at[:, 0] * size + at[:, 1]
    return index, factor.astype(np.float32), float(0.4 * share)
