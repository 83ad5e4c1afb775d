"""How well each flag of `quality.flags` finds bad tiles, on simulated mosaics.

``python benchmarks/flags.py --mosaics 24 --seed 1`` chooses thresholds on one set of mosaics,
judges the flags on two others (illumination and specimens as in training; both unseen), and
prints the tables of ``docs/explanation/flags.md``. ``--write`` puts them into that page and
into ``quality/flag_worth.json``, which the program reads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata

from napari_txm_bgcorr.backgrounds.registry import make_method
from napari_txm_bgcorr.core import pixels
from napari_txm_bgcorr.core.correction import BackgroundMethod, TileResult, correct_tiles
from napari_txm_bgcorr.core.scan import Scan
from napari_txm_bgcorr.core.tile_array import LazyTiles
from napari_txm_bgcorr.errors import ModelError
from napari_txm_bgcorr.models.novelty import Novelty, add_features
from napari_txm_bgcorr.quality import metrics as quality
from napari_txm_bgcorr.quality.flags import FLAGS, Worth
from napari_txm_bgcorr.quality.measurement import Gauge
from napari_txm_bgcorr.quality.table import COLUMNS
from napari_txm_bgcorr.simulation.acquisition import FAMILIES, SimulatedScan, simulate_mosaic

ROOT = Path(__file__).resolve().parents[1]
WORTH = ROOT / "src/napari_txm_bgcorr/quality/flag_worth.json"
PAGE = ROOT / "docs/explanation/flags.md"
MARKS = ("<!-- figures begin -->", "<!-- figures end -->")
SETS = {"choose": 0, "seen": 1, "unseen": 2, "choose rows": 3, "rows": 4}
ROWS = ("choose rows", "rows")  # larger, some rows under a slab; judged by the level of tiles
OFF = 0.02  # a tile's level against the mosaic's, log
BAD = 0.03  # background error, one scale removed
TIMES = 2.0  # or this many times the scan's median
HOURS_PER_TILE = 85 / 3600
DRAWS = 500
Floats = NDArray[np.float64]


def draw(part: str, k: int, size: int, seed: int) -> SimulatedScan:
    """Draw mosaic `k` of a set: 3 x 3 to 5 x 5, half with a dark, half with an old reference.

    Of `ROWS` 9 x 8 to 12 x 11, half the size, two to four rows covered, half with a dark.
    """
    number = int(np.random.SeedSequence([seed, SETS[part], k]).generate_state(1)[0])
    if part in ROWS:
        return simulate_mosaic(
            9 + k % 4, 8 + k // 4 % 4, size=size // 2, overlap=0.2, jitter_px=20, skew_px=4,
            hours_per_tile=HOURS_PER_TILE, darks=k % 2, seed=number, covered_rows=2 + k % 3,
        )  # fmt: skip
    side = 3 + k % 3
    unseen = [name for name, family in FAMILIES.items() if family.held_out]
    drawn = simulate_mosaic(
        side, side, size=size, overlap=(0.2, 0.16, 0.24)[k // 3 % 3], jitter_px=20, skew_px=4,
        hours_per_tile=HOURS_PER_TILE, references=k // 2 % 2, reference_hours=8.0,
        darks=k % 2, seed=number, family=unseen[k % len(unseen)] if part == "unseen" else None,
        specimen="empty" if part == "unseen" else None,
    )  # fmt: skip
    return with_circuit(drawn, size, number) if part == "unseen" else drawn


def with_circuit(drawn: SimulatedScan, size: int, seed: int) -> SimulatedScan:
    """The same mosaic of a specimen that no training shows: layers of conductors and a wedge."""
    at = np.rint(drawn.positions_px).astype(int)
    shape = tuple(int(n) + size for n in at.max(axis=0))
    rng = np.random.default_rng([seed, 9])
    canvas = circuit(rng, shape, size)

    def cut(i: int) -> NDArray[np.float32]:
        y, x = at[i]
        return canvas[y : y + size, x : x + size]

    def raw(i: int) -> NDArray[np.uint16]:
        tag = np.random.default_rng([seed, 3, i])
        return drawn.session.expose(cut(i), drawn.hours[i], tag, drift=1.0)

    count = len(drawn.scan)
    return replace(
        drawn,
        scan=replace(drawn.scan, tiles=LazyTiles((count, size, size), np.uint16, raw)),
        transmissions=LazyTiles((count, size, size), np.float32, cut),
    )


def circuit(rng: np.random.Generator, shape: tuple[int, int], size: int) -> NDArray[np.float32]:
    """Transmission of straight conductors in two layers, contacts, and a wedge of substrate."""
    thickness = np.zeros(shape, np.float32)
    for axis in (0, 1):
        place = 0.0
        while place < shape[axis]:
            width = size * rng.uniform(0.01, 0.12)
            line = [slice(None), slice(None)]
            line[axis] = slice(int(place), int(place + width))
            start = int(rng.uniform(-0.5, 0.5) * shape[1 - axis])
            line[1 - axis] = slice(max(0, start), max(0, start) + int(shape[1 - axis] * 0.8))
            thickness[tuple(line)] += rng.uniform(0.1, 0.5)
            place += width + size * rng.uniform(0.02, 0.4)
    y, x = np.mgrid[: shape[0], : shape[1]] / size
    angle = rng.uniform(0, 2 * np.pi)
    wedge = 0.08 * (np.cos(angle) * x + np.sin(angle) * y)
    thickness = ndimage.gaussian_filter(thickness, size / 400) + wedge - wedge.min()
    return np.exp(-thickness).astype(np.float32)


def judge(
    drawn: SimulatedScan, method: BackgroundMethod, novelty: Callable[[TileResult], float] | None
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """True errors of the tiles' backgrounds and levels, and the suspicion of each flag."""
    scan = drawn.scan
    dark = scan.dark()
    pedestal = drawn.session.dark if dark is None else 0
    lit = ndimage.binary_erosion(drawn.session.aperture, iterations=2, border_value=1)
    gauge, errors, levels = Gauge(scan), np.empty(len(scan)), np.empty(len(scan))
    gauge.tell(method.describe())
    for tile in correct_tiles(scan, method):
        truth = drawn.backgrounds[tile.index] + pedestal
        beam = tile.background if dark is None else tile.background - dark
        ratio = np.asarray(beam / truth, np.float32)
        known = lit & ~pixels.outliers(ratio, lit, 6.0, 0.05)
        errors[tile.index] = quality.background_error(beam, truth, known)["sf"]
        levels[tile.index] = np.log(np.median(ratio[known]))
        gauge.add(tile, float("nan") if novelty is None else novelty(tile))
    gauge.register()
    table = gauge.table()
    scores = {key: flag.score(table) for key, flag in FLAGS.items() if not flag.fact}
    return errors, np.abs(levels - np.median(levels)), scores


