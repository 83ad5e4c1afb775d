"""Specimens of a full-field X-ray microscope as maps of transmission."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.core.random_fields import Floats, blurred, coloured, power_law, splat

__all__ = ["FREE", "SPECIMENS", "draw_specimen", "free_of_sample", "image_of"]

Rng = np.random.Generator
Shape = tuple[int, int]

LEAST, MOST = 0.02, 1.6  # limits of the transmission
FREE = 0.003
"""Greatest difference of the transmission from 1 in a pixel that is free of sample."""


def _noise(rng: Rng, shape: Shape, px: int, slope: float, low: float, high: float = 1e3) -> Floats:
    return coloured(int(rng.integers(2**62)), shape, px, power_law(slope, low, high))


def _grid(shape: Shape, px: int) -> tuple[Floats, Floats]:
    y = ((np.arange(shape[0]) + 0.5) / px).astype(np.float32)
    x = ((np.arange(shape[1]) + 0.5) / px).astype(np.float32)
    return y[:, None], x[None, :]


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _count(rng: Rng, per_field: float, shape: Shape, px: int) -> int:
    return int(rng.poisson(per_field * shape[0] * shape[1] / px**2))


def image_of(rng: Rng, thickness: Floats, field_px: int) -> Floats:
    """Image of an object: absorption, blur of the optics, and fringes of phase contrast.

    The fringe is a difference of Gaussians of the optical thickness, moved a little to one
    side: bright just outside an edge, stronger on one side, as Zernike phase contrast and a
    condenser off the axis give.

    Parameters
    ----------
    thickness : (H, W) float32
        Optical thickness, 0 where there is no specimen.
    field_px : int
        Pixels along the field of view.

    Returns
    -------
    (H, W) float32
        Transmission in (0, 1.6].
    """
    scale = field_px / 512
    image = blurred(thickness, _log_uniform(rng, 0.6, 4.0) * scale)  # depth beyond the focus
    if rng.random() < 0.75:
        near = blurred(image, rng.uniform(0.8, 2.0) * scale)
        wide = blurred(image, _log_uniform(rng, 2.5, 12.0) * scale)
        move = np.rint(rng.normal(0, 2.5, 2) * scale).astype(int)
        wide = np.roll(wide, tuple(move), (0, 1))
        image = image - np.float32(_log_uniform(rng, 0.12, 0.9)) * (wide - near)
    return np.clip(np.exp(-image), LEAST, MOST).astype(np.float32)


def free_of_sample(transmission: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels where neither the specimen nor its fringes change the beam by `FREE` or more.

    Parameters
    ----------
    transmission : (..., Y, X) float
        As `image_of` gives it, after blur and fringes.

    Returns
    -------
    (..., Y, X) bool
    """
    free: NDArray[np.bool_] = np.abs(transmission - np.float32(1)) < FREE
    return free


def _stamp(
    image: Floats, y: float, x: float, radius: float, profile: Callable[[Floats, Floats], Floats]
) -> None:
    """Add `profile(dy, dx)` (in radii) within a square window around (y, x), in pixels."""
    reach = radius * 1.6 + 1
    y0, y1 = max(int(y - reach), 0), min(int(y + reach) + 2, image.shape[0])
    x0, x1 = max(int(x - reach), 0), min(int(x + reach) + 2, image.shape[1])
    if y1 <= y0 or x1 <= x0:
        return
    dy = ((np.arange(y0, y1) + 0.5 - y) / radius).astype(np.float32)[:, None]
    dx = ((np.arange(x0, x1) + 0.5 - x) / radius).astype(np.float32)[None, :]
    image[y0:y1, x0:x1] += profile(dy, dx)


