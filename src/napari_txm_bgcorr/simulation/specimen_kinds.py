"""Kinds of specimen as maps of optical thickness, each drawn from a few random numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .random_fields import Floats, blurred, coloured, power_law, splat

__all__ = ["MAKERS", "Rng", "Shape", "log_uniform"]

Rng = np.random.Generator
Shape = tuple[int, int]


def _noise(rng: Rng, shape: Shape, px: int, slope: float, low: float, high: float = 1e3) -> Floats:
    return coloured(int(rng.integers(2**62)), shape, px, power_law(slope, low, high))


def _grid(shape: Shape, px: int) -> tuple[Floats, Floats]:
    y = ((np.arange(shape[0]) + 0.5) / px).astype(np.float32)
    x = ((np.arange(shape[1]) + 0.5) / px).astype(np.float32)
    return y[:, None], x[None, :]


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Even in the logarithm between two values."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _count(rng: Rng, per_field: float, shape: Shape, px: int) -> int:
    return int(rng.poisson(per_field * shape[0] * shape[1] / px**2))


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
        out += np.float32(max(rng.uniform(-0.06, 0.03), 0))  # seldom in the sample alone
        for _ in range(_count(rng, 3, shape, px)):
            y, x = rng.uniform(0, 1, 2) * shape
            radius = log_uniform(rng, 0.004, 0.03) * px
            _stamp(out, y, x, radius, _ball(rng, log_uniform(rng, 0.03, 0.5)))
    return out


def _cells(rng: Rng, shape: Shape, px: int) -> Floats:
    """Soft round bodies with a nucleus and vesicles, from one to a layer of them."""
    out = np.zeros(shape, np.float32)
    height, size = log_uniform(rng, 0.1, 1.0), log_uniform(rng, 0.1, 0.6)
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
    width = log_uniform(rng, 0.02, 0.12)
    lines = np.exp(-((field / np.float32(width)) ** 2))
    second = np.exp(-(((field - np.float32(rng.uniform(0.3, 1.0))) / np.float32(width)) ** 2))
    inside = 1 / (1 + np.exp(np.clip(-field * 12, -30, 30)))
    height = log_uniform(rng, 0.08, 0.7)
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
    height = log_uniform(rng, 0.1, 1.2)
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
        low = log_uniform(rng, 2, 10)
        fields = [_noise(rng, shape, px, -4.0, low, low * 6) for _ in range(2)]
        walls = np.exp(-np.abs(fields[0] - fields[1]) / np.float32(rng.uniform(0.1, 0.4)))
        out += np.float32(rng.uniform(0.2, 1.0)) * walls
    if rng.random() < 0.4:
        pores = _noise(rng, shape, px, -3.5, 3.0) > rng.uniform(0.8, 1.8)
        out *= 1 - np.float32(rng.uniform(0.3, 0.9)) * blurred(pores.astype(np.float32), px / 300)
    return np.asarray(out * np.float32(log_uniform(rng, 0.15, 1.0)), np.float32)


def _particles(rng: Rng, shape: Shape, px: int) -> Floats:
    """Grains, single or in clusters, of a wide range of sizes."""
    out = np.zeros(shape, np.float32)
    median, spread = log_uniform(rng, 0.01, 0.08), rng.uniform(0.2, 0.8)
    centres = rng.uniform(0, 1, (max(_count(rng, 3, shape, px), 1), 2)) * shape
    clustered = rng.random() < 0.6
    strength = log_uniform(rng, 2, 20)
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
    height = log_uniform(rng, 0.2, 1.1)
    for _ in range(max(_count(rng, log_uniform(rng, 0.3, 3), shape, px), 1)):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius = log_uniform(rng, 0.12, 1.0) * px
        _stamp(out, y, x, radius, _polygon(rng, height * rng.uniform(0.4, 1.2)))
    inside = np.minimum(out / np.float32(height), 1)
    mottle = _noise(rng, shape, px, -rng.uniform(2.6, 3.4), 2.0)
    out *= 1 + np.float32(rng.uniform(0.02, 0.12)) * mottle
    cloud = np.maximum(_noise(rng, shape, px, -3.0, 1.5) - np.float32(rng.uniform(0, 1.5)), 0)
    out += np.float32(log_uniform(rng, 0.01, 0.15)) * cloud * (1 - 0.7 * inside)
    if rng.random() < 0.15:
        out = out + np.float32(0.6) * _fibres(rng, shape, px)
    return np.maximum(out, 0)


def _crystals(rng: Rng, shape: Shape, px: int) -> Floats:
    """Crystals as large as the field: flat inside, with terraces and cracks."""
    out = np.zeros(shape, np.float32)
    height = log_uniform(rng, 0.15, 1.6)
    for _ in range(max(_count(rng, log_uniform(rng, 0.3, 1.5), shape, px), 1)):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius, own = log_uniform(rng, 0.3, 1.3) * px, height * rng.uniform(0.4, 1.0)
        _stamp(out, y, x, radius, _polygon(rng, own, tilt=0.12))
        for _ in range(rng.integers(0, 4)):
            dy, dx = rng.normal(0, 0.35, 2) * radius
            step = own * rng.uniform(-0.35, 0.35)
            reach = radius * log_uniform(rng, 0.1, 0.7)
            _stamp(out, y + dy, x + dx, reach, _polygon(rng, step, tilt=0.1))
    out = np.maximum(out, 0)
    covered = np.minimum(out / np.float32(0.3 * height), 1)
    if rng.random() < 0.5:  # cracks and wisps that let the beam through
        field = _noise(rng, shape, px, -rng.uniform(3.6, 4.6), rng.uniform(1.5, 5.0))
        lines = np.exp(-((field / np.float32(log_uniform(rng, 0.02, 0.1))) ** 2))
        out *= 1 - np.float32(rng.uniform(0.1, 0.8)) * lines
    if rng.random() < 0.6:
        out += (
            np.float32(log_uniform(rng, 0.005, 0.06))
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
    return np.asarray(np.maximum(out, 0) * np.float32(log_uniform(rng, 0.08, 1.6)), np.float32)


def _border(rng: Rng, shape: Shape, px: int) -> Floats:
    """Distance, in fields, from a wavy border through the field; negative outside."""
    y, x = _grid(shape, px)
    angle = rng.uniform(0, 2 * np.pi)
    cy, cx = rng.uniform(0.15, 0.85, 2) * (shape[0] / px, shape[1] / px)
    bend = _noise(rng, shape, px, -rng.uniform(3.3, 5.0), 1.0)
    away: Floats = (x - cx) * np.float32(np.cos(angle)) + (y - cy) * np.float32(np.sin(angle))
    return away + np.float32(log_uniform(rng, 0.002, 0.08)) * bend


def _edge(rng: Rng, shape: Shape, px: int) -> Floats:
    """1 on one side of a wavy border through the field, a sharp step or a long wedge."""
    away = _border(rng, shape, px)
    out: Floats = np.clip(away / np.float32(log_uniform(rng, 0.003, 0.5)), 0, 1)
    return out


def _clusters(rng: Rng, shape: Shape, px: int) -> Floats:
    """Dense round particles, alone or touching, with ragged debris: a battery's cathode.

    Up to nine tenths of the beam are absorbed in the middle; between them it is free.
    """
    out = np.zeros(shape, np.float32)
    size, strength = log_uniform(rng, 0.02, 0.13), log_uniform(rng, 0.6, 2.3)
    nests = rng.uniform(-0.05, 1.05, (_count(rng, log_uniform(rng, 1.5, 14), shape, px) + 1, 2))
    for nest in nests * shape:
        for k in range(int(rng.geometric(0.45))):
            y, x = nest + (k > 0) * rng.normal(0, 1.2, 2) * size * px
            radius = size * np.exp(rng.normal(0, 0.35))
            thick = strength * min(radius / size, 1.2)
            _stamp(out, y, x, radius * px, _ball(rng, thick, rng.uniform(0.35, 0.6)))
        for _ in range(int(rng.poisson(3))):
            y, x = nest + rng.normal(0, 2.5, 2) * size * px
            radius = size * rng.uniform(0.1, 0.5)
            _stamp(out, y, x, radius * px, _ball(rng, strength * radius / size * 0.5, 1.0))
    grain = _noise(rng, shape, px, -2.4, 20.0)
    out *= 1 + np.float32(rng.uniform(0.0, 0.12)) * grain
    return np.maximum(out, 0)


def _vesicles(rng: Rng, shape: Shape, px: int) -> Floats:
    """Bubbles with bright rims, overlapping, over dark bodies: a cell that fills the field."""
    out = np.zeros(shape, np.float32)
    height, size = log_uniform(rng, 0.06, 0.5), log_uniform(rng, 0.035, 0.14)
    rim, fringe = rng.uniform(0.0, 0.8), (log_uniform(rng, 0.005, 0.02), rng.uniform(0, 0.8))
    for _ in range(_count(rng, min(log_uniform(rng, 0.1, 0.8) / size**2, 60), shape, px) + 1):
        y, x = rng.uniform(-0.1, 1.1, 2) * shape
        radius = size * px * np.exp(rng.normal(0, 0.6))
        _stamp(
            out,
            y,
            x,
            radius,
            _bubble(
                rng, height * rng.uniform(0.3, 1.3), rim, (fringe[0] * px / radius, fringe[1])
            ),
        )
    if rng.random() < 0.7:
        body = _noise(rng, shape, px, -rng.uniform(3.6, 5.0), 1.2) - np.float32(rng.normal(0, 0.8))
        body = np.clip(body / np.float32(log_uniform(rng, 0.02, 0.6)), 0, 1)
        body *= 1 + np.float32(rng.uniform(0.03, 0.25)) * _noise(rng, shape, px, -2.6, 5.0)
        out += np.float32(log_uniform(rng, 0.05, 0.8)) * body
    return np.maximum(out, -0.4)


def _bubble(
    rng: Rng, height: float, rim: float, fringe: tuple[float, float]
) -> Callable[[Floats, Floats], Floats]:
    """Round body whose shell is thicker than its inside by the share `rim`.

    A bright `fringe` (width in radii, share of the height) lies around it.
    """
    stretch, turn, width = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi), min(fringe[0], 0.25)
    a, b = np.float32(np.cos(turn)), np.float32(np.sin(turn))

    def profile(dy: Floats, dx: Floats) -> Floats:
        r2 = (dx * a + dy * b) ** 2 + ((dy * a - dx * b) / np.float32(stretch)) ** 2
        inside = np.sqrt(np.maximum(1 - r2, 0))
        hollow = np.sqrt(np.maximum(np.float32(0.8) - r2, 0))
        out: Floats = inside - np.float32(rim) * hollow
        outside = (np.sqrt(r2) - np.float32(1 + width)) / np.float32(width)
        out -= np.float32(fringe[1]) * np.exp(-np.square(outside))
        return np.float32(height) * out

    return profile


def _film(rng: Rng, shape: Shape, px: int) -> Floats:
    """Weak uniform sheet over most of the field, its border a bright line more than a step."""
    out = np.zeros(shape, np.float32)
    height = log_uniform(rng, 0.005, 0.08)
    out += np.float32(height * (rng.random() < 0.3))
    for _ in range(int(rng.integers(1, 3))):
        away = _border(rng, shape, px)
        own = np.float32(height * rng.uniform(0.4, 1.2))
        out += own * np.clip(away / np.float32(log_uniform(rng, 0.003, 0.3)), 0, 1)
        crest = log_uniform(rng, 0.02, 0.4) * rng.choice([-1.0, -1.0, 0.7])
        narrow = np.float32(log_uniform(rng, 0.003, 0.02))
        out += np.float32(crest) * np.exp(-np.square(away / narrow))
    if rng.random() < 0.5:
        out += np.float32(height * rng.uniform(0.05, 0.3)) * _noise(rng, shape, px, -2.6, 4.0)
    if rng.random() < 0.5:
        out += _empty(rng, shape, px)
    return out


def _chip(rng: Rng, shape: Shape, px: int) -> Floats:
    """Regular mesh of wires and bars on a plate that covers all: a test chip."""
    y, x = _grid(shape, px)
    turn, height = rng.normal(0, 0.05) + rng.choice([0, 0.4, 0.8]), log_uniform(rng, 0.1, 0.8)
    along = [
        x * np.float32(np.cos(a)) + y * np.float32(np.sin(a)) + np.float32(rng.random())
        for a in (turn, turn + np.pi / 2)
    ]
    plate, period = log_uniform(rng, 0.02, 1.6), log_uniform(rng, 0.02, 0.12)
    out = np.full(shape, plate, np.float32)
    for line in along:
        wave = np.cos(line * np.float32(2 * np.pi / period)) - np.float32(rng.uniform(-0.4, 0.6))
        out += np.float32(height * rng.uniform(0.1, 0.5)) / (1 + np.exp(-3 * wave))
    for _ in range(int(rng.integers(0, 9))):
        line, across = along[::-1] if rng.random() < 0.5 else along
        start, width = rng.uniform(0, 2), log_uniform(rng, 0.006, 0.25)
        bar = np.clip(0.5 + (width / 2 - np.abs(line - np.float32(start))) * (px / 3), 0, 1)
        end = np.float32(rng.uniform(0, 2))
        bar *= np.clip(0.5 + (across - end) * np.float32(px / 3), 0, 1)
        out += np.float32(height * rng.uniform(-0.5, 1.0)) * np.asarray(bar, np.float32)
    return np.maximum(out, 0)


MAKERS: dict[str, Callable[[Rng, Shape, int], Floats]] = {
    "empty": _empty,
    "cells": _cells,
    "membranes": _membranes,
    "fibres": _fibres,
    "fossil": _fossil,
    "particles": _particles,
    "electrode": _electrode,
    "crystals": _crystals,
    "slab": _slab,
    "clusters": _clusters,
    "vesicles": _vesicles,
    "film": _film,
    "chip": _chip,
}
