"""Pixels that need care: the lit field, saturated, dead and hot pixels, and their filling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["fill_isolated", "level_of", "lit_field", "lit_in_tiles", "outliers", "saturated"]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

CELLS = 128  # the aperture is looked for on about this many cells across the field
DIM = 0.5  # an apertured corner is darker than this share of the median (pedestal included)
JUMP = 1.25  # and its edge brightens by this factor within `EDGE` cells on either side
BRIGHT = 0.9  # of the tiles at a place are dimmer: specimen dims the beam, never the pedestal
FLAT = 0.02  # of the brightness beyond the edge: counts behind an aperture vary by less
EDGE = 4  # cells: 3 % of the field, where smooth illumination changes by < 10 %
NEIGHBOURS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
SIGMA_FLOOR = 0.005  # of the level; below it noise-free (simulated, averaged) data
SPREADS = 3  # of the neighbours, robust, that an outlier lies beyond
BAND = 64  # rows looked at together
ENOUGH = 3  # valid neighbours that a median needs


def level_of(image: NDArray[Any]) -> float:
    """Median of the finite pixels `(Y, X)`, from about 64 x 64 of them; 0.0 if none."""
    step = max(1, min(image.shape) // 64)
    some = image[::step, ::step]
    some = some[np.isfinite(some)]
    return float(np.median(some)) if some.size else 0.0


def lit_field(image: NDArray[Any]) -> Mask:
    """Find the part of the field that the aperture leaves open.

    An apertured corner is a dim region (below half of the median) that holds a corner of the
    field, ends at a sharp edge and is flat. A vignette is dim too, yet has no edge; a dim half of
    the beam has one, yet is not flat; an absorbing specimen has one, yet rarely reaches a corner
    AND halves the beam. Without a dark image
    the camera's pedestal lights the corners: at TLS BL01B they read 0.1 to 0.4 of the median.

    Parameters
    ----------
    image : (Y, X) counts
        Background, dark removed where it is known.

    Returns
    -------
    (Y, X) bool
        True where the beam arrives. All True where no aperture is found.
    """
    cell = max(1, max(image.shape) // CELLS)
    lit = np.ones(image.shape, bool)
    if min(image.shape) < 4 * EDGE * cell:
        return lit
    coarse = _block_mean(np.asarray(image, np.float32), cell)
    level = level_of(image)
    dim = coarse < DIM * level
    corners = (dim[0, 0], dim[0, -1], dim[-1, 0], dim[-1, -1])
    if level <= 0 or not any(corners):
        return lit
    labels, _ = ndimage.label(dim)
    for label in {int(labels[y, x]) for y in (0, -1) for x in (0, -1)} - {0}:
        _close_corner(lit, np.asarray(image), labels == label, coarse, cell)
    return lit


def lit_in_tiles(tiles: NDArray[Any]) -> Mask:
    """Find the part of the field that the aperture leaves open, from raw tiles of a scan.

    A specimen dims the beam and not the pedestal of a closed corner, so the mean over tiles
    shows less of the corner's edge than the tiles that are brightest at each place.

    Parameters
    ----------
    tiles : (N, Y, X) counts
        Raw, dark removed where it is known.

    Returns
    -------
    (Y, X) bool
        As `lit_field` returns it.
    """
    place = round(BRIGHT * (len(tiles) - 1))
    bright = np.empty(tiles.shape[1:], np.float32)
    for top in range(0, len(bright), BAND):
        rows = slice(top, top + BAND)
        bright[rows] = np.partition(tiles[:, rows], place, axis=0)[place]
    return lit_field(bright)


def _close_corner(lit: Mask, image: NDArray[Any], region: Mask, coarse: Image, cell: int) -> None:
    """Mark one dim region as unlit, to the pixel, if its edge is sharp."""
    # Work in the region's own neighbourhood: it is a small part of the field.
    rows, columns = ndimage.find_objects(region.view(np.uint8))[0]
    rows = slice(max(0, rows.start - 2 * EDGE), rows.stop + 2 * EDGE)
    columns = slice(max(0, columns.start - 2 * EDGE), columns.stop + 2 * EDGE)
    region, coarse = region[rows, columns], coarse[rows, columns]
    reach = ndimage.binary_dilation(region, iterations=EDGE // 2)
    beyond = ndimage.binary_dilation(reach, iterations=EDGE // 2) & ~reach
    # From outside the field nothing erodes: the corner itself is the darkest part.
    inside = ndimage.binary_erosion(region, iterations=EDGE // 2, border_value=1)
    rim = region & ~inside
    if not beyond.any() or not rim.any():
        return
    high, edge = float(np.median(coarse[beyond])), float(np.median(coarse[rim]))
    low = float(np.median(coarse[inside])) if inside.any() else edge
    if high <= JUMP * max(edge, low):
        return
    deep = ndimage.binary_erosion(region, iterations=EDGE, border_value=1)
    behind = coarse[deep if deep.any() else inside if inside.any() else region]
    if np.subtract(*np.quantile(behind, (0.9, 0.1))) > FLAT * high:
        return  # a dim part of the beam
    # The wide reach of the threshold keeps the half-lit rim of the aperture out.
    part = np.s_[rows.start * cell : rows.stop * cell, columns.start * cell : columns.stop * cell]
    here, shape = lit[part], lit[part].shape
    core = ndimage.binary_erosion(region, border_value=1)
    dim = image[part] < low + 0.75 * (high - low)
    here[_upsample(core, cell, shape) | (_upsample(reach, cell, shape) & dim)] = False


def _upsample(mask: Mask, cell: int, shape: tuple[int, ...]) -> Mask:
    """Cells to pixels; the last, cut cell takes its neighbour's value."""
    rows = np.minimum(np.arange(shape[0]) // cell, mask.shape[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // cell, mask.shape[1] - 1)
    full: Mask = mask[rows[:, None], columns]
    return full


def _block_mean(image: Image, cell: int) -> Image:
    """Means over cells of `cell` x `cell` px; NaN and infinite pixels count as zero."""
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    part = image[: rows * cell, : columns * cell]
    finite = np.isfinite(part)
    if not finite.all():
        part = np.where(finite, part, np.float32(0))
    summed = np.add.reduceat(part, np.arange(0, columns * cell, cell), axis=1)
    summed = summed.reshape(rows, cell, columns).sum(axis=1)
    mean: Image = summed / np.float32(cell * cell)
    return mean


def saturated(raw: NDArray[Any], limit: float | None) -> Mask:
    """Pixels at the end of the camera's range.

    Parameters
    ----------
    raw : (Y, X) counts
        As read from the file: the type tells the range.
    limit : float or None
        Full scale of the camera (counts), for example 4095. None: the greatest value of an
        integer type; floating-point data has no known end.
    """
    if limit is None:
        if not np.issubdtype(raw.dtype, np.integer):
            return np.zeros(raw.shape, bool)
        limit = float(np.iinfo(raw.dtype).max)
    return np.asarray(raw >= limit)


def outliers(ratio: Image, usable: Mask, sigma: float, contrast: float) -> Mask:
    """Find dead (stuck low) and hot pixels: one pixel far off its eight neighbours.

    A pixel counts as an outlier where it differs from the median of its usable neighbours by
    more than `sigma` times the image's noise, by more than three times the neighbours' own
    spread (edges), AND by more than `contrast` times that median. Only candidates are looked
    at closely: second differences along rows or columns above `sigma` times the noise and
    above `contrast` / 2 of the image's level.

    Parameters
    ----------
    ratio : (Y, X) float32
        Transmission.
    usable : (Y, X) bool
    sigma, contrast : float

    Returns
    -------
    (Y, X) bool
    """
    if min(ratio.shape) < 3:
        return np.zeros(ratio.shape, bool)
    step = max(1, min(ratio.shape[0], ratio.shape[1] - 2) // 64)
    some = [ratio[::step, k : k - 2 or None : step] for k in range(3)]
    across = _second_difference(*some)
    across = across[np.isfinite(across)]
    noise = float(np.median(across)) if across.size else 0.0
    noise *= 1.4826 / np.sqrt(6)  # of one pixel
    level = abs(level_of(ratio))
    noise = max(noise, SIGMA_FLOOR * level)
    # A pixel beside another bad one shows half of its deviation in the second difference.
    limit = min(max(0.9 * sigma * noise, 0.5 * contrast * level), np.finfo(np.float32).max)
    candidate = _jumps(ratio, np.float32(limit))
    candidate &= usable
    y, x = _places(candidate)
    around = _neighbours(ratio, usable, y, x)
    middle, count = _median(around)
    spread = 1.4826 * _median(np.abs(around - middle[:, None]))[0]
    value = ratio[y, x].astype(np.float64)
    off = np.abs(value - middle)
    bad = (off > sigma * noise) & (off > SPREADS * spread) & (off > contrast * np.abs(middle))
    found = np.zeros(ratio.shape, bool)
    found[y, x] = bad & (count >= ENOUGH)
    return found


def _jumps(ratio: Image, limit: np.float32) -> Mask:
    """Pixels whose second difference along rows or columns is above a limit."""
    rows = ratio.shape[0]
    out = np.zeros(ratio.shape, bool)
    for first in range(0, rows, BAND):  # what is between stays in the cache
        part = ratio[first : first + BAND]
        across = _second_difference(part[:, :-2], part[:, 1:-1], part[:, 2:])
        np.greater(across, limit, out=out[first : first + BAND, 1:-1])
        low, high = max(1, first), min(rows - 1, first + BAND)
        along = _second_difference(
            ratio[low - 1 : high - 1], ratio[low:high], ratio[low + 1 : high + 1]
        )
        out[low:high] |= along > limit
    return out


def _second_difference(before: Image, here: Image, after: Image) -> Image:
    """``|2 here - before - after|`` with a single temporary."""
    out: Image = before + after
    out *= np.float32(-0.5)
    out += here
    np.abs(out, out=out)
    out *= 2
    return out


def fill_isolated(image: Image, bad: Mask, usable: Mask) -> Mask:
    """Replace, in place, bad pixels by the median of their usable neighbours.

    Parameters
    ----------
    image : (Y, X) float32
    bad : (Y, X) bool
        Pixels to replace.
    usable : (Y, X) bool
        Pixels to take values from.

    Returns
    -------
    (Y, X) bool
        Pixels that were replaced: those with three usable ones among their eight neighbours.
    """
    y, x = _places(bad)
    middle, count = _median(_neighbours(image, usable, y, x))
    done = count >= ENOUGH
    y, x = y[done], x[done]
    image[y, x] = middle[done]
    filled = np.zeros(image.shape, bool)
    filled[y, x] = True
    return filled


def _places(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the True pixels; for few of them much faster than `nonzero`."""
    flat = np.flatnonzero(mask)
    return flat // mask.shape[1], flat % mask.shape[1]


def _neighbours(
    image: Image, usable: Mask, y: NDArray[np.intp], x: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The eight pixels around each of `n` pixels `(n, 8)`; NaN where outside or unusable."""
    rows, columns = image.shape
    out = np.full((y.size, 8), np.nan)
    for k, (dy, dx) in enumerate(NEIGHBOURS):
        yy, xx = y + dy, x + dx
        there = (yy >= 0) & (yy < rows) & (xx >= 0) & (xx < columns)
        yy, xx = yy[there], xx[there]
        out[there, k] = np.where(usable[yy, xx], image[yy, xx], np.nan)
    return out


def _median(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Median and count of the numbers in each row `(n, 8)`; NaN where there are none."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    rows = np.arange(len(ordered))
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    high = np.minimum(high, values.shape[1] - 1)
    return (ordered[rows, low] + ordered[rows, high]) / 2, count
