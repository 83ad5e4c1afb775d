"""How much each part of the joint stage may change."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JointOptions"]


@dataclass(frozen=True)
class JointOptions:
    """How much each part may change; all amplitudes are of Legendre terms of the logarithm.

    Attributes
    ----------
    shared_degree, tile_degree : int
        Of f and of g_i.
    level_drift, shape_drift : float
        Rms of a tile's level and tilt about the scan's mean. A term of degree d has
        ``shape_drift / d^1.5``. Measured between empty tiles of one mosaic of 16 minutes at TLS
        BL01B: level 1-4 %, smooth change 1-3.5 % rms.
    shared_error : float
        Rms of each term of f, by degree likewise: error of a reference of yesterday.
    level_h, shape_h : float
        Hours over which drift of the level, and of the shape, forgets; tiles taken closer
        together are alike. With a short memory of the shape a row of tiles, half an hour, may be
        tilted by itself, and overlaps cannot tell that from steps of the level.
    slow_drift, slow_h : float
        Rms and memory (hours) of the level's slow drift, on top: over a mosaic of a day the
        fast one alone would have the level stand still, and a tilt of f take its place.
    least_tiles, least_overlaps : int
        With fewer, the stage steps aside.
    least_seam : float
        Log difference in the overlaps (of blocks) below which there is nothing to gain: on
        simulated mosaics the stage itself is off by 0.5-1 %.
    greatest_seam : float
        Log difference left in the overlaps of a large mosaic above which the stage steps aside:
        its illumination has not one shape. In simulated ones it helped up to 0.04.
    """

    shared_degree: int = 5
    tile_degree: int = 3
    level_drift: float = 0.02
    shape_drift: float = 0.04
    shared_error: float = 0.06
    level_h: float = 0.8
    shape_h: float = 2.0
    slow_drift: float = 0.09
    slow_h: float = 40.0
    least_tiles: int = 4
    least_overlaps: int = 4
    least_seam: float = 0.007
    greatest_seam: float = 0.08
