"""Fixed fine pattern of an illumination: noise, streaks, web, cracks, specks, short strokes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .illumination import Family, Range, Rng
from .random_fields import Floats, Nodes, blurred, coloured, power_law, splat

__all__ = ["fine_pattern"]


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**62))


# Power over cycles per field, fitted to the band-wise rms of BL01B flats (benchmarks).
_FINE: Nodes = (
    (0.1, 0.02), (2.0, 0.62), (8.0, 0.12), (32.0, 3.9e-3), (90.0, 2.4e-4), (400.0, 1.4e-6),
)  # fmt: skip
_FINE_RMS = 0.0265
_KEPT = 0.5  # of the variance of the noise; lines and specks stay as well
_WEB = power_law(-4.0, 3.0, 80.0)
_PATCH = power_law(-3.0, 0.8, 5.0)
_STREAK = power_law(-3.2, 2.0, 60.0)
_STROKES: tuple[Nodes, ...] = tuple(
    ((0.1, 1e-3), (0.4 * peak, 0.1), (peak, 1.0), (2 * peak, 0.2), (6 * peak, 1e-4), (1e3, 1e-7))
    for peak in (28.0, 50.0)
)


def _factor(rng: Rng, limits: Range) -> np.float32:
    """Log-triangular number: mostly near the middle of the range."""
    low, high = float(np.log(limits[0])), float(np.log(limits[1]))
    return np.float32(np.exp(np.mean(rng.uniform(low, high, 2))))


def fine_pattern(rng: Rng, size: int, family: Family) -> tuple[Floats, Floats]:
    """Fixed fine pattern: noise, streaks or strokes, web lines, cracks, specks and rings.

    The noise is rougher in some parts of the field than in others, as the coating of a
    condenser or a scintillator is.

    Returns
    -------
    pattern : (size, size) float32
        Natural logarithm of the relative level at time 0.
    exchange : (size, size) float32
        What is added to it once the exchangeable part has been replaced.
    """
    shape = (size, size)
    strength = np.float32(_FINE_RMS) * _factor(rng, family.fine)
    patch = coloured(_seed(rng), shape, size, _PATCH)
    rough = np.exp(np.float32(rng.uniform(0.1, 0.45)) * patch)
    kept, old, new = (
        np.float32(np.sqrt(share)) * coloured(_seed(rng), shape, size, _FINE)
        for share in (_KEPT, 1 - _KEPT, 1 - _KEPT)
    )
    pattern: Floats = strength * rough * (kept + old)
    exchange: Floats = strength * rough * (new - old)
    if family.strokes[1] > 0:
        pattern += _strokes(rng, size, patch) * _factor(rng, family.strokes)
    else:
        streak = (float(rng.choice([2.5, 5.0])), int(rng.integers(16)))
        pattern += (
            np.float32(rng.uniform(0.1, 0.9))
            * strength
            * coloured(_seed(rng), shape, size, _STREAK, streak=streak)
        )
    pattern += _web(rng, size, patch) * np.float32(2.0) * _factor(rng, family.lines) * strength
    pattern += _cracks(rng, size) * _factor(rng, family.lines)
    pattern += _specks(rng, size) * _factor(rng, family.specks)
    return pattern, exchange


def _strokes(rng: Rng, size: int, patch: Floats) -> Floats:
    """Short oblique strokes of a polished scintillator, stronger in some parts, rms 1 %."""
    streak = (float(rng.choice([4.0, 8.0])), int(rng.choice([1, 3, 5, 11, 13])))
    nodes = _STROKES[int(rng.integers(len(_STROKES)))]
    strokes = coloured(_seed(rng), (size, size), size, nodes, streak=streak)
    rough: Floats = np.exp(np.float32(rng.uniform(0, 0.5)) * patch)
    return np.float32(0.01) * rough * strokes


def _web(rng: Rng, size: int, patch: Floats) -> Floats:
    """Bright branching lines where two of several random fields tie for the highest."""
    shape = (size, size)
    fields = [coloured(_seed(rng), shape, size, _WEB) for _ in range(3)]
    low, high = np.minimum(fields[0], fields[1]), np.maximum(fields[0], fields[1])
    second = np.maximum(low, np.minimum(high, fields[2]))
    gap = np.maximum(high, fields[2]) - second
    width = np.float32(rng.uniform(0.06, 0.14)) * np.exp(np.float32(0.4) * fields[0])
    out: Floats = np.exp(-gap / width)
    out *= np.clip(patch + np.float32(rng.uniform(-0.2, 0.8)), 0, 2)
    return blurred(out, float(rng.uniform(0.5, 1.4)) * size / 512)


def _curve(
    rng: Rng, start: NDArray[np.float64], angle: float, length: float
) -> NDArray[np.float64]:
    """Wandering curve of points 1/1500 of the field apart, (N, 2) as (y, x)."""
    count = max(int(length * 1500), 8)
    knots = rng.normal(0, 1, (4, 2))
    s = np.linspace(0, 1, count)
    turn = angle + sum(
        knots[n, 0] * 0.5 / (n + 1) ** 1.2 * np.sin(2 * np.pi * (n + 1) * s / 2 + 3 * knots[n, 1])
        for n in range(4)
    )
    step = np.stack([np.sin(turn), np.cos(turn)], axis=1) / 1500
    return start + np.cumsum(step, axis=0)


def _cracks(rng: Rng, size: int) -> Floats:
    """One long crack, partly bright, partly a row of dark dots, and short branches."""
    image = np.zeros((size, size), np.float32)
    for n in range(int(rng.integers(1, 6))):
        start = np.array([rng.random(), -0.05 if n == 0 else rng.random()])
        angle = rng.normal(0, 0.35) if n == 0 else rng.uniform(0, 2 * np.pi)
        points = _curve(rng, start, angle, 1.3 if n == 0 else rng.uniform(0.1, 0.6)) * size
        along = np.linspace(0, 1, len(points))
        tone = np.sin(2 * np.pi * (along * rng.uniform(0.5, 2) + rng.random())) + 0.6
        weight = tone * rng.uniform(0.4, 1.6, len(points)) * rng.uniform(0.015, 0.05)
        width = rng.uniform(0.8, 2.2) * size / 512
        scale = size / 1500 * width * 2.5  # a line's height after the blur, whatever the size
        image += blurred(splat(image.shape, points[:, 0], points[:, 1], weight), width) / (
            np.float32(1 / max(scale, 1e-6))
        )
    return image


def _specks(rng: Rng, size: int) -> Floats:
    """Dark specks of several sizes, and small bright wobbly rings."""
    image = np.zeros((size, size), np.float32)
    for sigma_512, count in ((1.2, 60), (2.2, 25), (4.5, 6)):
        number = rng.poisson(count)
        y, x = rng.uniform(0, size, (2, number))
        depth = rng.gamma(1.5, 0.012, number) * np.where(rng.random(number) < 0.85, -1, 1)
        sigma = sigma_512 * size / 512
        image += blurred(splat(image.shape, y, x, depth * 2 * np.pi * sigma**2), sigma)
    for _ in range(rng.poisson(3)):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(3, 9) * size / 512
        turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        r = radius * (1 + 0.2 * np.sin(2 * turn + rng.random() * 6))
        line = splat(image.shape, centre[0] + r * np.sin(turn), centre[1] + r * np.cos(turn))
        sigma = 0.9 * size / 512
        height = rng.uniform(0.01, 0.045) * 2 * np.pi * radius / 120 * sigma * 2.5
        image += blurred(line, sigma) * np.float32(height)
    return image
