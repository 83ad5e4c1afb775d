"""Illumination of a full-field X-ray microscope: families of instruments and smooth shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .illumination_steep import STEEP, steep_shape
from .random_fields import Floats, coloured, power_law

__all__ = ["FAMILIES", "SMOOTH", "Family", "Range", "Rng", "aperture_mask", "smooth_shape"]

Range = tuple[float, float]
Rng = np.random.Generator


@dataclass(frozen=True)
class Family:
    """Ranges from which the sessions of one kind of instrument are drawn.

    Attributes
    ----------
    shape : str
        Name of the smooth shape, see `smooth_shape`; those in `STEEP` move with time.
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
    strokes : (low, high)
        Factor on short oblique strokes of rms 1 %; (0, 0): none.
    cut : float
        Probability that an aperture cuts corners off.
    outliers : (low, high)
        Fraction of hot and dead pixels at 512 px.
    gain : (low, high)
        Counts per quantum, drawn log-uniformly.
    travel : (low, high), fields
        Rms movement of a steep shape within 16 minutes, drawn log-uniformly.
    shake : (low, high)
        Rms change from frame to frame: of the level, and of the place in a third of a field.
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
    strokes: Range = (0.0, 0.0)
    cut: float = 0.4
    outliers: Range = (5e-5, 9e-4)
    gain: Range = (0.9, 2.7)
    travel: Range = (0.003, 0.02)
    shake: Range = (0.0, 0.0)


_STEEP = Family(
    "sided", 0.08, level=(150, 30000), dark=(0.5, 3000), span=(1.6, 3.4), fine=(0.25, 1.4),
    lines=(0.05, 0.8), specks=(0.1, 1.5), strokes=(0.3, 4.0), cut=0.15, gain=(0.05, 2.0),
    shake=(0.001, 0.03),
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "bl01b": Family(
        "offcentre", 0.42, level=(5000, 22000), dark=(1900, 4100), span=(0.36, 0.80),
        fine=(0.6, 1.6), lines=(0.6, 1.6), specks=(0.6, 1.6), cut=0.88, gain=(0.8, 1.7),
    ),
    "strong": Family("offcentre", 0.08, span=(0.7, 1.6), fine=(0.6, 2.5), cut=0.7),
    "ring": Family(
        "ring", 0.09, level=(15, 6000), dark=(0.5, 2000), span=(0.9, 2.4), strokes=(0.3, 3.0),
        outliers=(5e-4, 5e-3), gain=(0.2, 1.2),
    ),
    "radial": Family("radial", 0.05, span=(0.2, 1.4)),
    "tilt": Family("tilt", 0.05, span=(0.2, 1.0)),
    "speckled": Family("speckled", 0.08, span=(0.3, 1.0), fine=(0.8, 2.5)),
    "half-dark": replace(_STEEP, shape="framed", weight=0.10, span=(1.4, 3.0), shake=(0.0, 0.01)),
    "one-sided": _STEEP,
    "ring-edge": replace(_STEEP, shape="ring-edge", weight=0.05, span=(0.7, 2.6), cut=0.3),
    "bands": replace(
        _STEEP, shape="bands", weight=0.05, span=(0.5, 2.4), travel=(0.01, 0.08), cut=0.3
    ),
    "stripes": Family("stripes", 0.0, held_out=True, span=(0.3, 0.9)),
    "hollow": Family("hollow", 0.0, held_out=True, span=(0.3, 1.2)),
    "crescent": replace(_STEEP, shape="crescent", weight=0.0, held_out=True, span=(1.2, 3.0)),
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
    radius, width = rng.uniform(0.03, 0.14), rng.uniform(0.008, 0.04)
    ring = np.exp(-0.5 * ((r - radius) / width) ** 2) + rng.uniform(0, 1) * np.exp(
        -0.5 * (r / width) ** 2
    )
    out: Floats = 0.5 * _offcentre(rng, size) + rng.uniform(0.1, 1.0) * ring.astype(np.float32)
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
        Natural logarithm of the relative level, median 0. A steep one has a margin, see
        `steep_shape`.
    """
    if family.shape in STEEP:
        return steep_shape(rng, size, family.shape, float(rng.uniform(*family.span)))
    shape = _SHAPES[family.shape](rng, size)
    low, high = np.percentile(shape[::4, ::4], (0.5, 99.5))
    shape = shape * np.float32(rng.uniform(*family.span) / max(high - low, 1e-6))
    shape = shape - np.float32(np.median(shape[::2, ::2]))
    return shape - np.float32(0.3) * shape * shape  # the dark side falls off further


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
        curved = np.float32(rng.uniform(-0.1, 0.3)) * np.minimum(u * v, 1)
        inside = u + v - 1 + curved
        edge = rng.uniform(1.0, 5.0) / 512 / np.hypot(*legs) * np.float32(1.4)
        mask *= 1 / (1 + np.exp(-np.clip(inside / edge, -30, 30)))
    return mask
