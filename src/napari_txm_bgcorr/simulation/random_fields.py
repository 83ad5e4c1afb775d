"""Seeded random fields that show the same structure at every pixel count.

Lengths are fractions of the field of view, frequencies are cycles per field. The Fourier
coefficients of a seed are drawn in rings of rising frequency, so that a field of 256 px is
the field of 512 px with its finest octave left out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

__all__ = ["Floats", "Nodes", "blurred", "coloured", "power_law", "splat"]

Floats = NDArray[np.float32]
Nodes = tuple[tuple[float, float], ...]

_MARGIN = 1.25  # a field is cut out of a larger torus: its opposite edges must not match
_RINGS = (
    *(4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 161, 176, 192, 224, 256, 288, 321),
    *(352, 384, 448, 512, 576, 641, 768, 1024, 1281, 1536, 2048, 2561, 3072, 4097, 8193, 16385),
)
_CACHED = 1_200_000  # pixels; amplitudes of larger fields are made anew
_TAIL = 3e-5  # share of the variance left out where a spectrum falls for good
_REFERENCE_PX = 512  # variances are defined for the field at this pixel count


def power_law(slope: float, low: float = 1.0, high: float = 1e4) -> Nodes:
    """Nodes of a power spectrum flat below `low`, falling as `k ** slope` up to `high`.

    Parameters
    ----------
    slope : float
        Exponent of power over frequency, for example -2.7.
    low, high : float
        Cycles per field; beyond `high` the power falls steeply.

    Returns
    -------
    tuple of (cycles per field, power)
    """
    end = (high / low) ** slope
    return ((0.1, 1.0), (low, 1.0), (high, end), (high * 2, end * 1e-4), (high * 1e4, 0.0))


def coloured(
    seed: int,
    shape: tuple[int, int],
    field_px: int,
    nodes: Nodes,
    *,
    streak: tuple[float, int] = (1.0, 0),
) -> Floats:
    """Gaussian random field with a given radial power spectrum, mean 0, variance 1.

    Parameters
    ----------
    seed : int
        The same seed shows the same field at every `field_px`.
    shape : (H, W)
        Pixels to return.
    field_px : int
        Pixels along one field of view.
    nodes : tuple of (cycles per field, power)
        Power spectrum, interpolated linearly in logarithms.
    streak : (stretch, direction)
        Structure is drawn out by `stretch` along `direction`, in sixteenths of a half turn.

    Returns
    -------
    (H, W) float32
        The variance is 1 over many fields of 512 px, not in each single one.
    """
    torus = _torus(shape)
    make = _amplitude if torus[0] * torus[1] < _CACHED else _amplitude.__wrapped__
    amplitude, used = make(torus, field_px, nodes, streak)
    spectrum = _coefficients(seed, torus, used)
    spectrum *= amplitude
    field = scipy.fft.irfft2(spectrum, torus, norm="forward", overwrite_x=True)
    return np.ascontiguousarray(field[: shape[0], : shape[1]], np.float32)


def _torus(shape: tuple[int, int]) -> tuple[int, int]:
    height, width = (int(np.ceil(n * _MARGIN / 10)) * 10 for n in shape)
    return height, width


@lru_cache(maxsize=96)
def _amplitude(
    torus: tuple[int, int], field_px: int, nodes: Nodes, streak: tuple[float, int]
) -> tuple[NDArray[np.complex64], int]:
    ky = scipy.fft.fftfreq(torus[0], 1 / field_px).astype(np.float32)[:, None]
    kx = scipy.fft.rfftfreq(torus[1], 1 / field_px).astype(np.float32)[None]
    stretch, turn = streak
    a, b = np.float32(np.cos(np.pi * turn / 16)), np.float32(np.sin(np.pi * turn / 16))
    root = np.float32(np.sqrt(stretch))
    k = np.hypot((kx * a + ky * b) * root, (ky * a - kx * b) / root)
    power = _power(k, nodes)
    power[0, 0] = 0
    reference = np.arange(1, _REFERENCE_PX * _MARGIN / 2, dtype=np.float32) / _MARGIN
    cells = torus[0] * torus[1] / (field_px * _MARGIN) ** 2  # lattice points per reference one
    rings = 2 * 2 * np.pi * reference * _MARGIN * _power(reference, nodes)
    total = rings.sum() * cells
    tail = np.cumsum(rings[::-1])[::-1] < _TAIL * rings.sum()
    if tail.any():
        power[k >= reference[tail.argmax()]] = 0
    centre = np.exp(1j * np.pi * (kx + ky) / field_px)  # samples sit in the middle of pixels
    amplitude = np.sqrt(power / total).astype(np.float32) * centre.astype(np.complex64)
    amplitude.flags.writeable = False
    return amplitude, _highest_used(power)


def _power(k: Floats, nodes: Nodes) -> Floats:
    x, y = np.asarray(nodes, np.float64).T
    logs = np.interp(np.log(np.maximum(k, 1e-9)), np.log(x), np.log(np.maximum(y, 1e-30)))
    power: Floats = np.exp(logs.astype(np.float32))
    power[power < 1e-18] = 0
    return power


def _coefficients(seed: int, torus: tuple[int, int], used: int) -> NDArray[np.complex64]:
    """Complex normals in half-plane layout, in square rings of rising frequency."""
    height, width = torus
    out = np.zeros((height, width // 2 + 1), np.complex64)
    inner = 0
    for outer in _RINGS:
        rng = np.random.default_rng([seed, outer])
        _fill_ring(out, rng, inner, outer)
        inner = outer
        if inner > used:
            break
    return out


def _fill_ring(out: NDArray[np.complex64], rng: np.random.Generator, low: int, high: int) -> None:
    """Fill rows and columns of frequency low <= max(|ky|, kx) < high."""
    height, columns = out.shape

    def normals(rows: int, count: int) -> NDArray[np.complex64]:
        drawn: NDArray[np.complex64] = rng.standard_normal((rows, 2 * count), np.float32).view(
            np.complex64
        )
        return drawn

    across = min(high, columns)
    for above in (True, False):  # whole rows of positive, then of negative frequency
        first = low if above else max(low, 1)
        last = min(high, (height + 1) // 2)
        rows = normals(high - first, high)[: max(last - first, 0), :across]
        if not len(rows):
            continue
        if above:
            out[first:last, :across] = rows
        else:
            out[height - last + 1 : height - first + 1, :across] = rows[::-1]
    if low:  # the columns beside the rows that are already there
        block = normals(2 * low - 1, high - low)[:, : max(across - low, 0)]
        inside = min(low, (height + 1) // 2)
        out[:inside, low:across] = block[:inside]
        if inside > 1:
            out[height - inside + 1 :, low:across] = block[low : low + inside - 1][::-1]


def _highest_used(power: Floats) -> int:
    rows = np.flatnonzero(power.any(axis=1))
    columns = np.flatnonzero(power.any(axis=0))
    height = power.shape[0]
    return int(max(np.minimum(rows, height - rows).max(initial=1), columns.max(initial=1)))


def splat(
    shape: tuple[int, int], y: NDArray[np.float64], x: NDArray[np.float64], weight: object = 1.0
) -> Floats:
    """Add points to an image, shared bilinearly among the four pixels around each.

    Parameters
    ----------
    shape : (H, W)
    y, x : (N,) float, pixels
        Points outside the image are left out.
    weight : (N,) or scalar

    Returns
    -------
    (H, W) float32
        Sums of weights.
    """
    height, width = shape
    y0, x0 = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    fy, fx = y - y0, x - x0
    total = np.zeros(height * width)
    amount = np.broadcast_to(np.asarray(weight, np.float64), y.shape)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            row, column = y0 + dy, x0 + dx
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            total += np.bincount(
                (row * width + column)[inside], (amount * wy * wx)[inside], height * width
            )
    return total.reshape(shape).astype(np.float32)


def blurred(image: Floats, sigma_px: float) -> Floats:
    """Gaussian blur by FFT with mirrored edges where the kernel is wide, else directly.

    Parameters
    ----------
    image : (H, W) float32
    sigma_px : float

    Returns
    -------
    (H, W) float32
    """
    from scipy.ndimage import gaussian_filter

    if sigma_px < 0.2:
        return image
    out: Floats = gaussian_filter(image, sigma_px, mode="reflect", truncate=3.0)
    return out