def _ball(rng: Rng, height: float, roundness: float = 0.5) -> Callable[[Floats, Floats], Floats]:
    """Ellipsoid with a lobed outline; `roundness` 0.5 a ball, smaller a disc, larger soft."""
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(0.55, 1.0)
    lobes, depth, turn = rng.integers(2, 6), rng.uniform(0, 0.18), rng.uniform(0, 6.3)
    a, b = np.float32(np.cos(angle)), np.float32(np.sin(angle))

    def profile(dy: Floats, dx: Floats) -> Floats:
        u, v = dx * a + dy * b, (dy * a - dx * b) / np.float32(stretch)
        r2 = u * u + v * v
        if depth > 0.05:
            r2 = r2 * (1 + np.float32(depth) * np.sin(lobes * np.arctan2(v, u) + np.float32(turn)))
        out: Floats = np.float32(height) * np.maximum(1 - r2, 0) ** np.float32(roundness)
        return out

    return profile


def _polygon(rng: Rng, height: float, tilt: float = 0.35) -> Callable[[Floats, Floats], Floats]:
    """Crystal: a few straight edges, thickness sloping across it by `tilt` (rms, a radius)."""
    sides = int(rng.integers(3, 7))
    angles = np.sort(rng.uniform(0, 2 * np.pi, sides))
    reach = rng.uniform(0.45, 1.0, sides)
    slope = rng.normal(0, tilt, 2)

    def profile(dy: Floats, dx: Floats) -> Floats:
        depth = np.full(np.broadcast_shapes(dy.shape, dx.shape), 9, np.float32)
        for angle, far in zip(angles, reach, strict=True):
            edge = (
                np.float32(far) - dx * np.float32(np.cos(angle)) - dy * np.float32(np.sin(angle))
            )
            depth = np.minimum(depth, edge)
        depth = np.minimum(depth, 1.5 - np.hypot(dx, dy))
        bevel = np.clip(depth / np.float32(0.04), 0, 1)
        top = np.maximum(1 + dy * np.float32(slope[0]) + dx * np.float32(slope[1]), 0.2)
        out: Floats = np.float32(height) * bevel * top
        return out

    return profile


def _empty(rng: Rng, shape: Shape, px: int) -> Floats:
    """Nothing, or a supporting film with a few grains of dust."""
    out = np.zeros(shape, np.float32)
    if rng.random() < 0.6:
        out += np.float32(rng.uniform(0, 0.03))
        for _ in range(_count(rng, 3, shape, px)):
            y, x = rng.uniform(0, 1, 2) * shape
            radius = _log_uniform(rng, 0.004, 0.03) * px
            _stamp(out, y, x, radius, _ball(rng, _log_uniform(rng, 0.03, 0.5)))
    return out


def _cells(rng: Rng, shape: Shape, px: int) -> Floats:
    """Soft round bodies with a nucleus and vesicles, from one to a layer of them."""
    out = np.zeros(shape, np.float32)
    height, size = _log_uniform(rng, 0.1, 1.0), _log_uniform(rng, 0.1, 0.6)
    for _ in range(max(_count(rng, min(0.25 / size**2, 25), shape, px), 1)):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius = size * px * rng.uniform(0.6, 1.3)
        _stamp(
            out, y, x, radius, _ball(rng, height * rng.uniform(0.5, 1.2), rng.uniform(0.4, 1.5))
        )
        inner = rng.normal(0, 0.25, 2) * radius
        _stamp(out, y + inner[0], x + inner[1], radius * 0.4, _ball(rng, height * 0.4, 0.8))
    texture = _noise(rng, shape, px, -rng.uniform(2.0, 3.2), 6.0)
    out *= 1 + np.float32(rng.uniform(0.03, 0.2)) * texture
    return np.maximum(out, 0)


