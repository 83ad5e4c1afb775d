"""Judge background methods on simulated sessions that no training has seen, and on real tiles.

The sessions come from ``SeedSequence(seed, spawn_key=(EVALUATION, group, session))``. The
spawn keys of training begin with 0 or 1, so no stream of one can meet a stream of the other,
whatever seeds are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_txm_bgcorr.backgrounds import make_method, method_names
from napari_txm_bgcorr.core import (
    BackgroundMethod,
    Scan,
    TileResult,
    correct_tiles,
    pixels,
    spread_indices,
)
from napari_txm_bgcorr.errors import ConfigError, MethodError, ModelError
from napari_txm_bgcorr.quality import metrics as quality

from .cases import CASES, Case, SimulatedCase, draw_case, families
from .markdown_table import format_table

__all__ = ["CASES", "GROUPS", "evaluate", "evaluate_real", "format_table"]

Row = dict[str, Any]
Image = NDArray[np.float32]
GROUPS = ("seen", "held-out")
LEARNED = ("auto", "generator")
SHARED_FROM = 2  # tiles that a shared residue needs
MAX_REAL = 64  # tiles of a real scan to look at, spread over it


@dataclass(frozen=True)
class _Contender:
    label: str
    method: BackgroundMethod


def evaluate(
    methods: Sequence[str] | None = None,
    *,
    sessions: int = 20,
    size: int = 256,
    seed: int = 0,
    model: str = "default",
    device: str = "auto",
    groups: Sequence[str] = GROUPS,
    cases: Sequence[str] | None = None,
    joint: bool | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> list[Row]:
    """Judge methods on simulated sessions.

    Parameters
    ----------
    methods : sequence of str or None
        Rows of the method table; None: all that can be made.
    sessions : int
        Of each group, each with every case.
    size : int
        Pixels along a tile.
    seed : int
    model, device : str
        Of the learned methods.
    groups : sequence of {"seen", "held-out"}
        Illumination of the families used in training, or of those never used in it. The
        specimens are new in both.
    cases : sequence of str or None
        Rows of `CASES`; None: all.
    joint : bool or None
        True: each method without the joint stage and with it; False: without; None: as each
        is by default, ``auto`` with it.
    progress : callable
        Called with 1 after each session (`sessions` times in all).

    Returns
    -------
    list of dict
        JSON-ready; one for each group, case and method that applies. ``sf``, ``abs`` and
        ``mosaic`` are dicts of mean, median, p95 and the 95 % bootstrap interval of the mean
        over sessions.

    Raises
    ------
    ConfigError
        If a case or group is unknown, or `sessions` or `size` too small.
    MethodError, ModelError, DeviceError
        If a method that was named cannot be made.
    """
    chosen = _chosen_cases(cases)
    unknown = [g for g in groups if g not in GROUPS]
    if unknown or sessions < 1 or size < 64:
        raise ConfigError(
            f"evaluate: groups {list(groups)}, sessions {sessions}, size {size}: give groups of "
            f"{', '.join(GROUPS)}, 1 session or more, 64 px or more"
        )
    contenders = list(_contenders(methods, model, device, joint))
    found: list[Row] = []
    for session in range(sessions):
        for group in groups:
            for case in chosen:
                drawn = draw_case(case, group, session, size, seed)
                for one in contenders:
                    found += _judge(one, drawn)
        progress(1)
    return _summaries(found)


def _chosen_cases(names: Sequence[str] | None) -> list[Case]:
    if names is None:
        return list(CASES.values())
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ConfigError(f"evaluate: case {unknown[0]!r}: unknown; choose {', '.join(CASES)}")
    return [CASES[name] for name in names]


def _contenders(
    methods: Sequence[str] | None, model: str, device: str, joint: bool | None = None
) -> Iterator[_Contender]:
    """Make each method, with and without the joint stage where both are asked for."""
    names = method_names() if methods is None else list(methods)
    for name in names:
        given: dict[str, Any] = {"model": model, "device": device} if name in LEARNED else {}
        for together in (False, True) if joint else (joint,):
            try:
                method = make_method(name, joint=together, **given)
            except (MethodError, ModelError):
                if methods is not None:
                    raise
                continue  # an optional package or the model is not installed
            yield _Contender(f"{name}, joint" if joint and together else name, method)


def _judge(one: _Contender, drawn: SimulatedCase) -> list[Row]:
    """Rows of one method on one drawn case, one for each tile; none where it does not apply."""
    rows: list[Row] = []
    for scan, truths in drawn.scans:
        try:
            fitted = one.method.fit(scan)
        except MethodError:
            return []
        rows += _scan_rows(one.label, drawn, scan, truths, list(correct_tiles(scan, fitted)))
    return rows


def _scan_rows(
    label: str,
    drawn: SimulatedCase,
    scan: Scan,
    truths: Any,
    results: list[TileResult],
) -> list[Row]:
    dark = scan.dark()
    beams = [r.background if dark is None else r.background - dark for r in results]
    masks = [_sound(b, t.reference, drawn.lit) for b, t in zip(beams, truths, strict=True)]
    errors = quality.mosaic_errors(beams, [t.reference for t in truths], masks)
    shared = float("nan")
    if len(results) >= SHARED_FROM:
        shared = quality.shared_residue(
            [r.transmission for r in results], [r.valid & drawn.lit for r in results]
        )
    rows = []
    for k, (result, truth) in enumerate(zip(results, truths, strict=True)):
        likeness = quality.psnr_ssim(
            np.where(drawn.lit, result.transmission, 1), np.where(drawn.lit, truth.sample, 1), 1.3
        )
        rows.append({
            "group": drawn.group, "case": drawn.case.name, "method": label,
            "session": drawn.session, "shared_residue": shared,
            **{name: float(errors[name][k]) for name in ("sf", "abs", "mosaic")},
            "leakage": quality.leakage(beams[k], truth.reference, truth.sample, masks[k]),
            "psnr": likeness["psnr"], "ssim": likeness["ssim"],
        })  # fmt: skip
    return rows


def _sound(predicted: Image, true: Image, lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Lit field without the camera's bad pixels.

    A reference shows its hot pixels as the raw tile does, so they cancel in the division; the
    true beam does not, so they would count as errors of the method.
    """
    ratio = np.asarray(predicted / true, np.float32)
    return lit & ~pixels.outliers(ratio, lit, 6.0, 0.05)


