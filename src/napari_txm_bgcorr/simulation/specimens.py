"""Specimens of a full-field X-ray microscope as maps of transmission."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .random_fields import Floats, blurred
from .specimen_kinds import MAKERS, Rng, Shape, log_uniform

__all__ = ["FREE", "SPECIMENS", "draw_specimen", "free_of_sample", "image_of"]

LEAST, MOST = 0.02, 1.6  # limits of the transmission
FREE = 0.003
"""Greatest difference of the transmission from 1 in a pixel that is free of sample."""


def image_of(rng: Rng, thickness: Floats, field_px: int, phase: float = 1.0) -> Floats:
    """Image of an object: absorption, blur of the optics, and fringes of phase contrast.

    The fringe is a difference of Gaussians of the optical thickness, moved a little to one
    side: bright just outside an edge, stronger on one side, as Zernike phase contrast and a
    condenser off the axis give. Sometimes it is dark (the contrast reversed), and sometimes a
    weaker ring of the other sign surrounds it, as out of focus.

    Parameters
    ----------
    thickness : (H, W) float32
        Optical thickness, 0 where there is no specimen.
    field_px : int
        Pixels along the field of view.
    phase : float
        Up to how many times stronger the fringes are than those of what absorbs as much.

    Returns
    -------
    (H, W) float32
        Transmission in (0, 1.6].
    """
    scale = field_px / 512
    image = blurred(thickness, log_uniform(rng, 0.5, 4.0) * scale)  # depth beyond the focus
    if rng.random() < (0.75 if phase == 1 else 0.95):
        near = blurred(image, rng.uniform(0.8, 2.0) * scale)
        sigma = log_uniform(rng, 2.5, 12.0) * scale
        wide = blurred(image, sigma)
        move = np.rint(rng.normal(0, 2.5, 2) * scale).astype(int)
        wide = np.roll(wide, tuple(move), (0, 1))
        strength = np.float32(log_uniform(rng, 0.12, 1.3) * log_uniform(rng, phase**0.5, phase))
        strength *= np.float32(rng.choice([1, -0.5], p=[0.88, 0.12]))
        if rng.random() < 0.3:  # defocus: a second ring of the other sign around the first
            ring = blurred(wide, 1.2 * sigma)
            image = image + np.float32(rng.uniform(0.3, 0.8)) * strength * (ring - wide)
        image = image - strength * (wide - near)
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


_SHARES = {
    "empty": 0.12, "cells": 0.09, "membranes": 0.06, "fibres": 0.06, "fossil": 0.10,
    "particles": 0.07, "electrode": 0.09, "crystals": 0.09, "slab": 0.08, "clusters": 0.08,
    "vesicles": 0.10, "film": 0.03, "chip": 0.03,
}  # fmt: skip


_PHASE = {"vesicles": 6.0, "cells": 3.0, "membranes": 2.0}
"""Greatest factor on the fringes, for what refracts more than it absorbs."""


def _specimen(kind: str) -> Callable[..., Floats]:
    def draw(rng: Rng, shape: Shape, field_px: int | None = None) -> Floats:
        return draw_specimen(rng, shape, kind, field_px=field_px)

    draw.__doc__ = MAKERS[kind].__doc__
    return draw


SPECIMENS: dict[str, Callable[..., Floats]] = {kind: _specimen(kind) for kind in MAKERS}


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
        thickness += MAKERS[name](rng, padded, px)
    if thickness.max() > 3.5:
        thickness = np.minimum(thickness, 3.5)
    image = image_of(rng, thickness, px, max(_PHASE.get(name, 1.0) for name in kinds))
    return np.ascontiguousarray(image[rim:-rim, rim:-rim])


def _mix(rng: Rng) -> list[str]:
    names, shares = list(_SHARES), np.array(list(_SHARES.values()))
    first = str(rng.choice(names, p=shares / shares.sum()))
    if first != "empty" and rng.random() < 0.25:
        return [first, str(rng.choice(names[1:]))]
    return [first]
