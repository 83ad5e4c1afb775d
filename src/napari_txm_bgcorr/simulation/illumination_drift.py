"""Slow change of an illumination with time: level, tilt, smooth shape, fine pattern."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, make_interp_spline

from .illumination import SMOOTH
from .random_fields import Floats, coloured

__all__ = ["MODE_RMS", "Drift", "draw_drift", "expected_drift", "growth"]

_PERIODS_H = np.asarray(0.12 * 2.1 ** np.arange(12), np.float64)  # 7 minutes to 18 days
_FRAMES_H = np.array([0.7, 2.3, 7.1, 19.0, 53.0]) / 3600  # frames take seconds
_COARSE = 24
FAST_DRIFT = (0.019, 0.12)  # rms and hours: within minutes, then no more
SLOW_DRIFT = (0.09, 40.0)  # rms and hours: over days
_MOSAIC_H = 16 / 60  # the measured drift is that within a mosaic of 16 minutes

MODE_RMS = {"tilt": 0.022, "bowl": 0.006, "wave": 0.006, "shift": 0.012}
"""Rms change of the modes' weights over 16 minutes; see `_modes` for the modes."""


@dataclass(frozen=True)
class Drift:
    """Slow change of an illumination with time, smooth and bounded.

    Attributes
    ----------
    level, modes : arrays
        `(12, 2)` and `(M, 12, 2)` sine and cosine amplitudes over the periods.
    shapes : (M, 24, 24) float32
        Coarse maps of the modes.
    decay : (amplitude, hours)
        Loss of beam, saturating.
    exchange_h : float
        Hours over which part of the fine pattern is replaced.
    travel : (2, 12, 2) float64
        Amplitudes of the movement of a steep shape, fields.
    shake : (3, 5, 2) float64
        Amplitudes from frame to frame, of level and movement.
    """

    level: NDArray[np.float64]
    modes: NDArray[np.float64]
    shapes: Floats
    decay: tuple[float, float]
    exchange_h: float
    travel: NDArray[np.float64]
    shake: NDArray[np.float64]

    def log_level(self, time: float) -> float:
        """Natural logarithm of the level at `time` (hours) relative to time 0."""
        amplitude, hours = self.decay
        slow = float(_walk(self.level, time) - amplitude * np.tanh(time / hours))
        return slow + float(_walk(self.shake[0], time, _FRAMES_H))

    def movement(self, time: float) -> tuple[float, float]:
        """Movement (y, x) of a steep shape at `time` (hours) relative to time 0, in fields."""
        y, x = _walk(self.travel, time) + _walk(self.shake[1:], time, _FRAMES_H)
        return float(y), float(x)

    def log_shape(self, time: float, size: int) -> Floats:
        """Smooth change at `time` (hours) relative to time 0: (size, size) float32, log."""
        weights = _walk(self.modes, time).astype(np.float32)
        coarse = np.asarray(np.tensordot(weights, self.shapes, 1), np.float32)
        up = _upsampling(size)
        out: Floats = np.asarray(up @ coarse @ up.T, np.float32)
        return out

    def exchanged(self, time: float) -> float:
        """Share of the exchangeable part of the fine pattern replaced at `time` (hours)."""
        return float(np.tanh((time / self.exchange_h) ** 2))


def _walk(
    amplitudes: NDArray[np.float64], time: float, periods_h: NDArray[np.float64] = _PERIODS_H
) -> NDArray[np.float64]:
    phase = 2 * np.pi * time / periods_h
    basis = np.stack([np.sin(phase), np.cos(phase) - 1], axis=-1)  # 0 at time 0
    out: NDArray[np.float64] = (amplitudes * basis).sum(axis=(-2, -1))
    return out


@lru_cache(maxsize=8)
def _upsampling(size: int) -> Floats:
    """Matrix (size, 24) of cubic B-splines that interpolates a coarse axis to `size` pixels."""
    at = (np.arange(size) + 0.5) / size * _COARSE - 0.5
    matrix = BSpline(*_natural_spline(), extrapolate=True)(at)
    return np.ascontiguousarray(matrix, np.float32)


def _natural_spline() -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    spline = make_interp_spline(np.arange(_COARSE), np.eye(_COARSE), k=3)
    return spline.t, spline.c, spline.k