def is_bad(errors: Floats) -> NDArray[np.bool_]:
    """Tiles of one mosaic whose background is off by 3 %, or by twice the mosaic's median."""
    return (errors > BAD) | (errors > TIMES * np.median(errors))


def methods() -> dict[str, Callable[[], BackgroundMethod]]:
    """Methods that flags are judged on: what `correct` does by default, and the bare network."""
    return {
        "auto": lambda: make_method("auto"),
        "generator alone": lambda: make_method("generator"),
    }


DECIDING = "auto"  # thresholds and what is shown come from it; the other method is for comparison


@dataclass(frozen=True)
class Judged:
    """One mosaic by one method."""

    part: str
    method: str
    mosaic: int
    errors: Floats
    levels: Floats
    scores: dict[str, Floats]
    seconds: float

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Tiles that flags should find."""
        return self.levels > OFF if self.part in ROWS else is_bad(self.errors)


def collect(mosaics: int, size: int, seed: int, names: Sequence[str]) -> list[Judged]:
    """Correct and measure every mosaic of all sets by each method named."""
    out = []
    for part in SETS:
        for k in range(mosaics):
            drawn = draw(part, k, size, seed)
            tiles = np.asarray(drawn.scan.tiles[:])
            true = np.asarray(drawn.backgrounds[:])
            drawn = replace(
                drawn,
                scan=replace(drawn.scan, tiles=tiles),
                backgrounds=LazyTiles(true.shape, np.float32, true.__getitem__),
            )
            for name in names if part not in ROWS else (DECIDING,):
                make = methods()[name]
                began = time.perf_counter()
                found = judge(drawn, make().fit(drawn.scan), novelty_of(drawn.scan))
                done = Judged(part, name, k, *found, time.perf_counter() - began)
                out.append(done)
                print(
                    f"{part:7s} {k:3d} {drawn.session.family:9s} {name:16s} "
                    f"sf {100 * np.median(done.errors):5.2f} % bad {done.bad.mean():.2f} "
                    f"{done.seconds:.1f} s",
                    flush=True,
                )
    return out


def novelty_of(scan: Scan) -> Callable[[TileResult], float] | None:
    """Novelty, where the shipped model's card describes features."""
    try:
        return Novelty(scan)
    except ModelError:
        return None


