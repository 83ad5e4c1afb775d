"""Transmission from raw, background and dark: the only module that divides."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_txm_bgcorr.errors import MethodError

from . import pixels
from .background_method import BackgroundMethod, StatesUncertainty
from .scan import Scan

__all__ = [
    "BackgroundMethod",
    "DivideOptions",
    "Divided",
    "TileResult",
    "correct_tiles",
    "divide",
    "optical_density",
]

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DivideOptions:
    """Treatment of special pixels; see the page "Correction" of the documentation.

    Attributes
    ----------
    invalid : {"fill", "nan"}
        Fill invalid pixels with defined values, or mark them as NaN.
    saturation : float or None
        Full scale of the camera (counts); None: the end of an integer type's range.
    dim_fraction : float
        Where background minus dark is below this share of its median, the ratio is noise.
    outlier_sigma : float or None
        A dead or hot pixel differs from its neighbours by this many times the noise; None:
        do not look for them.
    outlier_contrast : float
        And by this share of their median. X-ray specimens have no such single pixels: what is
        one pixel wide is about as thin, and absorbs a few per cent.
    aperture : bool
        Look for corners cut off by an aperture.
    """

    invalid: Literal["fill", "nan"] = "fill"
    saturation: float | None = None
    dim_fraction: float = 0.05
    outlier_sigma: float | None = 8.0
    outlier_contrast: float = 0.5
    aperture: bool = True


DEFAULT = DivideOptions()


class Divided(NamedTuple):
    """Transmission `(..., Y, X)` float32 and, as bool, where it can be trusted."""

    transmission: Image
    valid: Mask


@dataclass(frozen=True, eq=False)
class TileResult:
    """One corrected tile.

    Attributes
    ----------
    index : int
        Place in the scan.
    raw : (Y, X) counts
        As read.
    background : (Y, X) float32, counts
        Dark included.
    transmission : (Y, X) float32
        About 0 to 1.3.
    valid : (Y, X) bool
    uncertainty : (Y, X) float32 or None
        Standard deviation of the log background, its level left out; None: not asked for.
    """

    index: int
    raw: NDArray[Any]
    background: Image
    transmission: Image
    valid: Mask
    uncertainty: Image | None = None


def divide(
    raw: NDArray[Any],
    background: NDArray[Any],
    dark: NDArray[Any] | None = None,
    *,
    options: DivideOptions = DEFAULT,
) -> Divided:
    """Transmission: ``(raw - dark) / (background - dark)``.

    Parameters
    ----------
    raw : (Y, X) or (N, Y, X), counts
        In the type of the file, which tells where the camera saturates.
    background : same shape, counts
        What a reference reads: dark included.
    dark : (Y, X) counts or None
        Image without beam.
    options : DivideOptions

    Returns
    -------
    Divided
        Never NaN nor infinite unless ``options.invalid == "nan"``. At valid pixels it is
        exactly the ratio in float32; invalid pixels are filled as documented.

    Raises
    ------
    MethodError
        If shapes differ.
    """
    raw, background = np.asarray(raw), np.asarray(background)
    if raw.shape != background.shape or raw.ndim not in (2, 3):
        raise MethodError(
            f"background: shape {background.shape} for a tile of {raw.shape}; "
            "give a background of the tile's size"
        )
    if dark is not None and dark.shape != raw.shape[-2:]:
        raise MethodError(
            f"dark: shape {dark.shape} for a tile of {raw.shape[-2:]}; "
            "give a dark taken with the same binning"
        )
    with np.errstate(all="ignore"):  # what overflows or is undefined becomes invalid
        base = None if dark is None else np.asarray(dark).astype(np.float32)
        if raw.ndim == 2:
            return _divide_tile(raw, background, base, options)
        pairs = [_divide_tile(r, b, base, options) for r, b in zip(raw, background, strict=True)]
    if not pairs:
        return Divided(np.empty(raw.shape, np.float32), np.empty(raw.shape, bool))
    return Divided(np.stack([p.transmission for p in pairs]), np.stack([p.valid for p in pairs]))


def _divide_tile(
    raw: NDArray[Any], background: NDArray[Any], dark: Image | None, options: DivideOptions
) -> Divided:
    if raw.size == 0:
        return Divided(raw.astype(np.float32), np.zeros(raw.shape, bool))
    # Fresh memory costs more than arithmetic here, so the ratio is taken in place.
    ratio: Image = raw.astype(np.float32)
    beam = np.asarray(background, np.float32)
    if dark is not None:
        ratio -= dark
        beam = beam - dark
    floor = max(0.0, options.dim_fraction * pixels.level_of(beam))
    np.divide(ratio, beam, out=ratio)
    defined = (beam > floor) & (beam < np.inf) & np.isfinite(ratio)
    lit = pixels.lit_field(beam) if options.aperture else np.ones(raw.shape, bool)
    # No camera counts below zero, and none that reads exactly zero saw the beam.
    valid = defined & lit & (raw > 0) & ~pixels.saturated(raw, options.saturation)
    if options.outlier_sigma is not None:
        valid &= ~pixels.outliers(ratio, valid, options.outlier_sigma, options.outlier_contrast)
    if options.invalid == "nan":
        ratio[~valid] = np.nan
    else:
        _fill(ratio, valid, defined & lit, lit)
    return Divided(ratio, valid)


def _fill(ratio: Image, valid: Mask, defined: Mask, lit: Mask) -> None:
    """Fill invalid pixels in place.

    Isolated ones by the median of their neighbours; else the ratio itself where it exists (a
    saturated region keeps its lower bound); else 1, as if nothing were there.
    """
    if valid.all():
        return
    filled = pixels.fill_isolated(ratio, ~valid & lit, valid)
    ratio[~defined & ~filled] = 1.0


def optical_density(transmission: NDArray[Any], floor: float = 1e-3) -> NDArray[np.float32]:
    """Optical density ``-ln(transmission)``.

    Parameters
    ----------
    transmission : (..., Y, X)
    floor : float
        Transmission below it counts as this much, so that noise about zero behind an opaque
        object gives a finite density: 6.9 for 0.001, one count in a thousand.

    Returns
    -------
    (..., Y, X) float32
        Finite wherever the transmission is finite; NaN stays NaN.
    """
    clipped = np.maximum(np.asarray(transmission, np.float32), np.float32(floor))
    density: NDArray[np.float32] = -np.log(clipped)
    return density


def correct_tiles(
    scan: Scan,
    method: BackgroundMethod,
    *,
    batch: int = 8,
    indices: Sequence[int] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    options: DivideOptions = DEFAULT,
    workers: int | None = None,
    uncertainty: bool = False,
) -> Iterator[TileResult]:
    """Correct a scan tile by tile, holding no more than a few batches.

    Parameters
    ----------
    scan : Scan
    method : BackgroundMethod
        Fitted already.
    batch : int
        Tiles handed to the method at once.
    indices : sequence of int or None
        Tiles to correct, in this order; None: all.
    should_stop : callable
        Asked before each tile; the tiles given so far stand.
    options : DivideOptions
    workers : int or None
        Threads that each take one tile at a time; None: `workers` of the method. The results
        are the same bits.
    uncertainty : bool
        Also give the uncertainty of each background.

    Yields
    ------
    TileResult
        In the order of `indices`.

    Raises
    ------
    MethodError
        If an index is outside the scan, or the method gives a background of another size or
        states no uncertainty that is asked for.
    """
    wanted = range(len(scan)) if indices is None else [int(i) for i in indices]
    outside = [i for i in wanted if not 0 <= i < len(scan)]
    if outside or batch < 1:
        wrong = f"tile {outside[0]}" if outside else f"batch {batch}"
        raise MethodError(
            f"{scan.source.path}: {wrong}: out of range; there are {len(scan)} tiles"
        )
    states: StatesUncertainty | None = None
    if uncertainty:
        if not isinstance(method, StatesUncertainty):
            raise MethodError(
                f"method {method.name}: states no uncertainty; refine over the whole scan (joint "
                "stage), or do not ask for it"
            )
        states = method
    threads = method.workers if workers is None else workers
    size = batch if threads == 1 else 1
    groups = (wanted[first : first + size] for first in range(0, len(wanted), size))
    return _in_order(
        partial(_correct, scan, method, states, scan.dark(), options), groups, threads, should_stop
    )


def _correct(
    scan: Scan,
    method: BackgroundMethod,
    states: StatesUncertainty | None,
    dark: Image | None,
    options: DivideOptions,
    group: Sequence[int],
) -> list[TileResult]:
    """Read, predict and divide one group of tiles."""
    index = np.asarray(group, np.int64)
    raw = np.stack([np.asarray(scan.tiles[int(i)]) for i in index])
    results = []
    for tile, background, i in zip(raw, method.background(raw, index), index, strict=True):
        # Copies, so that one tile kept by the caller does not keep the batch.
        one, below = tile.copy(), np.array(background, np.float32)
        done = divide(one, below, dark, options=options)
        sd = None if states is None else states.uncertainty(int(i))
        results.append(TileResult(int(i), one, below, done.transmission, done.valid, sd))
    return results


def _in_order(
    work: Callable[[Sequence[int]], list[TileResult]],
    groups: Iterator[Sequence[int]],
    threads: int,
    should_stop: Callable[[], bool],
) -> Iterator[TileResult]:
    """Results of `work` in the order of `groups`, at most ``threads + 1`` groups ahead."""
    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="correct") as pool:
        waiting: deque[Future[list[TileResult]]] = deque()
        try:
            for group in islice(groups, threads + 1 if threads > 1 else 1):
                waiting.append(pool.submit(work, group))
            while waiting and not should_stop():
                results = waiting.popleft().result()
                for group in islice(groups, 1):
                    waiting.append(pool.submit(work, group))
                for result in results:
                    if should_stop():
                        return
                    yield result
        finally:
            for future in waiting:
                future.cancel()