def _summaries(rows: list[Row]) -> list[Row]:
    """One row for each group, case and method, in order of appearance."""
    keys = list(dict.fromkeys((r["group"], r["case"], r["method"]) for r in rows))
    ordered = sorted(keys, key=lambda key: (GROUPS.index(key[0]), list(CASES).index(key[1])))
    return [
        _summary(key, [r for r in rows if (r["group"], r["case"], r["method"]) == key])
        for key in ordered
    ]


def _summary(key: tuple[str, str, str], rows: list[Row]) -> Row:
    owner = [int(r["session"]) for r in rows]
    out: Row = dict(zip(("group", "case", "method"), key, strict=True))
    out |= {"tiles": len(rows), "sessions": len(set(owner)), "families": families(key[0])}
    for name in ("sf", "abs", "mosaic"):
        values = np.array([r[name] for r in rows])
        out[name] = {
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "p95": float(np.quantile(values, 0.95)),
            "ci95": list(quality.bootstrap_interval(values, owner)),
        }
    for name in ("leakage", "shared_residue", "psnr", "ssim"):
        known = [r[name] for r in rows if np.isfinite(r[name])]
        out[name] = float(np.mean(known)) if known else None
    return out


def evaluate_real(
    scan: Scan,
    methods: Sequence[str] | None = None,
    *,
    model: str = "default",
    device: str = "auto",
) -> list[Row]:
    """Judge methods on a real mosaic or series, where no truth is known.

    Parameters
    ----------
    scan : Scan
        With two tiles or more.
    methods : sequence of str or None
        None: all that apply.
    model, device : str
        Of the learned methods.

    Returns
    -------
    list of dict
        First ``raw``, then each method: ``shared_residue`` of the tiles, and mean and spread
        of the transmission in the brightest, most even tenth of the field (``empty``).

    Raises
    ------
    ConfigError
        If it holds a single tile.
    """
    folder = scan.source.path
    if len(scan) < SHARED_FROM:
        raise ConfigError(f"{folder}: 1 tile; give a mosaic or series, to compare its tiles")
    places = spread_indices(len(scan), MAX_REAL)
    raw = [np.asarray(scan.tiles[i]) for i in places]
    rows: list[Row] = [_real_row("raw", folder, raw, None)]
    for one in _contenders(methods, model, device):
        try:
            fitted = one.method.fit(scan)
        except MethodError:
            continue
        results = list(correct_tiles(scan, fitted, indices=places))
        rows.append(
            _real_row(one.label, folder, [r.transmission for r in results],
                      [r.valid for r in results])
        )  # fmt: skip
    return rows


def _real_row(
    label: str,
    folder: Path,
    tiles: list[NDArray[Any]],
    valid: list[NDArray[np.bool_]] | None,
) -> Row:
    row: Row = {"group": "real", "case": Path(folder).name, "method": label, "tiles": len(tiles)}
    row["shared_residue"] = quality.shared_residue(tiles, valid)
    if valid is None:
        return row
    levels = [quality.empty_level(t, _even(t, v), v) for t, v in zip(tiles, valid, strict=True)]
    row["empty"] = {
        name: float(np.mean([level[name] for level in levels]))
        for name in ("mean", "spread", "smooth_spread")
    }
    return row


def _even(transmission: Image, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The tenth of the field with the least texture among its brighter half."""
    side = max(transmission.shape)
    smooth = ndimage.gaussian_filter(np.where(valid, transmission, 1), side / 64)
    square = ndimage.gaussian_filter(np.where(valid, transmission, 1) ** 2, side / 64)
    texture = square - smooth**2
    bright = valid & (smooth >= np.median(smooth[valid]))
    even: NDArray[np.bool_] = bright & (texture <= np.quantile(texture[bright], 0.2))
    return even