def auc(scores: Floats, bad: NDArray[np.bool_]) -> float:
    """Chance that a bad tile scores higher than a good one; NaN without one of either."""
    known = np.isfinite(scores)
    high, low = scores[known & bad], scores[known & ~bad]
    if not high.size or not low.size:
        return float("nan")
    ranks = rankdata(np.concatenate([high, low]))
    return float((ranks[: high.size].mean() - (high.size + 1) / 2) / low.size)


def choose(scores: Floats, bad: NDArray[np.bool_]) -> float:
    """Threshold with the greatest difference of true and false alarm rates (Youden's J)."""
    known = np.isfinite(scores)
    scores, bad = scores[known], bad[known]
    if not scores.size or bad.all() or not bad.any():
        return float("nan")
    order = np.argsort(scores)
    ordered, marks = scores[order], bad[order]
    above_bad = 1 - np.cumsum(marks) / marks.sum()
    above_good = 1 - np.cumsum(~marks) / (~marks).sum()
    return float(ordered[int(np.argmax(above_bad - above_good))])


def figures(rows: list[Judged], key: str, threshold: float, seed: int) -> dict[str, list[float]]:
    """AUC, precision, recall and share flagged, each (value, low, high) over mosaics."""
    pairs = [(row.scores[key], row.bad) for row in rows]

    def all_of(part: list[tuple[Floats, NDArray[np.bool_]]]) -> tuple[float, ...]:
        scores, bad = (np.concatenate(x) for x in zip(*part, strict=True))
        with np.errstate(invalid="ignore"):
            up = scores > threshold
        hit = float((up & bad).sum())
        return (
            auc(scores, bad), hit / up.sum() if up.any() else np.nan,
            hit / bad.sum() if bad.any() else np.nan, float(up.mean()),
        )  # fmt: skip

    rng = np.random.default_rng(seed)
    drawn = np.array(
        [all_of([pairs[i] for i in rng.integers(0, len(pairs), len(pairs))]) for _ in range(DRAWS)]
    )
    out = {}
    for n, (name, value) in enumerate(
        zip(("auc", "precision", "recall", "share"), all_of(pairs), strict=True)
    ):
        known = drawn[np.isfinite(drawn[:, n]), n]
        low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
        out[name] = [round(float(x), 4) for x in (value, low, high)]
    within = [auc(s, b) for s, b in pairs]
    known = [x for x in within if np.isfinite(x)]
    out["within"] = [round(float(np.mean(known)), 4) if known else float("nan"), len(known)]
    return out


def evaluate(rows: list[Judged], seed: int) -> dict[str, dict]:
    """Worth of every flag: threshold, and a row for each method and set."""
    out = {}
    for key, flag in FLAGS.items():
        if flag.fact:
            continue
        own = ("choose rows", "rows") if flag.of_level else ("choose", "seen", "unseen")
        pool = [row for row in rows if row.part == own[0] and row.method == DECIDING]
        limit = choose(
            np.concatenate([row.scores[key] for row in pool]),
            np.concatenate([row.bad for row in pool]),
        )
        judged = []
        for name in dict.fromkeys(row.method for row in rows):
            for part in judged_sets(name):
                some = [r for r in rows if r.part == part and r.method == name]
                decides = name == DECIDING and part in own
                row = {"method": name, "set": part, "decides": decides}
                judged.append(row | figures(some, key, limit, seed))
        sign = 1.0 if flag.above else -1.0
        out[key] = {"threshold": None if np.isnan(limit) else round(sign * limit, 5),
                    "judged": judged}  # fmt: skip
    return out


def judged_sets(method: str) -> list[str]:
    """Sets that flags are judged on."""
    return [
        s for s in SETS if not s.startswith("choose") and (method == DECIDING or s not in ROWS)
    ]