def _membranes(rng: Rng, shape: Shape, px: int) -> Floats:
    """Thin folded sheets: level lines of a random field over a weak film."""
    field = _noise(rng, shape, px, -rng.uniform(4.0, 5.0), rng.uniform(1.5, 6.0))
    width = _log_uniform(rng, 0.02, 0.12)
    lines = np.exp(-((field / np.float32(width)) ** 2))
    second = np.exp(-(((field - np.float32(rng.uniform(0.3, 1.0))) / np.float32(width)) ** 2))
    inside = 1 / (1 + np.exp(np.clip(-field * 12, -30, 30)))
    height = _log_uniform(rng, 0.08, 0.7)
    out: Floats = np.float32(height) * (lines + np.float32(rng.uniform(0, 1)) * second)
    out += np.float32(rng.uniform(0, 0.5) * height + rng.uniform(0, 0.2)) * inside
    return out


def _curves(
    rng: Rng, shape: Shape, px: int, count: int, bend: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points along wandering curves, 1/700 of the field apart, as (y, x) in pixels."""
    length = int(rng.uniform(0.6, 1.8) * 700)
    start = rng.uniform(-0.2, 1.1, (count, 2)) * shape
    common = rng.uniform(0, 2 * np.pi)
    spread = rng.choice([0.3, 3.0])
    angle = common + rng.normal(0, spread, (count, 1))
    turn = np.cumsum(np.cumsum(rng.normal(0, 1, (count, length)), 1), 1)
    turn = angle + bend * turn / (length**1.5 + 1e-9)
    y = start[:, :1] + np.cumsum(np.sin(turn), 1) * px / 700
    x = start[:, 1:] + np.cumsum(np.cos(turn), 1) * px / 700
    return y.ravel(), x.ravel()


def _fibres(rng: Rng, shape: Shape, px: int) -> Floats:
    """Wandering fibres of a few thicknesses."""
    out = np.zeros(shape, np.float32)
    height = _log_uniform(rng, 0.1, 1.2)
    for width in np.exp(rng.uniform(np.log(0.002), np.log(0.025), int(rng.integers(1, 4)))):
        count = max(_count(rng, min(0.06 / width, 25), shape, px), 1)
        y, x = _curves(rng, shape, px, count, rng.uniform(0.2, 4))
        sigma = width * px
        dense = blurred(splat(shape, y, x), sigma)
        crest = 700 / px / (np.sqrt(2 * np.pi) * max(sigma, 0.3))  # of one straight fibre
        out += np.float32(height * rng.uniform(0.4, 1)) * np.minimum(dense / np.float32(crest), 3)
    return out


def _fossil(rng: Rng, shape: Shape, px: int) -> Floats:
    """Dense textured matter everywhere: coloured noise, walls of a tissue, pores."""
    slope = -rng.uniform(2.0, 3.5)
    out = np.exp(np.float32(rng.uniform(0.1, 0.5)) * _noise(rng, shape, px, slope, 1.5))
    if rng.random() < 0.6:
        low = _log_uniform(rng, 2, 10)
        fields = [_noise(rng, shape, px, -4.0, low, low * 6) for _ in range(2)]
        walls = np.exp(-np.abs(fields[0] - fields[1]) / np.float32(rng.uniform(0.1, 0.4)))
        out += np.float32(rng.uniform(0.2, 1.0)) * walls
    if rng.random() < 0.4:
        pores = _noise(rng, shape, px, -3.5, 3.0) > rng.uniform(0.8, 1.8)
        out *= 1 - np.float32(rng.uniform(0.3, 0.9)) * blurred(pores.astype(np.float32), px / 300)
    return np.asarray(out * np.float32(_log_uniform(rng, 0.15, 1.0)), np.float32)


def _particles(rng: Rng, shape: Shape, px: int) -> Floats:
    """Grains, single or in clusters, of a wide range of sizes."""
    out = np.zeros(shape, np.float32)
    median, spread = _log_uniform(rng, 0.01, 0.08), rng.uniform(0.2, 0.8)
    centres = rng.uniform(0, 1, (max(_count(rng, 3, shape, px), 1), 2)) * shape
    clustered = rng.random() < 0.6
    strength = _log_uniform(rng, 2, 20)
    for _ in range(_count(rng, min(0.08 / median**2, 70), shape, px)):
        at = centres[rng.integers(len(centres))] + rng.normal(0, 0.1, 2) * px
        y, x = at if clustered else rng.uniform(0, 1, 2) * shape
        radius = min(median * np.exp(rng.normal(0, spread)), 0.2)
        height = min(strength * radius, 1.5)
        kind = _polygon(rng, height) if rng.random() < 0.2 else _ball(rng, height)
        _stamp(out, y, x, radius * px, kind)
    return out


def _electrode(rng: Rng, shape: Shape, px: int) -> Floats:
    """Large crystal flakes, dendrites or a coated foil with debris around them."""
    out = np.zeros(shape, np.float32)
    height = _log_uniform(rng, 0.2, 1.1)
    for _ in range(max(_count(rng, _log_uniform(rng, 0.3, 3), shape, px), 1)):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius = _log_uniform(rng, 0.12, 1.0) * px
        _stamp(out, y, x, radius, _polygon(rng, height * rng.uniform(0.4, 1.2)))
    inside = np.minimum(out / np.float32(height), 1)
    mottle = _noise(rng, shape, px, -rng.uniform(2.6, 3.4), 2.0)
    out *= 1 + np.float32(rng.uniform(0.02, 0.12)) * mottle
    cloud = np.maximum(_noise(rng, shape, px, -3.0, 1.5) - np.float32(rng.uniform(0, 1.5)), 0)
    out += np.float32(_log_uniform(rng, 0.01, 0.15)) * cloud * (1 - 0.7 * inside)
    if rng.random() < 0.15:
        out = out + np.float32(0.6) * _fibres(rng, shape, px)
    return np.maximum(out, 0)


def _crystals(rng: Rng, shape: Shape, px: int) -> Floats:
    """Crystals as large as the field: flat inside, with terraces and cracks."""
    out = np.zeros(shape, np.float32)
    height = _log_uniform(rng, 0.15, 1.6)
    for _ in range(max(_count(rng, _log_uniform(rng, 0.3, 1.5), shape, px), 1)):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius, own = _log_uniform(rng, 0.3, 1.3) * px, height * rng.uniform(0.4, 1.0)
        _stamp(out, y, x, radius, _polygon(rng, own, tilt=0.12))
        for _ in range(rng.integers(0, 4)):
            dy, dx = rng.normal(0, 0.35, 2) * radius
            step = own * rng.uniform(-0.35, 0.35)
            reach = radius * _log_uniform(rng, 0.1, 0.7)
            _stamp(out, y + dy, x + dx, reach, _polygon(rng, step, tilt=0.1))
    out = np.maximum(out, 0)
    covered = np.minimum(out / np.float32(0.3 * height), 1)
    if rng.random() < 0.5:  # cracks and wisps that let the beam through
        field = _noise(rng, shape, px, -rng.uniform(3.6, 4.6), rng.uniform(1.5, 5.0))
        lines = np.exp(-((field / np.float32(_log_uniform(rng, 0.02, 0.1))) ** 2))
        out *= 1 - np.float32(rng.uniform(0.1, 0.8)) * lines
    if rng.random() < 0.6:
        out += (
            np.float32(_log_uniform(rng, 0.005, 0.06))
            * covered
            * _noise(rng, shape, px, -rng.uniform(2.2, 3.2), 2.0)
        )
    return np.asarray(np.maximum(out, 0), np.float32)


def _slab(rng: Rng, shape: Shape, px: int) -> Floats:
    """A sheet over the whole field or up to an edge: as smooth as the illumination."""
    y, x = _grid(shape, px)
    waves = _noise(rng, shape, px, -rng.uniform(3.0, 4.0), 0.7, 12.0)
    extent = float(np.hypot(shape[0], shape[1]) / px)
    gradient = rng.normal(0, 0.45, 2) / max(extent / 1.4, 1)
    out = 1 + np.float32(rng.uniform(0.05, 0.35)) * waves
    out = out + np.float32(gradient[0]) * (y - shape[0] / px / 2)
    out = out + np.float32(gradient[1]) * (x - shape[1] / px / 2)
    if rng.random() < 0.5:
        out *= _edge(rng, shape, px)
    if rng.random() < 0.5:
        out = out + np.float32(rng.uniform(0.01, 0.1)) * _noise(rng, shape, px, -2.6, 6.0)
    return np.asarray(np.maximum(out, 0) * np.float32(_log_uniform(rng, 0.08, 1.6)), np.float32)


def _edge(rng: Rng, shape: Shape, px: int) -> Floats:
    """1 on one side of a wavy border through the field, a sharp step or a long wedge."""
    y, x = _grid(shape, px)
    angle = rng.uniform(0, 2 * np.pi)
    cy, cx = rng.uniform(0.15, 0.85, 2) * (shape[0] / px, shape[1] / px)
    bend = _noise(rng, shape, px, -3.3, 1.0)
    away = (x - cx) * np.float32(np.cos(angle)) + (y - cy) * np.float32(np.sin(angle))
    away = away + np.float32(_log_uniform(rng, 0.002, 0.08)) * bend
    out: Floats = np.clip(away / np.float32(_log_uniform(rng, 0.003, 0.5)), 0, 1)
    return out


_MAKERS: dict[str, Callable[[Rng, Shape, int], Floats]] = {
    "empty": _empty,
    "cells": _cells,
    "membranes": _membranes,
    "fibres": _fibres,
    "fossil": _fossil,
    "particles": _particles,
    "electrode": _electrode,
    "crystals": _crystals,
    "slab": _slab,
}
_SHARES = {
    "empty": 0.14, "cells": 0.13, "membranes": 0.08, "fibres": 0.08, "fossil": 0.13,
    "particles": 0.09, "electrode": 0.11, "crystals": 0.13, "slab": 0.11,
}  # fmt: skip


def _specimen(kind: str) -> Callable[..., Floats]:
    def draw(rng: Rng, shape: Shape, field_px: int | None = None) -> Floats:
        return draw_specimen(rng, shape, kind, field_px=field_px)

    draw.__doc__ = _MAKERS[kind].__doc__
    return draw


SPECIMENS: dict[str, Callable[..., Floats]] = {kind: _specimen(kind) for kind in _MAKERS}


def draw_specimen(
    rng: Rng, shape: Shape, kind: str | None = None, *, field_px: int | None = None
) -> Floats:
    """Transmission of a random specimen.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (H, W)
        Pixels to make; larger than a field for a mosaic.
    kind : str or None
        Name in `SPECIMENS`; None mixes all kinds, sometimes two on top of each other.
    field_px : int or None
        Pixels along one field of view; the shorter side where None.

    Returns
    -------
    (H, W) float32
        Transmission in (0, 1.6].
    """
    px = min(shape) if field_px is None else field_px
    rim = max(px // 24, 4)  # room for the fringes of what lies just outside
    padded = (shape[0] + 2 * rim, shape[1] + 2 * rim)
    kinds = [kind] if kind is not None else _mix(rng)
    thickness = np.zeros(padded, np.float32)
    for name in kinds:
        thickness += _MAKERS[name](rng, padded, px)
    if thickness.max() > 3.5:
        thickness = np.minimum(thickness, 3.5)
    image = image_of(rng, thickness, px)
    return np.ascontiguousarray(image[rim:-rim, rim:-rim])


def _mix(rng: Rng) -> list[str]:
    names, shares = list(_SHARES), np.array(list(_SHARES.values()))
    first = str(rng.choice(names, p=shares / shares.sum()))
    if first != "empty" and rng.random() < 0.25:
        return [first, str(rng.choice(names[1:]))]
    return [first]
