"""Background errors of mosaics and series with and without the drift model, simulated.

Run ``python benchmarks/joint_stage.py`` for the tables of ``docs/explanation/mosaic.md`` and
``docs/explanation/series.md``; ``--mosaics 4 --series 2 --largest 5`` for a first look. Rows that
the file ``--json`` holds are not made again, so a long table can be made in pieces. The rows of
BaSiCPy need ``--basicpy`` (see `external_basic`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from external_basic import WAYS, ExternalBasic, Fitter, python_of
from scipy import ndimage

from napari_txm_bgcorr.backgrounds.drift.model import DriftModel
from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core import pixels
from napari_txm_bgcorr.core.correction import BackgroundMethod, divide
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.smooth_fields import spread_indices
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import MethodError, ModelError
from napari_txm_bgcorr.quality import metrics as quality
from napari_txm_bgcorr.simulation.acquisition import (
    SimulatedScan,
    simulate_mosaic,
    simulate_series,
)

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

    def make(self, basicpy: Fitter) -> BackgroundMethod:
        """The method, without the joint stage, not fitted."""
        if self.method == "BaSiCPy":
            return ExternalBasic(basicpy, **dict(self.parameters))
        return make_method(self.method, joint=False, **dict(self.parameters))


CONTENDERS = {
    c.label: c
    for c in (
        Contender("captured, 8 h old", "captured", "stale"),
        Contender("captured, before and after", "captured", "around"),
        Contender("tile-median", "tile-median"),
        Contender("smooth", "smooth"),
        Contender("envelope", "envelope"),
        *(Contender(x, "BaSiCPy", "none", tuple(given.items())) for x, given in WAYS.items()),
        Contender("generator", "generator"),
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


def rows_of(drawn: SimulatedScan, raw: LazyTiles | np.ndarray, method: DriftModel) -> dict:
    """One method on one scan, with and without the stage."""
    scan = replace(drawn.scan, tiles=raw)
    began = time.perf_counter()
    method.fit(scan)
    fitted = time.perf_counter()
    row = {
        "kind": scan.kind, "seconds": fitted - began,
        "tiles": len(scan), "level": method.describe()["joint"]["level"]["from"],
        "registered": None if method.positions is None else
        [method.positions.used, len(method.positions.edges)],
        "before": judge(drawn, scan, method.method.fit(scan)),
        "after": judge(drawn, scan, method),
    }  # fmt: skip
    if isinstance(method.method, ExternalBasic):
        row["BaSiCPy"] = {k: v for k, v in method.method.said.items() if k != "baseline"}
    return row | {"judged_seconds": time.perf_counter() - fitted}


def all_rows(given: argparse.Namespace, known: list[dict]) -> Iterator[dict]:
    """Rows of every scan and method, known ones and new ones as they are made.

    A method that cannot run says so.
    """
    done = {key_of(row): row for row in known}
    fitter = Fitter(python_of(given.basicpy or Path()))
    for kind, count in (("mosaic", given.mosaics), ("series", given.series)):
        if not count:
            continue
        largest = given.largest if kind == "mosaic" else given.projections
        for k in range(count) if given.scans is None else given.scans:
            raw = None
            for label in given.methods:
                base = {
                    "kind": kind, "scan": k, "method": label, "size": given.size,
                    "largest": largest,
                }  # fmt: skip
                if key_of(base) in done:
                    yield done[key_of(base)]
                    continue
                one = CONTENDERS[label]
                began = time.perf_counter()
                draw = draw_mosaic if kind == "mosaic" else draw_series
                drawn = draw(k, given.size, largest, one.references)
                if raw is None:  # the same whatever the references
                    raw = np.asarray(drawn.scan.tiles[:])
                    base["drawn_seconds"] = time.perf_counter() - began
                base["family"] = drawn.session.family
                try:
                    yield base | rows_of(drawn, raw, DriftModel(one.make(fitter)))
                except (MethodError, ModelError) as error:
                    yield base | {"not_run": str(error).split(";")[0]}
    fitter.close()


def key_of(row: dict) -> tuple:
    """What makes two rows the same question."""
    return tuple(row[name] for name in ("kind", "scan", "method", "size", "largest"))


def known_rows(path: Path | None, again: list[str]) -> list[dict]:
    """Rows that a file holds, without those of methods to be run again or that could not run."""
    if path is None or not path.exists():
        return []
    rows = json.loads(path.read_text())
    if any("largest" not in row for row in rows):
        sys.exit(f"{path}: rows do not say their settings; name a new file")
    return [row for row in rows if "not_run" not in row and row["method"] not in again]


def save(path: Path, rows: list[dict]) -> None:
    """Write all rows; the file is whole at any time."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(rows, indent=1))
    os.replace(part, path)