def bad_share(rows: list[Judged], name: str, part: str) -> float:
    """Share of bad tiles in a set."""
    bad = [r.bad for r in rows if r.part == part and r.method == name]
    return float(np.concatenate(bad).mean())


def unseen_auc(rows: list[Judged], key: str) -> float:
    """Chance that a mosaic of the unseen set has a higher median than one of the seen set."""
    medians = {
        part: [np.nanmedian(r.scores[key]) for r in rows if r.part == part and r.method == "auto"]
        for part in ("seen", "unseen")
        if any(np.isfinite(r.scores[key]).any() for r in rows)
    }
    if len(medians) < 2:
        return float("nan")
    values = np.array([*medians["seen"], *medians["unseen"]])
    return auc(values, np.arange(len(values)) >= len(medians["seen"]))


def tables(found: dict[str, dict], rows: list[Judged], given: argparse.Namespace) -> str:
    """Markdown for the documentation."""
    names = " ".join(repr(name) for name in given.methods)
    out = [
        f"`python benchmarks/flags.py --mosaics {given.mosaics} --size {given.size} "
        f"--seed {given.seed} --methods {names}`; {given.mosaics} mosaics in each set. "
        "AUC with its 95 % interval; `within`: mean AUC inside single mosaics that have good and "
        "bad tiles (how many); `shown` says whether the flag is a warning.",
    ]
    for name in dict.fromkeys(row.method for row in rows):
        for part in judged_sets(name):
            share = bad_share(rows, name, part)
            out += ["", f"**{name}, {part}** ({100 * share:.0f} % of the tiles are bad)", ""]
            out += ["| flag | threshold | AUC | interval | precision | recall | flagged | within "
                    "| shown |", "|---|---:|---:|---:|---:|---:|---:|---:|---|"]  # fmt: skip
            out += [line(key, worth, name, part) for key, worth in found.items()]
    out += ["", "Scans unlike the training told from others, by the median of a figure over a "
            "scan (AUC): " + ", ".join(
                f"{FLAGS[key].label} {unseen_auc(rows, key):.2f}"
                for key in ("novelty", "seam_shape", "departure")) + "."]  # fmt: skip
    return "\n".join(out)


def line(key: str, worth: dict, name: str, part: str) -> str:
    """One row of a table."""
    column = COLUMNS[FLAGS[key].column]
    mine = next(r for r in worth["judged"] if (r["method"], r["set"]) == (name, part))
    limit = worth["threshold"]
    rule = "" if limit is None else f"{limit * column.scale:.3g} {column.unit}".strip()
    a, low, high = mine["auc"]
    shown = "yes" if Worth.of(worth).works else "no"
    return (
        f"| {FLAGS[key].label} | {rule} | {a:.2f} | {low:.2f} to {high:.2f} "
        f"| {mine['precision'][0]:.2f} | {mine['recall'][0]:.2f} | {mine['share'][0]:.2f} "
        f"| {mine['within'][0]:.2f} ({mine['within'][1]}) | {shown} |"
    )


def write(found: dict[str, dict], text: str, given: argparse.Namespace) -> None:
    """Put the figures where the program and the documentation read them."""
    settings = {"mosaics": given.mosaics, "size": given.size, "seed": given.seed}
    content = {
        "made": datetime.now(UTC).date().isoformat(), "settings": settings, "flags": found
    }  # fmt: skip
    plain = json.dumps(content, indent=1).replace("NaN", "null")
    WORTH.write_text(plain + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(MARKS[0])
    PAGE.write_text(before + MARKS[0] + "\n" + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1],
                    encoding="utf-8")  # fmt: skip


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosaics", type=int, default=24, help="in each of the three sets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--methods", nargs="+", choices=list(methods()), default=list(methods()))
    parser.add_argument("--write", action="store_true", help="into flag_worth.json and the page")
    parser.add_argument(
        "--features", action="store_true", help="first describe the features in the model's card"
    )
    given = parser.parse_args()
    if given.features:
        print("features described in the card of", add_features().name, flush=True)
    rows = collect(given.mosaics, given.size, given.seed, given.methods)
    found = evaluate(rows, given.seed)
    text = tables(found, rows, given)
    print(text)
    if given.write:
        write(found, text, given)


if __name__ == "__main__":
    main()