def draw_drift(
    rng: np.random.Generator, smooth: Floats, travel: float = 0.0, shake: float = 0.0
) -> Drift:
    """Draw how an illumination will drift; see `Drift`.

    Parameters
    ----------
    rng : numpy.random.Generator
    smooth : (Y, X) float32
        Natural logarithm of its smooth shape, which shifts a little.
    travel : float, fields
        Rms movement within 16 minutes of a shape that moves as a whole; 0: it does not.
    shake : float
        Rms change of the level from frame to frame; the shape moves by a third of it.
    """
    unit = _unit()
    shapes, sizes = _modes(rng, smooth)
    factor = np.exp(rng.normal(0, 0.35))
    rms = sizes * factor * np.exp(rng.normal(0, 0.25, len(sizes)))
    modes = rng.normal(0, 1, (len(sizes), len(unit), 2))
    modes *= unit[:, None] * rms[:, None, None] / np.sqrt(2)
    level = rng.normal(0, 1, (len(unit), 2)) * unit[:, None] * 0.012 * np.exp(rng.normal(0, 0.4))
    decay = (rng.uniform(0.0, 0.3), np.exp(rng.uniform(np.log(5), np.log(40))))
    exchange_h = float(np.exp(rng.normal(np.log(900), 0.4)))
    moves = rng.normal(0, travel / np.sqrt(2), (2, len(unit), 2)) * unit[:, None]
    frames = rng.normal(0, shake / np.sqrt(2 * len(_FRAMES_H)), (3, len(_FRAMES_H), 2))
    frames[1:] /= 3
    return Drift(level, modes, shapes, decay, exchange_h, moves, frames)


def _unit() -> NDArray[np.float64]:
    """Amplitude of each period, such that the rms change over 16 minutes is 1."""
    spread = _PERIODS_H**0.27
    change = np.sqrt((spread**2 * (1 - np.cos(2 * np.pi * _MOSAIC_H / _PERIODS_H))).sum())
    return np.asarray(spread / change, np.float64)


def growth(hours: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rms change of a mode's weight between two moments, in units of that over 16 minutes.

    ``sqrt(sum_p u_p^2 (1 - cos(2 pi t / P_p)))``: the expectation over the random sine and
    cosine amplitudes of `Drift`, so that a weight drawn as ``N(0, MODE_RMS * growth)`` has
    the simulator's law without drawing a session.

    Parameters
    ----------
    hours : (N,) float
        Time between the two moments.

    Returns
    -------
    (N,) float64
    """
    phase = 2 * np.pi * np.asarray(hours, np.float64)[:, None] / _PERIODS_H
    return np.asarray(np.sqrt((_unit() ** 2 * (1 - np.cos(phase))).sum(axis=1)), np.float64)


def _modes(rng: np.random.Generator, smooth: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Tilts, bowls, shifts of the smooth shape and random maps; with rms change in 16 min."""
    axis = ((np.arange(_COARSE) + 0.5) / _COARSE * 2 - 1).astype(np.float32)
    y, x = axis[:, None] + 0 * axis, axis + 0 * axis[:, None]
    tilts = [y / 2, x / 2]  # edge to edge 1
    bowls = [1.5 * y * y - 0.5, 1.5 * x * x - 0.5, x * y]
    waves = [
        coloured(int(rng.integers(2**62)), (_COARSE, _COARSE), _COARSE, SMOOTH) for _ in range(4)
    ]
    step = smooth.shape[0] / _COARSE
    at = ((np.arange(_COARSE) + 0.5) * step).astype(int)
    coarse = smooth[np.ix_(at, at)]
    shifts = list(np.gradient(coarse, 1 / _COARSE))
    numbers = {"tilt": 2, "bowl": 3, "wave": 4, "shift": 2}
    sizes = [MODE_RMS[kind] for kind, count in numbers.items() for _ in range(count)]
    shapes = np.stack([m - m.mean() for m in tilts + bowls + waves + shifts]).astype(np.float32)
    return shapes, np.array(sizes)


def expected_drift(age_h: float) -> float:
    """Expected error of a reference of that age.

    ``sqrt(sum(r^2 (1 - exp(-age / t))))`` over a fast part (1.9 % in 0.12 h) and a slow one
    (9 % in 40 h): two bounded random walks through what was measured at TLS BL01B (1.5 % after
    ten minutes, about 10 % after two months) and the simulator's medians between. Never below
    0.3 %.
    """
    squares = [r * r * (1 - np.exp(-abs(age_h) / t)) for r, t in (FAST_DRIFT, SLOW_DRIFT)]
    return max(0.003, float(np.sqrt(sum(squares))))
