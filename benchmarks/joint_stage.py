"""Background errors of mosaics and series with and without the joint stage, simulated.

Run ``python benchmarks/joint_stage.py`` for the tables of ``docs/explanation/mosaic.md`` and
``docs/explanation/series.md``; ``--mosaics 4 --series 2 --largest 5`` for a first look.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from napari_txm_bgcorr.core import pixels, quality
from napari_txm_bgcorr.core.correction import BackgroundMethod, divide
from napari_txm_bgcorr.core.errors import MethodError, ModelError
from napari_txm_bgcorr.core.mosaic import Joint
from napari_txm_bgcorr.core.scan import LazyTiles, Scan
from napari_txm_bgcorr.core.shapes import spread_indices
from napari_txm_bgcorr.core.simulate import SimulatedScan, simulate_mosaic, simulate_series
from napari_txm_bgcorr.engine.methods import make_method

HOURS_PER_TILE = 85 / 3600
SEED = 7_300_000
GRIDS = ((2, 2), (3, 3), (4, 4), (5, 5), (3, 6), (6, 4), (8, 8), (4, 10), (10, 10), (31, 31))
DRIFTS = (1.0, 2.0, 0.5)
JUDGED = 48  # tiles whose error is taken, spread over the scan; seams over as many in a row


@dataclass(frozen=True)
class Contender:
    """A method and what it is given: no references, a stale one, or some before and after."""

    label: str
    method: str
    references: str = "none"
    parameters: tuple[tuple[str, Any], ...] = ()


CONTENDERS = {
    c.label: c
    for c in (
        Contender("captured, 8 h old", "captured", "stale"),
        Contender("captured, before and after", "captured", "around"),
        Contender("tile-median", "tile-median"),
        Contender("smooth", "smooth"),
        Contender("envelope", "envelope"),
        Contender("basic", "basic"),
        Contender("generator, no prior", "generator", "none", (("prior", "none"),)),
        Contender("auto", "auto"),
        Contender("auto, reference 8 h old", "auto", "stale"),
        Contender("auto, before and after", "auto", "around"),
    )
}


def draw_mosaic(k: int, size: int, largest: int, references: str) -> SimulatedScan:
    """Draw mosaic `k`; every fourth is covered by specimen, every second has a dark image."""
    grids = [g for g in GRIDS if max(g) <= largest]
    rows, columns = grids[k % len(grids)]
    return simulate_mosaic(
        rows, columns, size=size, overlap=(0.2, 0.16, 0.24)[k // 3 % 3], jitter_px=20, skew_px=4,
        hours_per_tile=HOURS_PER_TILE, drift=DRIFTS[k % 3], darks=k % 2, seed=SEED + k,
        specimen="slab" if k % 4 == 3 else None, **REFERENCES[references],
    )  # fmt: skip


def draw_series(k: int, size: int, projections: int, references: str) -> SimulatedScan:
    """Draw series `k`: nearly four hours from -60 to 60 degrees."""
    return simulate_series(
        projections, size=size, hours_per_tile=3.7 / projections, drift=DRIFTS[k % 3],
        darks=k % 2, seed=SEED + 10_000 + k, **REFERENCES[references],
    )  # fmt: skip


REFERENCES: dict[str, dict[str, Any]] = {
    "none": {},
    "stale": {"references": 1, "reference_hours": 8.0},
    "around": {"references": 6, "reference_hours": 0.1},
}


def judge(drawn: SimulatedScan, scan: Scan, method: BackgroundMethod) -> dict[str, float]:
    """Errors in per cent, leakage, and the seam of a mosaic."""
    dark, session = scan.dark(), drawn.session
    lit = ndimage.binary_erosion(session.aperture, iterations=2, border_value=1)
    spread = spread_indices(len(scan), JUDGED)
    beams, truths, masks = [], [], []
    for i in spread:
        background = method.background(scan.tiles[i][None], np.array([i]))[0]
        truth = drawn.backgrounds[i] + (session.dark if dark is None else 0)
        beam = background if dark is None else background - dark
        ratio = np.asarray(beam / truth, np.float32)
        beams.append(beam)
        truths.append(truth)
        masks.append(lit & ~pixels.outliers(ratio, lit, 6.0, 0.05))
    errors = quality.mosaic_errors(beams, truths, masks)
    leaks = [
        quality.leakage(b, t, drawn.transmissions[i], m)
        for i, b, t, m in zip(spread, beams, truths, masks, strict=True)
    ]
    out = {
        "sf": 100 * float(errors["sf"].mean()),
        "one scale": 100 * float(np.sqrt(np.mean(errors["mosaic"] ** 2))),
        "abs": 100 * float(errors["abs"].mean()),
        "leakage": float(np.nanmean(leaks)) if np.isfinite(leaks).any() else float("nan"),
    }
    if drawn.positions_px is not None:
        out["seam"] = 100 * seam(drawn, scan, method, lit)
    return out


def seam(drawn: SimulatedScan, scan: Scan, method: BackgroundMethod, lit: np.ndarray) -> float:
    """Seam of whole rows of tiles, at the true places."""
    columns = scan.grid[1] if scan.grid else len(scan)
    count = min(len(scan), max(2, JUDGED // columns) * columns)
    tiles = []
    for i in range(count):
        raw = scan.tiles[i]
        background = method.background(raw[None], np.array([i]))[0]
        tiles.append(divide(raw, background, scan.dark()).transmission)
    return quality.seam(tiles, drawn.positions_px[:count], [lit] * count)


def rows_of(drawn: SimulatedScan, raw: LazyTiles | np.ndarray, one: Contender) -> dict:
    """One method on one scan, with and without the stage."""
    scan = replace(drawn.scan, tiles=raw)
    method = Joint(make_method(one.method, joint=False, **dict(one.parameters)))
    began = time.perf_counter()
    method.fit(scan)
    joined = method.joined
    return {
        "method": one.label, "kind": scan.kind, "seconds": time.perf_counter() - began,
        "reason": method.reason, "tiles": len(scan),
        "level": "" if joined.level is None else joined.level.source,
        "registered": None if method.positions is None else
        [method.positions.used, len(method.positions.edges)],
        "before": judge(drawn, scan, method.method), "after": judge(drawn, scan, method),
    }  # fmt: skip


def all_rows(given: argparse.Namespace) -> Iterator[dict]:
    """Rows of every scan and method, as they are made; a method that cannot run says so."""
    for kind, count in (("mosaic", given.mosaics), ("series", given.series)):
        for k in range(count):
            raw = None
            for label in given.methods:
                one = CONTENDERS[label]
                if kind == "mosaic":
                    drawn = draw_mosaic(k, given.size, given.largest, one.references)
                else:
                    drawn = draw_series(k, given.size, given.projections, one.references)
                if raw is None:  # the same whatever the references
                    raw = np.asarray(drawn.scan.tiles[:])
                base = {"kind": kind, "scan": k, "method": label, "family": drawn.session.family}
                try:
                    yield base | rows_of(drawn, raw, one)
                except (MethodError, ModelError) as error:
                    yield base | {"not_run": str(error).split(";")[0]}


def table(rows: list[dict]) -> str:
    """Markdown: means over scans, intervals by bootstrap, scans made worse, stepped aside."""
    head = (
        "| method | stage | sf % | one scale % | 95 % interval | abs % | seam % | leakage "
        "| worse | aside |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    out = [head]
    for label in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == label and "before" in r]
        if not mine:
            why = next(r["not_run"] for r in rows if r["method"] == label)
            out.append(f"| {label} | not run: {why} | | | | | | | | |")
            continue
        out += [_line(label, stage, mine) for stage in ("before", "after")]
    return "\n".join(out)


def _line(label: str, stage: str, rows: list[dict]) -> str:
    values = {m: np.array([r[stage].get(m, np.nan) for r in rows]) for m in MEASURES}
    low, high = quality.bootstrap_interval(values["one scale"])
    shown = [
        f"{values['sf'].mean():.2f}", f"{values['one scale'].mean():.2f}",
        f"{low:.2f} to {high:.2f}", f"{values['abs'].mean():.2f}",
        *(f"{np.nanmean(values[m]):.{d}f}" if np.isfinite(values[m]).any() else ""
          for m, d in (("seam", 2), ("leakage", 3))),
    ]  # fmt: skip
    if stage == "before":
        return f"| {label} | none | {' | '.join(shown)} |  |  |"
    worse = sum(r["after"]["one scale"] > r["before"]["one scale"] + 0.01 for r in rows)
    aside = sum(bool(r["reason"]) for r in rows)
    return f"| {label} | joint | {' | '.join(shown)} | {worse} of {len(rows)} | {aside} |"


MEASURES = ("sf", "one scale", "abs", "seam", "leakage")


def main() -> None:
    """Print the rows as they are made, then a table each of mosaics and series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosaics", type=int, default=20)
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--largest", type=int, default=31, help="rows or columns of a mosaic")
    parser.add_argument("--projections", type=int, default=61)
    parser.add_argument("--methods", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--json", type=Path, help="file for all rows")
    given = parser.parse_args()
    rows = []
    for row in all_rows(given):
        rows.append(row)
        print(describe(row), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(rows, indent=1))
    for kind in ("mosaic", "series"):
        mine = [row for row in rows if row["kind"] == kind]
        if mine:
            print(f"\n{kind}\n\n{table(mine)}")


def describe(row: dict) -> str:
    """One line for one row."""
    start = f"{row['kind']} {row['scan']:3d} {row['family']:8s} {row['method']:26s}"
    if "not_run" in row:
        return f"{start} not run: {row['not_run']}"
    b, a = row["before"], row["after"]
    figures = " ".join(f"{m} {b[m]:.2f}>{a[m]:.2f}" for m in b)
    return (
        f"{start} {row['tiles']:4d} {figures} {row['level']} {row['registered']} "
        f"{row['seconds']:.1f}s {row['reason']}"
    )


if __name__ == "__main__":
    main()
