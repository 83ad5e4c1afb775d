"""Illumination of a full-field X-ray microscope: families, smooth shapes, fine patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.random_fields import Floats, Nodes, blurred, coloured, power_law, splat

__all__ = ["FAMILIES", "SMOOTH", "Family", "aperture_mask", "fine_pattern", "smooth_shape"]

Range = tuple[float, float]
Rng = np.random.Generator


@dataclass(frozen=True)
class Family:
    """Ranges from which the sessions of one kind of instrument are drawn.

    Attributes
    ----------
    shape : str
        Name of the smooth shape, see `smooth_shape`.
    weight : float
        Share among the families drawn by default.
    held_out : bool
        Never drawn unless named: for judging on illumination unseen in training.
    level : (low, high), counts
        Raw level (dark included) at the median of the field, drawn log-uniformly.
    dark : (low, high), counts
        Pedestal, drawn log-uniformly.
    span : (low, high)
        Natural logarithm of brightest over darkest of the smooth part.
    fine : (low, high)
        Factor on the fine pattern of BL01B.
    lines, specks : (low, high)
        Factors on web lines and cracks, and on specks and rings.
    cut : float
        Probability that an aperture cuts corners off.
    outliers : (low, high)
        Fraction of hot and dead pixels at 512 px.
    """

    shape: str
    weight: float
    held_out: bool = False
    level: Range = (3000, 40000)
    dark: Range = (50, 4000)
    span: Range = (0.3, 0.9)
    fine: Range = (0.4, 1.6)
    lines: Range = (0.3, 1.6)
    specks: Range = (0.3, 2.0)
    cut: float = 0.4
    outliers: Range = (5e-5, 9e-4)


FAMILIES: dict[str, Family] = {
    "bl01b": Family(
        "offcentre", 0.55, level=(5000, 22000), dark=(1900, 4100), span=(0.36, 0.80),
        fine=(0.6, 1.6), lines=(0.6, 1.6), specks=(0.6, 1.6), cut=0.88,
    ),
    "strong": Family("offcentre", 0.10, span=(0.7, 1.6), fine=(0.6, 2.5), cut=0.7),
    "ring": Family("ring", 0.06, dark=(50, 2000), span=(0.9, 2.0), outliers=(5e-4, 5e-3)),
    "radial": Family("radial", 0.09, span=(0.2, 1.4)),
    "tilt": Family("tilt", 0.08, span=(0.2, 1.0)),
    "speckled": Family("speckled", 0.12, span=(0.3, 1.0), fine=(0.8, 2.5)),
    "stripes": Family("stripes", 0.0, held_out=True, span=(0.3, 0.9)),
    "hollow": Family("hollow", 0.0, held_out=True, span=(0.3, 1.2)),
}  # fmt: skip

SMOOTH = power_law(-4.0, 0.6, 3.0)
"""Power spectrum of what varies as slowly as an illumination."""


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**62))


def _grid(size: int) -> tuple[Floats, Floats]:
    centre = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centre[:, None], centre[None, :]


def _peak(rng: Rng, y: Floats, x: Floats, cy: float, cx: float) -> Floats:
    """Broad anisotropic hill of height about 1 around (cy, cx)."""
    width = rng.uniform(0.45, 1.0, 2)
    angle = rng.uniform(0, np.pi)
    a, b = np.cos(angle), np.sin(angle)
    u = ((x - cx) * a + (y - cy) * b) / width[0]
    v = ((y - cy) * a - (x - cx) * b) / width[1]
    hill: Floats = np.exp(-0.5 * (u * u + v * v)).astype(np.float32)
    return hill


def _offcentre(rng: Rng, size: int) -> Floats:
    y, x = _grid(size)
    if rng.random() < 0.75:  # as measured: brightest near or below the centre, dark top right
        cy, cx = rng.normal(0.62, 0.12), rng.normal(0.47, 0.14)
        towards = np.deg2rad(rng.normal(45, 30))  # darkening direction: right and up
    else:
        cy, cx = rng.uniform(0, 1, 2)
        towards = rng.uniform(0, 2 * np.pi)
    tilt = (x - 0.5) * np.cos(towards) - (y - 0.5) * np.sin(towards)
    wave = coloured(_seed(rng), (size, size), size, SMOOTH)
    out: Floats = _peak(rng, y, x, cy, cx) * rng.uniform(0.6, 1.4)
    out = out - rng.uniform(0.0, 0.5) * tilt + rng.uniform(0.03, 0.16) * wave
    return out


def _radial(rng: Rng, size: int) -> Floats:
    y, x = _grid(size)
    cy, cx = rng.normal(0.5, 0.12, 2)
    r2 = (x - cx) ** 2 + (y - cy) ** 2
    out: Floats = -(r2 ** rng.uniform(0.7, 2.0)).astype(np.float32)
    return out


def _tilt(rng: Rng, size: int) -> Floats:
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    wave = coloured(_seed(rng), (size, size), size, SMOOTH)
    out: Floats = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    return out + rng.uniform(0.02, 0.2) * wave


def _ring(rng: Rng, size: int) -> Floats:
    y, x = _grid(size)
    cy, cx = rng.normal(0.52, 0.08, 2)
    flat = rng.uniform(0.5, 1.0)
    r = np.hypot(x - cx, (y - cy) / flat)
    radius, width = rng.uniform(0.05, 0.14), rng.uniform(0.012, 0.04)
    ring = np.exp(-0.5 * ((r - radius) / width) ** 2) + rng.uniform(0, 1) * np.exp(
        -0.5 * (r / width) ** 2
    )
    out: Floats = 0.5 * _offcentre(rng, size) + rng.uniform(0.1, 0.6) * ring.astype(np.float32)
    return out


def _speckled(rng: Rng, size: int) -> Floats:
    nodes = power_law(-3.0, rng.choice([1.5, 3.0, 5.0]), rng.choice([8.0, 16.0]))
    speckle = coloured(_seed(rng), (size, size), size, nodes)
    return 0.6 * _offcentre(rng, size) + rng.uniform(0.06, 0.2) * speckle


def _stripes(rng: Rng, size: int) -> Floats:
    y, _ = _grid(size)
    lines = sum(
        rng.uniform(0.3, 1) / n * np.sin(2 * np.pi * (n * y * 1.3 + rng.random()))
        for n in range(1, 18)
    )
    bend = coloured(_seed(rng), (size, size), size, SMOOTH)
    out: Floats = np.asarray(lines, np.float32) * (1 + 0.2 * bend)
    return out


def _hollow(rng: Rng, size: int) -> Floats:
    y, x = _grid(size)
    cy, cx = rng.normal(0.5, 0.06, 2)
    r = np.hypot(x - cx, y - cy)
    out: Floats = -((r - rng.uniform(0.25, 0.45)) ** 2).astype(np.float32)
    return out


_SHAPES: dict[str, Callable[[Rng, int], Floats]] = {
    "offcentre": _offcentre,
    "radial": _radial,
    "tilt": _tilt,
    "ring": _ring,
    "speckled": _speckled,
    "stripes": _stripes,
    "hollow": _hollow,
}


def smooth_shape(rng: Rng, size: int, family: Family) -> Floats:
    """Smooth part of an illumination.

    Returns
    -------
    (size, size) float32
        Natural logarithm of the relative level, median 0.
    """
    shape = _SHAPES[family.shape](rng, size)
    low, high = np.percentile(shape[::4, ::4], (0.5, 99.5))
    shape = shape * np.float32(rng.uniform(*family.span) / max(high - low, 1e-6))
    shape = shape - np.float32(np.median(shape[::2, ::2]))
    return shape - np.float32(0.3) * shape * shape  # the dark side falls off further


# Power over cycles per field, fitted to the band-wise rms of BL01B flats (benchmarks).
_FINE: Nodes = (
    (0.1, 0.02), (2.0, 0.62), (8.0, 0.12), (32.0, 3.9e-3), (90.0, 2.4e-4), (400.0, 1.4e-6),
)  # fmt: skip
_FINE_RMS = 0.0265
_KEPT = 0.5  # of the variance of the noise; lines and specks stay as well
_WEB = power_law(-4.0, 3.0, 80.0)
_PATCH = power_law(-3.0, 0.8, 5.0)
_STREAK = power_law(-3.2, 2.0, 60.0)


def _factor(rng: Rng, limits: Range) -> np.float32:
    """Log-triangular number: mostly near the middle of the range."""
    low, high = float(np.log(limits[0])), float(np.log(limits[1]))
    return np.float32(np.exp(np.mean(rng.uniform(low, high, 2))))


def fine_pattern(rng: Rng, size: int, family: Family) -> tuple[Floats, Floats]:
    """Fixed fine pattern: coloured noise, streaks, branching web, cracks, specks and rings.

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


def aperture_mask(rng: Rng, size: int, family: Family) -> Floats:
    """Share of the beam that an aperture lets through at the corners on the right.

    Returns
    -------
    (size, size) float32
        1 in the lit field, 0 behind the aperture, an edge a few pixels wide between.
    """
    mask = np.ones((size, size), np.float32)
    if rng.random() >= family.cut:
        return mask
    y, x = _grid(size)
    right = rng.random() < (0.9 if family.shape == "offcentre" else 0.4)
    for top in (True, False):
        if rng.random() < 0.1:
            continue
        leg = np.exp(rng.uniform(np.log(14), np.log(300)))
        legs = np.minimum(leg * np.exp(rng.normal(0, 0.3, 2)), 360) / 512
        u = (1 - x if right else x) / np.float32(legs[0])
        v = (y if top else 1 - y) / np.float32(legs[1])
        inside = u + v - 1 + np.float32(rng.uniform(-0.1, 0.3)) * u * v  # slightly curved
        edge = rng.uniform(1.0, 5.0) / 512 / np.hypot(*legs) * np.float32(1.4)
        mask *= 1 / (1 + np.exp(-np.clip(inside / edge, -30, 30)))
    return mask
