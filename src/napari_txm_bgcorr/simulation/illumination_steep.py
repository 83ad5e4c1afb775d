"""Steep illumination: dark halves, one dark side, edges of a condenser's ring, moving bands.

The maps reach beyond the field by `MARGIN` on every side, so that the light can move over the
fixed fine pattern: see `moved`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .random_fields import Floats, coloured, power_law

__all__ = ["LIT", "MARGIN", "STEEP", "moved", "steep_shape"]

Rng = np.random.Generator
MARGIN = 1 / 8
"""Share of the field by which a steep shape reaches beyond it; the light moves less far."""
LIT = 80
"""Percentile of a field whose greater part may be dark that stands for its lit part."""
_WAVE = power_law(-4.0, 0.6, 3.0)
_BEND = power_law(-4.0, 0.5, 2.5)


def _wave(rng: Rng, like: Floats, size: int, nodes: tuple[tuple[float, float], ...]) -> Floats:
    edge = like.size
    return coloured(int(rng.integers(2**62)), (edge, edge), size, nodes)


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _step(distance: Floats, width: float) -> Floats:
    """0 far on the negative side, 1 far on the positive one."""
    out: Floats = 0.5 + 0.5 * np.tanh(distance * np.float32(0.5 / width))
    return out


def _crest(distance: Floats, width: float) -> Floats:
    out: Floats = np.exp(-0.5 * np.square(distance * np.float32(1 / width)))
    return out


def _hill(rng: Rng, y: Floats, x: Floats) -> Floats:
    cy, cx = rng.normal(0.55, 0.2, 2)
    wy, wx = rng.uniform(0.4, 1.0, 2)
    return _crest(y - np.float32(cy), wy) * _crest(x - np.float32(cx), wx)


def _along(y: Floats, x: Floats, angle: float) -> Floats:
    """Distance from the middle of the field towards `angle`."""
    out: Floats = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
    return out


def _framed(rng: Rng, y: Floats, x: Floats, size: int) -> Floats:
    """Lit part with straight soft borders on one to four sides, a bright rim inside them.

    In the dark part faint arcs remain, and the lit part is mottled like a lattice: the mirror
    segments or the scan of a condenser.
    """
    turn = rng.normal(0, 0.05) + (np.pi / 2) * rng.integers(4)
    out = rng.uniform(0.1, 0.6) * _hill(rng, y, x) + np.float32(0.08) * _wave(rng, x, size, _WAVE)
    bend = np.float32(0.02) * _wave(rng, x, size, _BEND)
    sides = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.45, 0.1, 0.1]))
    inside, depth = np.ones_like(out), rng.uniform(0.6, 1.4)
    for side in range(sides):
        border = rng.uniform(-0.05, 0.2) if side == 0 else rng.uniform(0.15, 0.48)
        away = np.float32(border) - _along(y, x, turn + side * np.pi / 2) + bend
        width = _log_uniform(rng, 0.008, 0.08)
        floor = np.float32(rng.uniform(0, 0.4))
        inside = np.minimum(inside, floor + (1 - floor) * _step(away, width))
        out = out + rng.uniform(0, 0.35) * _crest(away - np.float32(3 * width), 2 * width) * inside
        out = out + np.float32(rng.uniform(0, 1.0)) * np.minimum(away, 0)  # darker further out
    out = out + np.float32(depth) * inside
    if rng.random() < 0.5:
        out = out + np.float32(rng.uniform(0.05, 0.3)) * _arcs(rng, y, x, bend, 2)
    if rng.random() < 0.6:
        out = out + _lattice(rng, y, x, bend)
    return out


def _lattice(rng: Rng, y: Floats, x: Floats, bend: Floats) -> Floats:
    turn, period = rng.uniform(0, np.pi), _log_uniform(rng, 0.06, 0.25)
    waves = [
        np.cos((_along(y, x, turn + k * rng.normal(1.57, 0.2)) + bend) * (2 * np.pi / period))
        for k in range(2)
    ]
    out: Floats = np.float32(rng.uniform(0.005, 0.03)) * (waves[0] + waves[1])
    return out


def _arcs(rng: Rng, y: Floats, x: Floats, bend: Floats, count: int) -> Floats:
    """Edges of the condenser's ring: steps and bright rims along circles."""
    cy, cx = rng.normal(0.5, 0.25, 2)
    flat = rng.uniform(0.8, 1.25)
    radius = np.hypot(y - np.float32(cy), (x - np.float32(cx)) * np.float32(flat)) + bend
    out: Floats = np.zeros_like(radius)
    for _ in range(count):
        away = np.float32(rng.uniform(0.2, 0.75)) - radius
        width = _log_uniform(rng, 0.006, 0.08)
        out += np.float32(rng.normal(0.5, 0.7)) * _step(away, width)
        out += np.float32(rng.uniform(0, 0.5)) * _crest(away, 1.5 * width)
    return out