def table(rows: list[dict]) -> str:
    """Markdown: means over scans, intervals by bootstrap, scans made worse."""
    head = (
        "| method | stage | sf % | one scale % | 95 % interval | abs % | seam % | leakage "
        "| worse |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    out = [head]
    for label in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == label and "before" in r]
        if not mine:
            why = next(r["not_run"] for r in rows if r["method"] == label)
            out.append(f"| {label} | not run: {why} | | | | | | | |")
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
        return f"| {label} | none | {' | '.join(shown)} |  |"
    worse = sum(r["after"]["one scale"] > r["before"]["one scale"] + 0.01 for r in rows)
    return f"| {label} | joint | {' | '.join(shown)} | {worse} of {len(rows)} |"


def paired(rows: list[dict]) -> str:
    """Markdown: one-scale error of `auto`, less that of each other method on the same scans."""
    ours = {s: _errors(rows, "auto", s) for s in ("before", "after")}
    out = [
        "| `auto` less | without the stage on either | the stage on both | it on `auto` alone |\n"
        "|---|---:|---:|---:|"
    ]
    for label in dict.fromkeys(r["method"] for r in rows):
        if label != "auto" and ours["after"] and _errors(rows, label, "before"):
            stages = (("before", "before"), ("after", "after"), ("after", "before"))
            cells = [_difference(ours[a], _errors(rows, label, b)) for a, b in stages]
            out.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(out)


def _errors(rows: list[dict], label: str, stage: str) -> dict[int, float]:
    mine = [r for r in rows if r["method"] == label and "before" in r]
    return {r["scan"]: r[stage]["one scale"] for r in mine}


def _difference(ours: dict[int, float], other: dict[int, float]) -> str:
    off = np.array([ours[k] - other[k] for k in ours.keys() & other.keys()])
    low, high = quality.bootstrap_interval(off)
    return f"{off.mean():+.2f} ({low:+.2f} to {high:+.2f})"


MEASURES = ("sf", "one scale", "abs", "seam", "leakage")


def by_size(rows: list[dict]) -> str:
    """Markdown: one-scale error without and with the stage, by the number of tiles."""
    sizes = sorted({row["tiles"] for row in rows if "before" in row})
    out = [
        f"| method | {' | '.join(f'{n} tiles' for n in sizes)} |",
        f"|---|{'---:|' * len(sizes)}",
    ]
    for label in dict.fromkeys(r["method"] for r in rows):
        mine = [r for r in rows if r["method"] == label and "before" in r]
        if mine:
            cells = [_cell([r for r in mine if r["tiles"] == n]) for n in sizes]
            out.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(out)


def _cell(rows: list[dict]) -> str:
    means = [
        np.mean([r[stage]["one scale"] for r in rows]) if rows else float("nan")
        for stage in ("before", "after")
    ]
    return f"{means[0]:.2f}, {means[1]:.2f} ({len(rows)})"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosaics", type=int, default=20)
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--scans", type=int, nargs="+", help="only these, counted from 0")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--largest", type=int, default=31, help="rows or columns of a mosaic")
    parser.add_argument("--projections", type=int, default=61)
    parser.add_argument("--methods", nargs="+", choices=CONTENDERS,
                        help="default: all, those of BaSiCPy with --basicpy")  # fmt: skip
    parser.add_argument("--basicpy", type=Path, help="folder of BaSiCPy's environment")
    parser.add_argument("--json", type=Path, help="file for all rows; what it holds is kept")
    parser.add_argument("--again", nargs="+", default=[], choices=CONTENDERS,
                        help="methods whose rows in that file are made anew")  # fmt: skip
    given = parser.parse_args(arguments)
    outside = [label for label, one in CONTENDERS.items() if one.method == "BaSiCPy"]
    if given.methods is None:
        given.methods = [c for c in CONTENDERS if given.basicpy or c not in outside]
    if given.basicpy is None and set(given.methods) & set(outside):
        parser.error("BaSiCPy is run by an environment of its own; name its folder by --basicpy")
    return given


def main(arguments: list[str] | None = None) -> None:
    """Print the rows as they are made, then tables of mosaics and series."""
    given = parse(arguments)
    known = known_rows(given.json, given.again)
    rows = []
    for row in all_rows(given, known):
        rows.append(row)
        if row not in known:
            print(describe(row), flush=True)
            known.append(row)
            if given.json is not None:
                save(given.json, known)
    for kind in ("mosaic", "series"):
        mine = [row for row in rows if row["kind"] == kind]
        if mine:
            print(f"\n{kind}\n\n{table(mine)}\n\n{paired(mine)}\n\n{by_size(mine)}")


def describe(row: dict) -> str:
    """One line for one row."""
    start = f"{row['kind']} {row['scan']:3d} {row['family']:8s} {row['method']:26s}"
    if "not_run" in row:
        return f"{start} not run: {row['not_run']}"
    b, a = row["before"], row["after"]
    figures = " ".join(f"{m} {b[m]:.2f}>{a[m]:.2f}" for m in b)
    return (
        f"{start} {row['tiles']:4d} {figures} {row['level']} {row['registered']} "
        f"{row['seconds']:.1f}s"
    )


if __name__ == "__main__":
    main()