def _ring_edge(rng: Rng, y: Floats, x: Floats, size: int) -> Floats:
    """Circles of the condenser's ring within the field, often with dark corners."""
    bend = np.float32(0.015) * _wave(rng, x, size, _BEND)
    out = _arcs(rng, y, x, bend, int(rng.integers(1, 4)))
    if rng.random() < 0.5:
        cy, cx = rng.normal(0.5, 0.06, 2)
        radius = np.hypot(y - np.float32(cy), x - np.float32(cx)) + bend
        edge = np.float32(rng.uniform(0.48, 0.66)) - radius
        out += np.float32(rng.uniform(0.5, 2.0)) * _step(edge, _log_uniform(rng, 0.006, 0.05))
    return out + rng.uniform(0.2, 0.8) * _hill(rng, y, x)


def _sided(rng: Rng, y: Floats, x: Floats, size: int) -> Floats:
    """Light that falls off towards one side until it is nearly dark there."""
    bend = np.float32(rng.uniform(0.02, 0.1)) * _wave(rng, x, size, _BEND)
    start = np.float32(rng.uniform(-0.45, 0.25))
    away: Floats = _along(y, x, rng.uniform(0, 2 * np.pi)) - start + bend
    out: Floats = _step(away, _log_uniform(rng, 0.04, 0.3))
    out = out + np.float32(rng.uniform(0, 0.5)) * away
    out = out + np.float32(rng.uniform(0, 0.4)) * _hill(rng, y, x)
    out = out + np.float32(rng.uniform(0.02, 0.08)) * _wave(rng, x, size, _WAVE)
    if rng.random() < 0.3:
        out = out + np.float32(0.3) * _arcs(rng, y, x, bend, 1)
    return out


def _bands(rng: Rng, y: Floats, x: Floats, size: int) -> Floats:
    """Bright and dark bands across the field, as steep on one side as a mirror's edge."""
    bend = np.float32(rng.uniform(0.01, 0.06)) * _wave(rng, x, size, _BEND)
    away = _along(y, x, rng.uniform(0, 2 * np.pi)) + bend
    out: Floats = np.float32(rng.uniform(0.2, 1.0)) * _hill(rng, y, x)
    for _ in range(int(rng.integers(2, 7))):
        start, reach = rng.uniform(-0.6, 0.5), _log_uniform(rng, 0.03, 0.4)
        one, two = _log_uniform(rng, 0.006, 0.06), _log_uniform(rng, 0.01, 0.15)
        band = _step(away - np.float32(start), one) * _step(np.float32(start + reach) - away, two)
        out = out + np.float32(rng.normal(0.2, 0.5)) * band
    return out


def _crescent(rng: Rng, y: Floats, x: Floats, size: int) -> Floats:
    """Lit between two circles that touch: a condenser's ring that is far out of line."""
    bend = np.float32(0.02) * _wave(rng, x, size, _BEND)
    angle, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.35)
    cy, cx = rng.normal(0.5, 0.1, 2)
    outer = np.hypot(y - np.float32(cy), x - np.float32(cx)) + bend
    inner = np.hypot(
        y - np.float32(cy + apart * np.sin(angle)), x - np.float32(cx + apart * np.cos(angle))
    )
    radius = rng.uniform(0.5, 0.75)
    out: Floats = _step(np.float32(radius) - outer, _log_uniform(rng, 0.02, 0.1))
    dark = _step(np.float32(radius - apart - 0.05) - inner - bend, _log_uniform(rng, 0.02, 0.1))
    out = out - np.float32(rng.uniform(0.5, 1.0)) * dark
    return out + np.float32(0.2) * _hill(rng, y, x)


STEEP: dict[str, Callable[[Rng, Floats, Floats, int], Floats]] = {
    "framed": _framed,
    "sided": _sided,
    "ring-edge": _ring_edge,
    "bands": _bands,
    "crescent": _crescent,
}


def steep_shape(rng: Rng, size: int, shape: str, span: float) -> Floats:
    """Steep illumination with a margin around the field.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : int
        Pixels along the field.
    shape : str
        Name in `STEEP`.
    span : float
        Natural logarithm of brightest over darkest in the field.

    Returns
    -------
    (size + 2 m, size + 2 m) float32
        Natural logarithm of the relative level, 0 at the `LIT` percentile of the field; `m` is
        `MARGIN` of `size`, rounded.
    """
    rim = round(size * MARGIN)
    axis = ((np.arange(-rim, size + rim) + 0.5) / size).astype(np.float32)
    light = np.asarray(STEEP[shape](rng, axis[:, None], axis[None, :], size), np.float32)
    field = light[rim:-rim:2, rim:-rim:2]
    low, lit, high = np.percentile(field[::2, ::2], (0.5, LIT, 99.5))
    out: Floats = (light - np.float32(lit)) * np.float32(span / max(high - low, 1e-6))
    return out


def moved(light: Floats, size: int, shift: tuple[float, float]) -> Floats:
    """Field of an illumination that has moved by `shift` (y, x), in fields.

    Parameters
    ----------
    light : (size + 2 m, size + 2 m) float32
        As `steep_shape` gives it.
    size : int
    shift : (float, float)
        Cut off smoothly below `MARGIN`.

    Returns
    -------
    (size, size) float32
    """
    rim = (len(light) - size) // 2
    most = rim - 1
    out = light
    for axis, part in enumerate(shift):
        at = rim - most * np.tanh(part * size / most)
        first = int(np.floor(at))
        weight = np.float32(at - first)
        near, far = (out.take(range(k, k + size), axis) for k in (first, first + 1))
        out = near + weight * (far - near)
    return out
